"""Child of the memory benchmark: drives sagas in one process and prints what it weighs from time to time."""

from __future__ import annotations

import gc
import json
import os
import sys
import uuid
from collections.abc import Callable

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

from django.core.management import call_command  # noqa: E402
from django.db import connection, connections  # noqa: E402

from benchmarks import instant  # noqa: E402
from benchmarks.measure import in_threads  # noqa: E402
from benchmarks.scale_fill import SHOP, draft_order  # noqa: E402
from payments import services  # noqa: E402
from payments.models import ApiClient, GatewayAccount  # noqa: E402

WORKERS = 2  # threads, as in a worker that sweeps with some


def resident() -> int:
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def prepare_saga() -> Callable[[], None]:
    """Left to the sweeper by its request, as with `Prefer: respond-async`, then swept: a worker's own work."""
    instant.install()
    client, _ = ApiClient.objects.get_or_create(name=SHOP)
    GatewayAccount.objects.update(is_active=True)

    def run() -> None:
        draft = draft_order(uuid.uuid4().hex[:12], "automatic")
        services.place_order(client, draft, drive=False)
        services.sweep_sagas()

    return run


def main(count: int, every: int) -> None:
    call_command("migrate", verbosity=0)
    run, done = prepare_saga(), 0
    samples = []
    while done < count:
        in_threads(run, threads=WORKERS, count=every, done=connections.close_all)
        done += every
        gc.collect()
        samples.append((done, resident()))
        print(done, f"{samples[-1][1] / 1e6:.1f} MB", file=sys.stderr, flush=True)
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM payments_sagarun WHERE state = 'COMPLETED'")
        completed = cursor.fetchone()[0]
    print(json.dumps({"samples": samples, "completed": completed}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
