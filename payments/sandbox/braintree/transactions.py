"""Sales, settlements, voids, refunds, the vault, and the search for all of them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from payments.sandbox.books import Session
from payments.sandbox.wire import Doc

from .answers import Refusal, Status, amount_of, move, new_id, record, stamp
from .cards import FULL, TEXTS, Card, find_card

HOLD_DAYS = 7
PAGE_SIZE = 50
SETTLED = ("settling", "settled")


# --- sale ---------------------------------------------------------------------------------------------------


def create_sale(session: Session, _: str, params: Doc) -> Doc:
    given = params["transaction"]
    card, saved = find_payment_method(session, given)
    options = given.get("options") or {}
    amount = f"{amount_of(given.get('amount')):f}"
    sale = build_sale(session, given, amount, card)
    if saved:
        link_vault(sale, saved)
    required = (options.get("three_d_secure") or {}).get("required") is True
    if is_duplicate(session, sale):
        return refuse(session, sale, rejection="duplicate")
    if card.rejection or (required and card.three_d_secure != FULL):
        return refuse(session, sale, rejection=card.rejection or "three_d_secure")
    if card.decline or (card.needs_authentication and card.three_d_secure != FULL):
        return refuse(session, sale, decline=card.decline or "2099")
    if options.get("store_in_vault_on_success") and not saved:
        link_vault(sale, store_card(session, card, given))
    expires = datetime.fromtimestamp(session.now, UTC) + timedelta(days=HOLD_DAYS)
    sale["authorization_expires_at"] = expires.strftime("%Y-%m-%dT%H:%M:%SZ")
    move(session, sale, "authorized")
    record(session, "charge", sale, amount)
    return spoil(sale) if card.wrong_amount else sale


def find_payment_method(session: Session, given: Doc) -> tuple[Card, Doc | None]:
    """Raises Refusal for a nonce or a token that is not known."""
    if token := given.get("payment_method_token"):
        saved = session.find(token, "payment_method")
        card = find_card(saved["_nonce"]) if saved else None
        if card is None:
            raise Refusal("91518")
        return card, saved
    card = find_card(given.get("payment_method_nonce") or "")
    if card is None:
        raise Refusal("91565")
    return card, None


def build_sale(session: Session, given: Doc, amount: str, card: Card) -> Doc:
    accounts = session.setting("merchant_accounts", {})
    account = given.get("merchant_account_id") or "default"
    if account not in accounts and account != "default":
        raise Refusal("91513")
    secure = {
        "enrolled": "Y",
        "status": card.three_d_secure,
        "liability_shifted": card.three_d_secure == FULL,
    }
    order_id = given.get("order_id")
    return {
        "id": new_id(),
        "object": "transaction",
        "created": session.now,
        "type": "sale",
        "status": "authorizing",
        "amount": amount,
        "currency_iso_code": accounts.get(account, session.setting("currency", "EUR")),
        "merchant_account_id": account,
        "order_id": order_id,
        "created_at": stamp(session),
        "updated_at": stamp(session),
        "credit_card": card.describe(),
        "customer": {"id": None, "email": (given.get("customer") or {}).get("email")},
        "payment_instrument_type": "credit_card",
        "transaction_source": given.get("transaction_source"),
        "sca_exemption_requested": given.get("sca_exemption"),
        "avs_error_response_code": None,
        "avs_street_address_response_code": card.street,
        "avs_postal_code_response_code": card.postal,
        "cvv_response_code": card.cvv,
        "processor_response_code": "1000",
        "processor_response_text": "Approved",
        "processor_response_type": "approved",
        "gateway_rejection_reason": None,
        "three_d_secure_info": secure if card.three_d_secure else None,
        "risk_data": {"id": new_id(), "decision": "Approve", "transaction_risk_score": "12"},
        "authorized_transaction_id": None,
        "refunded_transaction_id": None,
        "refund_ids": [],
        "partial_settlement_transaction_ids": [],
        "status_history": [],
        "disputes": [],
        "disbursement_details": {"disbursement_date": None, "settlement_amount": None},
        "_operation": order_id or "",
        "_nonce": card.nonce,
    }


def is_duplicate(session: Session, sale: Doc) -> bool:
    """Braintree's own check, where it is on: order id, amount and card alike within some seconds."""
    window = session.setting("duplicate_seconds", 0)
    if not window:
        return False
    same = session.select(
        "transaction",
        "json_extract(doc, '$.order_id') = ? AND json_extract(doc, '$.amount') = ? AND created >= ?",
        (sale["order_id"], sale["amount"], session.now - window),
    )
    return any(one["_nonce"] == sale["_nonce"] and one["status"] == "authorized" for one in same)


def refuse(session: Session, sale: Doc, *, rejection: str = "", decline: str = "") -> Doc:
    """Raises Refusal, with the transaction that was written down all the same."""
    if rejection:
        sale["gateway_rejection_reason"] = rejection
        message = f"Gateway Rejected: {rejection}"
    else:
        message = TEXTS.get(decline, "Declined")
        sale |= {
            "processor_response_code": decline,
            "processor_response_text": message,
            "processor_response_type": "soft_declined",
        }
    move(session, sale, "gateway_rejected" if rejection else "processor_declined")
    raise Refusal(message=message, transaction=sale)


