"""The HTTP side: the sandbox's own threaded server, with a handler that reads XML."""

from contextlib import AbstractContextManager
from pathlib import Path

from payments.sandbox.server import Handler, Running, run_for_a_block
from payments.sandbox.wire import Doc

from .gateway import BraintreeBooks


class XmlHandler(Handler):
    """One connection; the controls below `/_` speak JSON."""

    def do_PUT(self) -> None:
        self.do_GET()

    def parse_params(self, query: str, body: bytes) -> Doc:
        if self.path.startswith("/_"):
            return super().parse_params(query, body)
        kind = self.headers.get("Content-Type", "")
        if kind.startswith("multipart/"):
            return {"multipart": body.decode("latin-1")}
        return {"xml": body.decode("utf-8", "replace")}


class BraintreeSandbox(Running):
    """A running Braintree."""

    def __init__(self, data: Path, *, port: int = 0) -> None:
        self.gateway = BraintreeBooks(data)
        super().__init__(self.gateway, port=port, handler=XmlHandler, name="braintree-sandbox")
        self.serve()


def start(data: Path | str | None = None, *, port: int = 0) -> AbstractContextManager[BraintreeSandbox]:
    """Run one in this process for the length of a block; without `data` its books vanish afterwards."""
    return run_for_a_block(BraintreeSandbox, data, port=port)
