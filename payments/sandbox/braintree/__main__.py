"""Run it alone: `python -m payments.sandbox.braintree --port 0 --data DIR`."""

import argparse
from collections.abc import Sequence

from payments.sandbox.alone import add_place, serve_until_told

from .server import BraintreeSandbox


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_place(parser, port=8421, data=".local/braintree")


def run(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; 0, or 1 when the books or the port are taken."""

    def open_gateway() -> BraintreeSandbox:
        return BraintreeSandbox(options.data, port=options.port)

    return serve_until_told(open_gateway, options, name="Sandbox Braintree")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="braintree", description="A Braintree that runs on this machine.")
    add_arguments(parser)
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