def spoil(transaction: Doc) -> Doc:
    """The same answer with every amount one unit too high."""
    wrong = raise_amount(transaction["amount"])
    history = [event | {"amount": raise_amount(event["amount"])} for event in transaction["status_history"]]
    return transaction | {"amount": wrong, "status_history": history}


def raise_amount(amount: str) -> str:
    digits = len(amount.partition(".")[2])
    return f"{amount_of(amount) + amount_of(f'1e-{digits}'):f}"


# --- vault --------------------------------------------------------------------------------------------------


def store_card(session: Session, card: Card, given: Doc) -> Doc:
    customer = given.get("customer_id")
    if customer and not session.find(customer, "customer"):
        raise Refusal("91510")
    if not customer:
        customer = new_id()
        email = (given.get("customer") or {}).get("email")
        session.put({"id": customer, "object": "customer", "created": session.now, "email": email})
    saved = {"id": new_id(), "object": "payment_method", "created": session.now, "customer_id": customer}
    return session.put(saved | {"_nonce": card.nonce})


def link_vault(sale: Doc, saved: Doc) -> None:
    sale["credit_card"]["token"] = saved["id"]
    sale["customer"]["id"] = saved["customer_id"]


def delete_payment_method(session: Session, token: str, _: Doc) -> None:
    """Raises Status 404 for one that is not there."""
    if not session.find(token, "payment_method"):
        raise Status(404)
    session.db.execute("DELETE FROM objects WHERE id = ?", (token,))


# --- settlement ---------------------------------------------------------------------------------------------


def get_transaction(session: Session, identity: str) -> Doc:
    """Raises Status 404."""
    found = session.find(identity, "transaction")
    if found is None:
        raise Status(404)
    return found


def show_transaction(session: Session, identity: str, _: Doc) -> Doc:
    return get_transaction(session, identity)


def held_amount(transaction: Doc) -> str:
    history = transaction["status_history"]
    return next(
        (str(event["amount"]) for event in history if event["status"] == "authorized"), transaction["amount"]
    )


def submit(session: Session, identity: str, params: Doc) -> Doc:
    """The whole, or once a part of it: the rest is released, and the amount becomes what was taken."""
    transaction = get_transaction(session, identity)
    given = params.get("transaction") or {}
    if transaction["status"] != "authorized":
        raise Refusal("91507")
    amount = f"{amount_of(given.get('amount') or transaction['amount']):f}"
    if amount_of(amount) > amount_of(transaction["amount"]):
        raise Refusal("91522")
    transaction |= {"amount": amount, "order_id": given.get("order_id") or transaction["order_id"]}
    return send_to_settlement(session, transaction)


def submit_part(session: Session, identity: str, params: Doc) -> Doc:
    """A child of the authorization, which waits for more of them."""
    parent = get_transaction(session, identity)
    given = params.get("transaction") or {}
    if parent["status"] not in ("authorized", "settlement_pending"):
        raise Refusal("915103")
    children = [get_transaction(session, one) for one in parent["partial_settlement_transaction_ids"]]
    amount = amount_of(given.get("amount"))
    left = amount_of(held_amount(parent)) - sum(amount_of(one["amount"]) for one in children)
    if amount > left:
        raise Refusal("91522")
    child = parent | {
        "id": new_id(),
        "created": session.now,
        "created_at": stamp(session),
        "amount": f"{amount:f}",
        "order_id": given.get("order_id") or parent["order_id"],
        "authorized_transaction_id": parent["id"],
        "authorization_expires_at": None,
        "partial_settlement_transaction_ids": [],
        "status_history": [],
    }
    parent["partial_settlement_transaction_ids"] = [
        *parent["partial_settlement_transaction_ids"],
        child["id"],
    ]
    is_last = amount == left or given.get("final_capture") is True
    move(session, parent, "settlement_confirmed" if is_last else "settlement_pending")
    return send_to_settlement(session, child)


def send_to_settlement(session: Session, transaction: Doc) -> Doc:
    card = find_card(transaction["_nonce"])
    if card and card.capture:
        declined = move(session, decline_settlement(transaction), card.capture)
        raise Refusal(message="Settlement Declined", transaction=declined)
    answer = dict(move(session, transaction, "submitted_for_settlement"))
    record(session, "capture", transaction, transaction["amount"])
    if session.setting("settles_at_once", False):
        settle(session, transaction)
    return answer


