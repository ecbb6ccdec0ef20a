"""Read Stripe's form encoding, check parameters as strictly as Stripe does, shape errors and lists."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

Doc = dict[str, Any]
Check = Callable[[str, Any], Any]
Spec = Mapping[str, Check]

MAX_AMOUNT = 99_999_999_999
CODES = """
aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd btn bwp byn bzd
cad cdf chf clf clp cny cop crc cup cve czk djf dkk dop dzd egp ern etb eur fjd fkp gbp gel ghs gip
gmd gnf gtq gyd hkd hnl htg huf idr ils inr iqd irr isk jmd jod jpy kes kgs khr kmf kpw krw kwd kyd
kzt lak lbp lkr lrd lsl lyd mad mdl mga mkd mmk mnt mop mru mur mvr mwk mxn myr mzn nad ngn nio nok
npr nzd omr pab pen pgk php pkr pln pyg qar ron rsd rub rwf sar sbd scr sdg sek sgd shp sle sos srd
ssp stn svc syp szl thb tjs tmt tnd top try ttd twd tzs uah ugx usd uyu uzs ves vnd vuv wst xaf xcd
xof xpf yer zar zmw zwl
"""
# Without UGX: it kept two digits on the wire, the last two always being zero (docs.stripe.com/currencies).
ZERO_DECIMAL_CODES = "bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf"
THREE_DECIMAL_CODES = "bhd iqd jod kwd lyd omr tnd"
CURRENCIES = frozenset(CODES.split())
ZERO_DECIMAL = frozenset(ZERO_DECIMAL_CODES.split())
THREE_DECIMAL = frozenset(THREE_DECIMAL_CODES.split())


class ApiError(Exception):
    """An error answer. `executed`: the endpoint had begun, so the answer belongs to the idempotency key."""

    executed = False

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(message)
        self.status = status
        known = {"type": kind, "message": message, "code": code, "param": param, **extra}
        if code:
            known["doc_url"] = "https://docs.stripe.com/error-codes/" + code.replace("_", "-")
        self.body: Doc = {"error": {name: value for name, value in known.items() if value is not None}}


class StateError(ApiError):
    """The object is in a state, or has an amount, that forbids the request."""

    executed = True

    def __init__(self, message: str, **extra: Any) -> None:
        super().__init__(400, "invalid_request_error", message, **extra)


class CardError(ApiError):
    """The issuer said no. What was written about it stays written."""

    executed = True

    def __init__(self, message: str, **extra: Any) -> None:
        super().__init__(402, "card_error", message, **extra)


def invalid(
    message: str, param: str | None = None, code: str | None = None, *, status: int = 400
) -> ApiError:
    return ApiError(status, "invalid_request_error", message, code=code, param=param)


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, parsed: what every endpoint of the gateway gets to see."""

    method: str
    path: str
    params: Doc = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    base_url: str = ""
    id: str = ""
    idempotency_key: str | None = None
    fingerprint: str = ""
    now: int | None = None


def parse_form(text: str) -> Doc:
    """Turn `a[b]=1&c[]=2` into nested dicts; lists stay dicts by index until a check asks for a list."""
    root: Doc = {}
    for name, value in parse_qsl(text, keep_blank_values=True, max_num_fields=1000):
        head, _, rest = name.partition("[")
        keys = [head, *re.findall(r"([^\[\]]*)\]", rest)]
        target = root
        for key in keys[:-1]:
            child = target.setdefault(key or str(len(target)), {})
            if not isinstance(child, dict):
                raise invalid(f"Invalid object: {name}", name)
            target = child
        target[keys[-1] or str(len(target))] = value
    return root


