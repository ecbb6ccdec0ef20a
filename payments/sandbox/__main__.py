"""Run the gateway alone: `python -m payments.sandbox --port 0 --data DIR`."""

import argparse
from collections.abc import Sequence

from .alone import add_place, serve_until_told
from .server import Sandbox


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_place(parser, port=8420, data=".local/sandbox")
    parser.add_argument("--webhook-url", help="where events are delivered")
    parser.add_argument("--webhook-secret", help="signs the deliveries (whsec_...)")


def run(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; 0, or 1 when the books or the port are taken."""

    def open_gateway() -> Sandbox:
        return Sandbox(
            options.data,
            port=options.port,
            webhook_url=options.webhook_url,
            webhook_secret=options.webhook_secret,
        )

    return serve_until_told(open_gateway, options, name="Sandbox gateway")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="sandbox", description="A card gateway that runs on this machine.")
    add_arguments(parser)
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
