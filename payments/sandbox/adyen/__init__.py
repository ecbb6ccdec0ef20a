"""A stand-in for Adyen on this machine: its wire protocol, its webhooks, its reports, and faults on demand."""

from .server import AdyenSandbox, start

__all__ = ["AdyenSandbox", "start"]