def settle(session: Session, transaction: Doc) -> Doc:
    """What the batch at night does with one transaction."""
    card = find_card(transaction["_nonce"])
    if transaction["type"] == "sale" and card and card.settlement != "settled":
        return move(session, decline_settlement(transaction), card.settlement)
    if transaction["type"] == "credit" and card and card.refund:
        record(session, "refund_failure", transaction, transaction["amount"])
        return move(session, decline_settlement(transaction), "settlement_declined")
    transaction["settlement_batch_id"] = f"{stamp(session)[:10]}_sandbox"
    tomorrow = datetime.fromtimestamp(session.now, UTC) + timedelta(days=1)
    transaction["disbursement_details"] = {
        "disbursement_date": tomorrow.date().isoformat(),
        "settlement_amount": transaction["amount"],
        "settlement_currency_iso_code": transaction["currency_iso_code"],
        "settlement_currency_exchange_rate": "1",
        "funds_held": False,
        "success": True,
    }
    return move(session, transaction, "settled")


def decline_settlement(transaction: Doc) -> Doc:
    return transaction | {
        "processor_settlement_response_code": "4001",
        "processor_settlement_response_text": "Settlement Declined",
    }


def void(session: Session, identity: str, params: Doc) -> Doc:
    """What is held, what waits for the batch, or the rest of what was captured in parts."""
    transaction = get_transaction(session, identity)
    if transaction["status"] not in ("authorized", "submitted_for_settlement", "settlement_pending"):
        raise Refusal("91504")
    parts = [get_transaction(session, one) for one in transaction["partial_settlement_transaction_ids"]]
    rest = amount_of(transaction["amount"]) - sum(amount_of(part["amount"]) for part in parts)
    move(session, transaction, "settlement_confirmed" if parts else "voided")
    record(session, "cancel", transaction, f"{rest:f}")
    return transaction


def refund(session: Session, identity: str, params: Doc) -> Doc:
    capture = get_transaction(session, identity)
    given = params.get("transaction") or {}
    if capture["status"] == "settling":
        raise Refusal("91574")
    if capture["status"] != "settled":
        raise Refusal("91506")
    before = [get_transaction(session, one) for one in capture["refund_ids"]]
    done = [one for one in before if one["status"] not in ("processor_declined", "voided", "failed")]
    left = amount_of(capture["amount"]) - sum(amount_of(one["amount"]) for one in done)
    amount = amount_of(given.get("amount") or capture["amount"])
    if not left:
        raise Refusal("91512")
    if amount > left:
        raise Refusal("91521")
    credit = build_credit(session, capture, f"{amount:f}", given.get("order_id"))
    capture["refund_ids"] = [*capture["refund_ids"], credit["id"]]
    session.put(capture)
    return send_credit(session, credit)


def build_credit(session: Session, capture: Doc, amount: str, order_id: Any) -> Doc:
    return capture | {
        "id": new_id(),
        "created": session.now,
        "created_at": stamp(session),
        "type": "credit",
        "amount": amount,
        "order_id": order_id,
        "refunded_transaction_id": capture["id"],
        "authorized_transaction_id": None,
        "refund_ids": [],
        "status_history": [],
        "disbursement_details": {"disbursement_date": None, "settlement_amount": None},
    }


def send_credit(session: Session, credit: Doc) -> Doc:
    card = find_card(credit["_nonce"])
    status = card.refund if card and card.refund else "submitted_for_settlement"
    if status == "processor_declined":
        credit |= {"processor_response_code": "2000", "processor_response_text": "Do Not Honor"}
        move(session, credit, status)
        raise Refusal(message="Do Not Honor", transaction=credit)
    answer = dict(move(session, credit, status))
    record(session, "refund", credit, credit["amount"])
    if status == "submitted_for_settlement" and session.setting("settles_at_once", False):
        settle(session, credit)
    return answer


# --- search -------------------------------------------------------------------------------------------------
TIMES = {
    "created_at": (),
    "settled_at": ("settled",),
    "voided_at": ("voided",),
    "submitted_for_settlement_at": ("submitted_for_settlement",),
    "authorized_at": ("authorized",),
}


def search(session: Session, _: str, params: Doc) -> list[Doc]:
    return find_matching(session, params.get("search") or {})


def search_ids(session: Session, _: str, params: Doc) -> Doc:
    ids = [one["id"] for one in find_matching(session, params.get("search") or {})]
    return {"page_size": PAGE_SIZE, "ids": ids}


def find_matching(session: Session, criteria: Doc) -> list[Doc]:
    """Newest first, as Braintree lists them."""
    found = session.select("transaction", order="seq DESC")
    return [one for one in found if all(matches(one, name, wanted) for name, wanted in criteria.items())]


def matches(transaction: Doc, name: str, wanted: Any) -> bool:
    if name == "ids":
        return transaction["id"] in wanted
    if isinstance(wanted, list):
        return transaction.get(name) in wanted
    if name in TIMES:
        times = [
            event["timestamp"] for event in transaction["status_history"] if event["status"] in TIMES[name]
        ]
        if name == "created_at":
            times = [transaction["created_at"]]
        low, high = wanted.get("min") or "", wanted.get("max") or "9"
        return any(low <= time <= high for time in times)
    stated = str(transaction.get(name) or "")
    if "contains" in wanted:
        return wanted["contains"] in stated
    return bool(stated == wanted.get("is"))
