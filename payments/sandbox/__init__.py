"""A card gateway on this machine: Stripe's wire protocol over HTTP, its own books, faults on demand."""

from .server import Sandbox, start

__all__ = ["Sandbox", "start"]
