"""The stand-in as a running server, on the sandbox's own HTTP side."""

from contextlib import AbstractContextManager
from pathlib import Path

from payments.sandbox.server import Running, run_for_a_block

from .gateway import Gateway
from .notifications import set_endpoint


class AdyenSandbox(Running):
    """A running stand-in for Adyen."""

    def __init__(
        self, data: Path, *, port: int = 0, webhook_url: str | None = None, webhook_secret: str | None = None
    ) -> None:
        self.gateway = Gateway(data)
        super().__init__(self.gateway, port=port, name="adyen")
        if webhook_url:
            with self.gateway.books.session() as session:
                set_endpoint(session, webhook_url, webhook_secret)
        self.gateway.deliverer.start()
        self.serve()


def start(
    data: Path | str | None = None,
    *,
    port: int = 0,
    webhook_url: str | None = None,
    webhook_secret: str | None = None,
) -> AbstractContextManager[AdyenSandbox]:
    """Run a stand-in in this process for the length of a block; without `data` its books vanish afterwards."""
    return run_for_a_block(
        AdyenSandbox, data, port=port, webhook_url=webhook_url, webhook_secret=webhook_secret
    )
