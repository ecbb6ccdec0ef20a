"""The demo shop's end of its webhooks: takes what is signed for it and writes one line for each."""

from __future__ import annotations

import argparse
import hmac
import json
import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from webhooks.signatures import sign_message

PATH = "/countinghouse/events"
SECRETS = "DEMO_WEBHOOK_SECRETS"  # the variable: not on the command line, where every user could read it
TOLERANCE_SECONDS = 300  # an older message may be a replay
MAX_BYTES = 64 * 1024


def is_genuine(headers: Mapping[str, str], body: bytes, *, signing_secrets: Sequence[str]) -> bool:
    """Whether one of the secrets signed this message, less than five minutes ago."""
    try:
        timestamp = int(headers.get("webhook-timestamp", ""))
        ours = sign_message(
            message_id=headers.get("webhook-id", ""),
            timestamp=timestamp,
            body=body,
            signing_secrets=signing_secrets,
        )["webhook-signature"]
    except ValueError:
        return False
    theirs = headers.get("webhook-signature", "").encode().split()
    is_fresh = abs(time.time() - timestamp) < TOLERANCE_SECONDS
    return is_fresh and any(hmac.compare_digest(a, b) for a in ours.encode().split() for b in theirs)


class Receiver(BaseHTTPRequestHandler):
    """Answers 204 to what is genuine and 400 to everything else."""

    timeout = 10  # seconds for one request

    def __init__(self, *args: Any, signing_secrets: Sequence[str]) -> None:
        self._signing_secrets = signing_secrets
        super().__init__(*args)

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        size = int(length) if length.isdecimal() and len(length) < 7 else MAX_BYTES + 1
        body = self.rfile.read(size) if size <= MAX_BYTES else b""
        headers = {name.lower(): value for name, value in self.headers.items()}
        genuine = is_genuine(headers, body, signing_secrets=self._signing_secrets)
        print(describe(headers, body) if genuine else "refused: not signed for this shop", flush=True)
        self.send_response(204 if genuine else 400)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """One line for each message is enough."""


def describe(headers: Mapping[str, str], body: bytes) -> str:
    """One line for the log; the message was written by the site."""
    message = json.loads(body)
    return f"{message['timestamp']} {message['type']} {headers['webhook-id']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    handler = partial(Receiver, signing_secrets=os.environ[SECRETS].split())
    with ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
