"""Faults on demand: by the fault API for any call, or by a token for the call that it pays."""

import threading
from dataclasses import asdict, dataclass, field

from .books import Session
from .cards import find_card
from .wire import ApiError, Doc, Request, invalid

OPERATIONS = (
    "authorize",
    "capture",
    "cancel",
    "refund",
    "dispute",
    "customer",
    "file",
    "retrieve",
    "report",
    "any",
)
FAULTS = (
    "timeout_after",
    "timeout_before",
    "reset_after",
    "reset_before",
    "500",
    "500_after",
    "slow",
    "wrong_amount",
    "429",
)
SLOW_SECONDS = 2.0


@dataclass(slots=True)
class Fault:
    """What goes wrong, with which operation, how many more times, and for which metadata."""

    fault: str
    operation: str = "any"
    times: int = 1
    match: dict[str, str] = field(default_factory=dict)
    seconds: float = SLOW_SECONDS

    def hits(self, operation: str, metadata: Doc) -> bool:
        if self.times < 1 or self.operation not in ("any", operation):
            return False
        return all(metadata.get(key) == value for key, value in self.match.items())


def parse_fault(body: Doc) -> Fault:
    """Raises ApiError 400 for a word that is not known."""
    unknown = set(body) - {"fault", "operation", "times", "match", "seconds"}
    if unknown:
        raise invalid(f"Received unknown parameter: {min(unknown)}", min(unknown), "parameter_unknown")
    fault = Fault(**body) if "fault" in body else Fault("")
    for name, value, allowed in (("fault", fault.fault, FAULTS), ("operation", fault.operation, OPERATIONS)):
        if value not in allowed:
            raise invalid(f"Invalid {name}: must be one of {', '.join(allowed)}", name)
    if not isinstance(fault.times, int) or not isinstance(fault.match, dict):
        raise invalid("times is an integer, match an object of metadata", "times")
    return fault


class FaultPlan:
    """The faults asked for through the API; they outlive a restart."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def load(self, session: Session) -> None:
        self._faults = [Fault(**saved) for saved in session.setting("faults", [])]

    def show(self) -> list[Doc]:
        with self._lock:
            return [asdict(fault) for fault in self._faults]

    def add(self, session: Session, fault: Fault) -> None:
        with self._lock:
            self._faults.append(fault)
            session.save_setting("faults", [asdict(item) for item in self._faults])

    def clear(self, session: Session) -> None:
        with self._lock:
            self._faults.clear()
            session.save_setting("faults", [])

    def pick(self, session: Session, operation: str, target: Doc, request: Request) -> Fault | None:
        """The fault that this attempt meets, used up by one; the API's go before the token's."""
        with self._lock:
            for fault in self._faults:
                if any(fault.hits(operation, metadata) for metadata in target["metadata"]):
                    fault.times -= 1
                    self._faults = [item for item in self._faults if item.times > 0]
                    session.save_setting("faults", [asdict(item) for item in self._faults])
                    return fault
        return pick_by_token(session, target["token"], request) if operation == "authorize" else None


def pick_by_token(session: Session, token: str, request: Request) -> Fault | None:
    if not token.startswith("tok_"):
        return None
    card = find_card(token)
    if not card.fault:
        return None
    key = request.idempotency_key or request.fingerprint
    session.db.execute(
        "INSERT INTO attempts VALUES (?, 1) ON CONFLICT (key) DO UPDATE SET count = count + 1",
        (key,),
    )
    count = session.db.execute("SELECT count FROM attempts WHERE key = ?", (key,)).fetchone()[0]
    return Fault(card.fault) if count <= card.fault_attempts else None


def describe_target(session: Session, request: Request, identity: str | None) -> Doc:
    """What a request is about, read before anything is done: the metadata that it gives, over the payment's;
    the payment's alone; and the token.
    """
    params = request.params
    intent: Doc = {}
    found = identity or params.get("payment_intent")
    if isinstance(found, str):
        intent = session.find(found, "payment_intent") or {}
        source = session.find(found, "refund") or session.find(found, "dispute") or {}
        intent = intent or session.find(source.get("payment_intent", ""), "payment_intent") or {}
    if (
        not intent
        and isinstance(charge_id := params.get("charge"), str)
        and (charge := session.find(charge_id, "charge"))
    ):
        intent = session.find(charge["payment_intent"], "payment_intent") or {}
    given = params.get("metadata")
    of_payment = intent.get("metadata", {})
    metadata = {**of_payment, **(given if isinstance(given, dict) else {})}
    token = params.get("payment_method") or intent.get("_token") or ""
    return {"metadata": [metadata, of_payment], "token": known_token(session, token)}


def known_token(session: Session, token: object) -> str:
    if not isinstance(token, str):
        return ""
    saved = session.find(token, "payment_method")
    try:
        return find_card(saved["_token"] if saved else token).token
    except ApiError:
        return ""


def spoil_amounts(body: Doc) -> Doc:
    """The same answer with every amount one unit too high."""
    wrong = dict(body)
    for name in ("amount", "amount_received", "amount_capturable"):
        if wrong.get(name):
            wrong[name] += 1
    return wrong
