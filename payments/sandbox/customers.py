"""Customers, and the payment methods that they let the shop keep."""

from . import wire
from .books import Session, new_id
from .wire import Doc, invalid

CUSTOMER: wire.Spec = {
    "description": wire.string,
    "email": wire.string,
    "name": wire.string,
    "phone": wire.string,
    "metadata": wire.metadata,
    "expand": wire.strings,
}
FIELDS = ("description", "email", "name", "phone")


def create_customer(session: Session, params: Doc) -> Doc:
    given = wire.check_params(params, CUSTOMER)
    customer = {
        "id": new_id("cus"),
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": session.now,
        "currency": None,
        "default_source": None,
        "delinquent": False,
        **{name: given.get(name) for name in FIELDS},
        "livemode": False,
        "metadata": given.get("metadata", {}),
        "shipping": None,
    }
    session.put(customer)
    session.index_metadata(customer)
    session.emit("customer.created", customer)
    return customer


def attach_method(session: Session, identity: str, params: Doc) -> Doc:
    given = wire.check_params(
        params, {"customer": wire.string, "expand": wire.strings}, required=("customer",)
    )
    customer = session.get(given["customer"], "customer", "customer")
    check_owner(session.get(identity, "payment_method"), customer["id"])
    return attach(session, identity, customer["id"])


def attach(session: Session, identity: str, customer: str) -> Doc:
    method = session.get(identity, "payment_method")
    if method["customer"] == customer:
        return method
    method["customer"] = customer
    session.emit("payment_method.attached", method)
    return session.put(method)


def detach_method(session: Session, identity: str, params: Doc) -> Doc:
    wire.check_params(params, {"expand": wire.strings})
    method = session.get(identity, "payment_method")
    if not method["customer"]:
        raise invalid(
            "The payment method you provided is not attached to a customer so detachment is impossible.",
            "payment_method",
        )
    previous = {"customer": method["customer"]}
    method |= {"customer": None, "_detached": True}
    session.emit("payment_method.detached", method, previous=previous)
    return session.put(method)


def check_owner(method: Doc, customer: str | None) -> None:
    """Raises ApiError 400 for a method that was detached, or that is another customer's."""
    if method.get("_detached"):
        raise invalid(
            "The provided PaymentMethod was detached from a Customer, and may not be used again.",
            "payment_method",
        )
    if method["customer"] not in (None, customer):
        raise invalid(
            f"The provided PaymentMethod belongs to the Customer {method['customer']}:"
            " include it in the request.",
            "payment_method",
        )
