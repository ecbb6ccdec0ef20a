"""What the daily payment accounting report is made of: each move of an amount from one bucket to another."""

from datetime import UTC, datetime

from payments.sandbox.balance import charge_fee
from payments.sandbox.books import Session, new_id

from .wire import Doc, format_major

COLUMNS = (
    "Company Account", "Merchant Account", "Psp Reference", "Merchant Reference", "Payment Method",
    "Payment Method Variant", "Booking Date", "TimeZone", "Record Type", "Modification Psp Reference",
    "Main Currency", "Main Amount", "Payment Currency", "Received (PC)", "Exchange Rate", "Authorised (PC)",
    "Captured (PC)", "Settlement Currency", "Payable (SC)", "Commission (SC)", "Markup (SC)", "Scheme Fees (SC)",
    "Interchange (SC)", "Processing Fee Currency", "Processing Fee (FC)", "Modification Merchant Reference",
    "Original Amount", "Merchant Order Reference", "Shopper Reference",
)  # fmt: skip
BUCKETS = ("received", "authorised", "captured", "payable", "commission")


def write(
    session: Session, payment: Doc, record: str, *, own: str = "", reference: str = "", **moved: int
) -> None:
    """One line; `moved` is what each bucket gains or loses, in minor units."""
    session.put(
        {
            "id": new_id("led"),
            "object": "entry",
            "created": session.now,
            "payment": payment["id"],
            "record": record,
            "own": own,
            "reference": reference,
            **{bucket: moved.get(bucket, 0) for bucket in BUCKETS},
        }
    )


def settle(session: Session, payment: Doc, value: int, own: str, reference: str) -> None:
    """A capture: sent to the scheme and paid for at once, for a fee."""
    fee = charge_fee(value, european=True)
    write(session, payment, "SentForSettle", own=own, reference=reference, authorised=-value, captured=value)
    write(
        session,
        payment,
        "Settled",
        own=own,
        reference=reference,
        captured=-value,
        payable=value - fee,
        commission=fee,
    )


def give_back(session: Session, payment: Doc, value: int, own: str, reference: str) -> None:
    write(session, payment, "SentForRefund", own=own, reference=reference, captured=-value)
    write(session, payment, "Refunded", own=own, reference=reference, captured=value, payable=-value)


def list_rows(session: Session, account: str, start: int, end: int) -> list[list[str]]:
    """The lines of a span of time, in the order of their booking."""
    entries = session.select("entry", "created >= ? AND created < ?", (start, end))
    payments = {entry["payment"]: session.get(entry["payment"], "payment") for entry in entries}
    return [
        list(show_row(entry, payments[entry["payment"]]).values())
        for entry in entries
        if payments[entry["payment"]]["account"] == account
    ]


def show_row(entry: Doc, payment: Doc) -> Doc:
    currency = payment["currency"]
    money = {bucket: format_major(entry[bucket], currency) if entry[bucket] else "" for bucket in BUCKETS}
    main = max(
        (abs(entry[bucket]) for bucket in ("received", "authorised", "captured", "payable")), default=0
    )
    when = format_booking(entry["created"])
    values = {
        "Company Account": f"{payment['account']}Company",
        "Merchant Account": payment["account"],
        "Psp Reference": payment["id"],
        "Merchant Reference": payment["reference"],
        "Payment Method": payment["_card"]["paymentMethod"],
        "Payment Method Variant": payment["_card"]["paymentMethodVariant"],
        "Booking Date": when,
        "TimeZone": "UTC",
        "Record Type": entry["record"],
        "Modification Psp Reference": entry["own"] or payment["id"],
        "Main Currency": currency,
        "Main Amount": format_major(main, currency),
        "Payment Currency": currency,
        "Received (PC)": money["received"],
        "Exchange Rate": "1",
        "Authorised (PC)": money["authorised"],
        "Captured (PC)": money["captured"],
        "Settlement Currency": currency,
        "Payable (SC)": money["payable"],
        "Commission (SC)": money["commission"],
        "Modification Merchant Reference": entry["reference"],
        "Original Amount": format_major(payment["amount"], currency),
        "Merchant Order Reference": payment["metadata"].get("order_id", ""),
        "Shopper Reference": payment["_shopper"],
    }
    return {column: values.get(column, "") for column in COLUMNS}


def format_booking(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
