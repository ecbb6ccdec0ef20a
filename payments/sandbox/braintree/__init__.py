"""A Braintree on this machine: its XML over HTTP, its own books, faults and signed notifications on demand."""

from .server import BraintreeSandbox, start

__all__ = ["BraintreeSandbox", "start"]
