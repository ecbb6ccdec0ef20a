"""Run the stand-in alone: `python -m payments.sandbox.adyen --port 0 --data DIR`."""

import argparse
from collections.abc import Sequence

from payments.sandbox.alone import add_place, serve_until_told

from .server import AdyenSandbox


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_place(parser, port=8421, data=".local/adyen")
    parser.add_argument("--webhook-url", help="where notifications are delivered")
    parser.add_argument("--webhook-secret", help="the HMAC key that signs them, in hexadecimal")


def run(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; 0, or 1 when the books or the port are taken."""

    def open_gateway() -> AdyenSandbox:
        return AdyenSandbox(
            options.data,
            port=options.port,
            webhook_url=options.webhook_url,
            webhook_secret=options.webhook_secret,
        )

    return serve_until_told(open_gateway, options, name="Adyen's stand-in")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="adyen", description="A stand-in for Adyen on this machine.")
    add_arguments(parser)
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
