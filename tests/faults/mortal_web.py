"""A web application whose process dies while it archives a webhook, once for each event that is named for it.

`evt_before_...` dies in the transaction before its commit, `evt_after_...` after the commit and before the answer.
MORTAL_FOLDER remembers which have died. The product knows nothing of this: the archive's one seam is replaced here.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from config.wsgi import application

__all__ = ["application"]

from django.db import transaction

from webhooks import inbound

_insert = inbound._insert


def insert_or_die(delivery: Any) -> bool:
    moment = delivery.envelope.event_id.split("_")[1]
    if moment == "before" and is_first(delivery.envelope.event_id):
        with transaction.atomic():
            _insert(delivery)
            os.kill(os.getpid(), signal.SIGKILL)
    is_new = _insert(delivery)
    if moment == "after" and is_first(delivery.envelope.event_id):
        os.kill(os.getpid(), signal.SIGKILL)
    return is_new


def is_first(event_id: str) -> bool:
    marker = Path(os.environ["MORTAL_FOLDER"], event_id)
    if marker.exists():
        return False
    marker.touch()
    return True


inbound._insert = insert_or_die