def parse_multipart(body: bytes, boundary: str) -> Doc:
    """The fields of a multipart/form-data body: text, and files as `Upload`. Raises ValueError."""
    params: Doc = {}
    for part in body.split(f"--{boundary}".encode())[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        found = re.search(r'name="([^"]*)"(?:; filename="([^"]*)")?', head.decode())
        if found is None:
            raise ValueError("a part has no name")
        content = content.removesuffix(b"\r\n")
        params[found[1]] = content.decode() if found[2] is None else Upload(found[2], content)
    return params


def string(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise invalid(f"Invalid string: {value!r}", name)
    if len(value) > 5000:
        raise invalid(f"Invalid string: {name} must be at most 5000 characters", name)
    return value


def integer(name: str, value: Any) -> int:
    if not isinstance(value, str | int) or not re.fullmatch(r"-?\d{1,18}", str(value), re.ASCII):
        raise invalid(f"Invalid integer: {value}", name, "parameter_invalid_integer")
    return int(value)


def amount(name: str, value: Any) -> int:
    """Minor units, 1 to 99,999,999,999."""
    number = integer(name, value)
    if number < 1:
        raise invalid("This value must be greater than or equal to 1.", name, "parameter_invalid_integer")
    if number > MAX_AMOUNT:
        raise invalid(f"Amount must be no more than {MAX_AMOUNT}.", name, "amount_too_large")
    return number


def amount_or_nothing(name: str, value: Any) -> int:
    """As `amount`, or 0."""
    return 0 if integer(name, value) == 0 else amount(name, value)


def boolean(name: str, value: Any) -> bool:
    if value in ("true", True):
        return True
    if value in ("false", False):
        return False
    raise invalid(f"Invalid boolean: {value}", name)


def currency(name: str, value: Any) -> str:
    if value not in CURRENCIES:
        raise invalid(f"Invalid currency: {value}. Use a lower-case ISO 4217 code.", name)
    return str(value)


def choice(*allowed: str) -> Check:
    def check_choice(name: str, value: Any) -> str:
        if value not in allowed:
            raise invalid(f"Invalid {name}: must be one of {', '.join(allowed)}", name)
        return str(value)

    return check_choice


def strings(name: str, value: Any) -> list[str]:
    if not isinstance(value, dict):
        raise invalid(f"Invalid array: {name}", name)
    return [string(name, item) for item in value.values()]


def metadata(name: str, value: Any) -> dict[str, str]:
    """At most 50 keys of 40 characters with values of 500; an empty value removes its key (Stripe's rule)."""
    if value == "":
        return {}
    if not isinstance(value, dict) or len(value) > 50:
        raise invalid("Metadata must be a map of at most 50 keys", name)
    for key, text in value.items():
        if len(key) > 40 or not isinstance(text, str) or len(text) > 500:
            raise invalid(f"Metadata keys have at most 40 characters, values 500: {key}", f"{name}[{key}]")
    return dict(value)


@dataclass(frozen=True, slots=True)
class Upload:
    """One file of a multipart body."""

    name: str
    content: bytes


def upload(name: str, value: Any) -> Upload:
    if not isinstance(value, Upload):
        raise invalid("Invalid file: it must be sent as multipart/form-data", name)
    return value


def nested(spec: Spec) -> Check:
    def check_nested(name: str, value: Any) -> Doc:
        if not isinstance(value, dict):
            raise invalid(f"Invalid object: {name}", name)
        return check_params(value, spec, prefix=name)

    return check_nested


def span(name: str, value: Any) -> Doc:
    """A time filter: one instant, or any of gt, gte, lt, lte; Unix seconds."""
    if isinstance(value, dict):
        return check_params(
            value, {"gt": integer, "gte": integer, "lt": integer, "lte": integer}, prefix=name
        )
    return {"gte": integer(name, value), "lte": integer(name, value)}


def check_params(params: Doc, spec: Spec, *, required: Iterable[str] = (), prefix: str = "") -> Doc:
    """The checked parameters; unknown, missing and malformed ones are 400 with `param`, as with Stripe."""
    named = {key: f"{prefix}[{key}]" if prefix else key for key in params}
    for key, name in named.items():
        if key not in spec:
            raise invalid(f"Received unknown parameter: {name}", name, "parameter_unknown")
    for key in required:
        if params.get(key) in (None, ""):
            raise invalid(f"Missing required param: {key}.", key, "parameter_missing")
    return {key: spec[key](named[key], value) for key, value in params.items()}


def public(doc: Doc) -> Doc:
    """The object as a client may see it: private fields begin with an underscore."""
    return {name: value for name, value in doc.items() if not name.startswith("_")}


def list_of(url: str, docs: Iterable[Doc], *, has_more: bool) -> Doc:
    return {"object": "list", "url": url, "has_more": has_more, "data": [public(doc) for doc in docs]}


def decimals(code: str) -> int:
    """How many digits of a currency's minor unit Stripe counts."""
    return 0 if code in ZERO_DECIMAL else 3 if code in THREE_DECIMAL else 2
