"""Redaction: masks card numbers, security codes and secrets in texts, in data and in log records."""

from __future__ import annotations

import logging
import re
import traceback
from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from threading import Lock
from typing import Any

from payments.card_numbers import SHORTEST, WEAK, find_cards, issued_lengths, make_shadow

REDACTED = "[redacted]"
_MAX_DEPTH = 48  # the API accepts 32; deeper data is cut off rather than passed through unread

# --- counting -----------------------------------------------------------------------------------------------
_counts: Counter[str] = Counter()
_counts_lock = Lock()


def redaction_counts() -> dict[str, int]:
    """How often this process has masked something, by kind: `pan`, `track`, `sad`, `secret`."""
    with _counts_lock:
        return dict(_counts)


def _count(kind: str) -> None:
    with _counts_lock:
        _counts[kind] += 1


# --- card numbers in a text ---------------------------------------------------------------------------------
_TAIL = re.compile(
    r"(?P<track>(?:\^|%5[eE])[^\^\r\n]{2,40}?(?:\^|%5[eE])[0-9 ]{4}[^\s?\"']{0,80}\??"  # track 1
    r"|(?:=|%3[dD]|D)[0-9]{4}[0-9]{0,40}\??)"  # track 2
    r"|(?P<expiry>[\s|:;,/\0]{1,3}(?:(?i:exp)[a-z]*[\s:.=]{0,3})?(?:0?[1-9]|1[0-2])[/|\s-]{1,3}(?:20)?[0-9]{2})?"
    r"[\s|:;,/\0]{1,3}(?P<code>[0-9]{3,4})(?![0-9])"
)
_AFTER_JSON_KEY = re.compile(r'"\s{0,2}:\s{0,2}\Z')


def _mask_cards(text: str) -> str:
    shadow = make_shadow(text)
    found = find_cards(shadow) if shadow else []
    if not shadow or not found:
        return text
    parts: list[str] = []
    done = 0
    limits = [start for start, _, _ in found[1:]] + [len(text)]
    for (start, end, mask), limit in zip(found, limits, strict=True):
        parts += [text[done:start], f'"{mask}"' if _is_json_number(text, start, end) else mask]
        _count("pan")
        tail, done = _mask_tail(text, shadow, end, limit)
        parts.append(tail)
    return "".join([*parts, text[done:]])


def _is_json_number(text: str, start: int, end: int) -> bool:
    """A bare number behind a JSON key, whose mask needs quotes for the text to stay JSON."""
    return bool(_AFTER_JSON_KEY.search(text, max(0, start - 8), start)) and text[end : end + 1] in ",}] \n\r"


def _mask_tail(text: str, shadow: str, end: int, limit: int) -> tuple[str, int]:
    """What follows a card number and may never be kept: the rest of the track, or the security code."""
    match = _TAIL.match(shadow, end, limit)
    if not match:
        return "", end
    if match["track"]:
        _count("track")
        return REDACTED, match.end()
    _count("sad")
    return text[end : match.start("code")] + REDACTED, match.end()


# --- named values in a text ---------------------------------------------------------------------------------
_WORD = r"(?:(?<![A-Za-z0-9])|(?<=[a-z])(?=[A-Z])|(?<=%[0-9A-F]{2}))"
# Each pattern begins with the letters that its keys may begin with: most characters need no closer look.
_QUOTE = r"(?:\\*[\"'\]]|&quot;|%22|%5[dD])"
_EQUALS = rf"(?:{_QUOTE}?\s{{0,3}}(?:=>|[:=]|%3[aAdD])\s{{0,3}}{_QUOTE}?)"
_LOOSE = rf"(?:{_QUOTE}|[\s:=>()\[\]#-]|%3[aAdD]|%20|(?i:is|was|code|value|number)(?![a-z])){{1,10}}"
_CODE_IN_TEXT = re.compile(
    rf"(?=[cCsS]){_WORD}"
    rf"(?i:c(?:vv|vc|vn|av)2?|card[ _-]?(?:security|verification)(?=[ _-]?(?:code|value|number))"
    rf"|security[ _-]?code)_?(?P<gap>{_LOOSE})(?P<value>\d{{3,4}})(?!\w)"
)
_SAD_IN_TEXT = re.compile(
    rf"(?=[cCpPtTmM]){_WORD}(?:(?i:csc|cid)(?={_EQUALS}\d{{3,4}}(?!\w))"
    rf"|(?i:(?:card[ _-]?)?pin(?:[ _-]?number)?)(?={_EQUALS}\d{{4,12}}(?!\w))"
    rf"|(?i:pin[ _-]?block|track[ _-]?(?:[12](?:[ _-]?data)?|data)|mag(?:netic)?[ _-]?stripe)(?={_EQUALS}))"
    rf"(?P<gap>{_EQUALS})(?P<value>[^\s\"'\\&,}}]+)"
)
_SAD_WORDS = ("cvv", "cvc", "cvn", "cav", "cid", "csc", "pin", "track", "security", "verification", "stripe")
_SECRET_IN_TEXT = re.compile(
    rf"(?=[aAbBcCiIpPrRsStT]){_WORD}"
    rf"(?P<key>(?i:api[ _-]?key|secret(?:[ _-](?:access[ _-])?key)?|private[ _-]?key|password|passwd"
    r"|passphrase|(?:access|refresh|id|auth|api|session|csrf|csrfmiddleware|bearer)[ _-]?token|token"
    rf"|sessionid|(?:set-)?cookie|(?:proxy-)?authorization))(?P<gap>{_QUOTE}?\s{{0,3}}(?:=>|[:=])\s{{0,3}})"
    r"(?P<value>\\+\"[^\"\\]*+\\+\"|\"(?:[^\"\\]|\\.)*+\"|'(?:[^'\\]|\\.)*+'"
    r"|(?i:(?:bearer|basic|token|digest|api-key)\s{1,3})?[^\s\"'\\,;&<>(){}\[\]]+)"
)
_SECRET_WORDS = frozenset(
    ("api_key", "api-key", "apikey", "api key", "private", "secret", "pass", "token", "session", "cookie")
) | {"authorization"}
_KNOWN_SECRET = re.compile(
    r"\b(?P<kind>(?:sk|rk)_(?:live|test)_|whsec_|(?i:bearer)\s{1,3}(?=[\w.~+/-]{0,256}[0-9]))[\w.~+/=-]{8,}"
    r"|(?<=://)(?P<user>[^\s:/@]{1,64}:)[^\s/@]{1,256}(?=@)"
)
_KNOWN_SECRET_WORDS = ("sk_", "rk_", "whsec_", "bearer", "://")
_NO_SECRET = re.compile(r"|None|null|true|false|" + re.escape(REDACTED))
# Names of things at a gateway or here, which open nothing without an API key; ordinary words and amounts.
_PUBLIC = re.compile(r"(?!(?:sk|rk|whsec)_)[a-z]{2,5}_[A-Za-z0-9_]+|[a-z ]{1,24}|[0-9.]{1,20}")


def redact(text: str) -> str:
    """The text with card numbers, security codes, track data and secrets masked; linear in its length."""
    text = _mask_cards(text)
    lowered = text.lower()
    if any(word in lowered for word in _SAD_WORDS):
        text = _SAD_IN_TEXT.sub(_mask_sad, _CODE_IN_TEXT.sub(_mask_sad, text))
    if any(word in lowered for word in _SECRET_WORDS):
        text = _SECRET_IN_TEXT.sub(_mask_secret, text)
    if any(word in lowered for word in _KNOWN_SECRET_WORDS):
        text = _KNOWN_SECRET.sub(_mask_known_secret, text)
    return text


def _mask_sad(match: re.Match[str]) -> str:
    _count("sad")
    start = match.start("value") - match.start()
    return match[0][:start] + _quote_like_key(match["gap"], REDACTED)


def _quote_like_key(gap: str, value: str) -> str:
    """Keeps JSON valid: a number that stood bare behind a quoted key becomes a string."""
    quote = gap[: len(gap) - len(gap.lstrip("\\\"'"))]
    bare = gap.rstrip()[-1:] == ":"
    return f"{quote}{value}{quote}" if quote and bare else value


def _mask_known_secret(match: re.Match[str]) -> str:
    _count("secret")
    return (match["kind"] or match["user"]) + REDACTED


def _mask_secret(match: re.Match[str]) -> str:
    value = match["value"]
    bare = value.strip("\\\"'")
    if REDACTED in bare or not _is_secret(bare, ambiguous=match["key"].lower() in {"token", "authorization"}):
        return match[0]
    _count("secret")
    quote = value[: len(value) - len(value.lstrip("\\\"'"))]
    masked = f"{quote}{REDACTED}{quote}" if quote else _quote_like_key(match["gap"], REDACTED)
    return match[0][: match.start("value") - match.start()] + masked


def _is_secret(value: str, *, ambiguous: bool) -> bool:
    """`token` and `authorization` are ambiguous here: a payment has both, and neither is a secret."""
    return not _NO_SECRET.fullmatch(value) and not (ambiguous and _PUBLIC.fullmatch(value))


# --- data ---------------------------------------------------------------------------------------------------
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NOT_WORD = re.compile(r"[^a-z0-9]+")
# By the last words of a key in snake case, so that `shipping`, `author`, `postal` and `cvc_check` stay.
_KEY_KINDS = {
    "sad": r"c(?:vv|vc|vn|av)2?|card_(?:security|verification)|security_code|(?:card_)?verification_value"
    r"|pin_?block|track_?(?:[12](?:_?data)?|data)?|mag(?:netic)?_?stripe(?:_data)?",
    "code": r"cid|csc|pin",
    "pan": r"card_?(?:number|no|num)|pan|primary_account_number|cc_?num(?:ber)?|credit_?card",
    "number": r"(?<!_)number",  # not tracking_number
    "secret": r"api_?key|secret(?:_access)?(?:_key)?|private_key|password|passwd|passphrase|cookie"
    r"|session_?id|csrfmiddlewaretoken|(?:access|refresh|id|auth|api|session|csrf|bearer)_?token",
    "token": r"token|authorization",
}
_KIND_OF_KEY = re.compile(
    "(?:^|_)(?:"
    + "|".join(f"(?P<{kind}>{names})" for kind, names in _KEY_KINDS.items())
    + ")(?:_?(?:code|value))?$"
)
_HAS_DIGIT = re.compile(r"\d")  # of any script
_CARD_KINDS = {"sad", "code", "pan", "number"}
_INHERITED = {"sad", "pan", "secret"}


@lru_cache(maxsize=4096)
def _kind_of_key(key: str) -> str:
    match = _KIND_OF_KEY.search(_NOT_WORD.sub("_", _CAMEL.sub("_", key).lower()).strip("_"))
    return str(match.lastgroup) if match else ""


def _is_forbidden(value: Any, kind: str) -> bool:
    """Whether a value may not be kept under a key of this kind, whatever it looks like by itself."""
    if value is None or isinstance(value, bool):
        return False
    text = _as_text(value)
    digits = sum(map(str.isdecimal, text))
    match kind:
        case "sad":
            return digits > 0 and REDACTED not in text
        case "code":
            return 3 <= digits == len(text.strip()) <= 12
        case "pan":
            return digits >= SHORTEST
        case "number":
            compact = re.sub(r"[\s.-]", "", text)
            return digits == len(compact) > WEAK and digits in issued_lengths(compact[:6])
        case "secret" | "token":
            return _is_secret(text, ambiguous=kind == "token")
    return False


def _as_text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes | bytearray) else str(value)


def redact_data(value: Any) -> Any:
    """A copy of JSON-like data with card data and secrets masked, by the names of keys and by content.

    Mappings become dicts, tuples and sets keep their items, a number that is a card number becomes a string;
    objects of other types are returned as they are.
    """
    return _redact_value(value, "", 0)


def _redact_value(value: Any, kind: str, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        return REDACTED
    match value:
        case Mapping():
            return {
                _redact_scalar(key, ""): _redact_value(member, _inherit(kind, key), depth + 1)
                for key, member in value.items()
            }
        case list():
            return [_redact_value(member, kind, depth + 1) for member in value]
        case tuple() | set() | frozenset():
            return tuple(_redact_value(member, kind, depth + 1) for member in value)
    return _redact_scalar(value, kind)


def _inherit(kind: str, key: Any) -> str:
    own = _kind_of_key(key) if isinstance(key, str) else ""
    return own or (kind if kind in _INHERITED else "")


def _redact_scalar(value: Any, kind: str) -> Any:
    if (
        value is None
        or isinstance(value, bool)
        or not isinstance(value, str | bytes | bytearray | int | float | Decimal)
    ):
        return value
    if _is_forbidden(value, kind):
        return _replace_forbidden(value, kind)
    text = _as_text(value)
    if text.isalpha() or len(text) < 5:  # most keys and words; nothing that short is masked without a name
        return value
    masked = redact(text)
    if masked == text:
        return value
    return masked.encode() if isinstance(value, bytes | bytearray) else masked


def _replace_forbidden(value: Any, kind: str) -> str | bytes:
    masked = redact(_as_text(value)) if kind in {"pan", "number"} else REDACTED
    if kind in {"pan", "number"} and masked == _as_text(value):
        masked = REDACTED  # no valid card number, but nothing else was meant
        _count("pan")
    elif masked == REDACTED:
        _count("sad" if kind in _CARD_KINDS else "secret")
    return masked.encode() if isinstance(value, bytes | bytearray) else masked


def contains_card_data(value: Any) -> str | None:
    """The JSON pointer (RFC 6901) of the first member with a card number or security code, or None.

    The pointer shows no digit of a card number that is itself used as a key.
    """
    return _find_card_data(value, "", 0)


def _find_card_data(value: Any, kind: str, depth: int) -> str | None:
    """What the pointer has below this value. Most values hold nothing, so names are only made on the way back."""
    if depth > _MAX_DEPTH:
        return ""
    if isinstance(value, Mapping):
        for key, member in value.items():
            if _is_card_data(key, ""):
                return f"/{_name_member(key)}"
            found = _find_card_data(member, _inherit(kind, key), depth + 1)
            if found is not None:
                return f"/{_name_member(key)}{found}"
        return None
    if isinstance(value, list | tuple):
        for index, member in enumerate(value):
            found = _find_card_data(member, kind, depth + 1)
            if found is not None:
                return f"/{index}{found}"
        return None
    return "" if _is_card_data(value, kind) else None


def _name_member(key: Any) -> str:
    """A key without card data, as RFC 6901 writes it."""
    name = redact(str(key)) if _HAS_DIGIT.search(str(key)) else str(key)
    return name.replace("~", "~0").replace("/", "~1")


def _is_card_data(value: Any, kind: str) -> bool:
    if value is None or isinstance(value, bool):
        return False
    if isinstance(value, str) and not _HAS_DIGIT.search(value):
        return False  # every kind of card data has one, and most values of a webhook have none
    if kind in _CARD_KINDS and _is_forbidden(value, kind):
        return True
    text = _as_text(value)
    if len(text) >= SHORTEST:
        shadow = make_shadow(text)
        if shadow and find_cards(shadow):
            return True
    return bool(_CODE_IN_TEXT.search(text))


# --- logging ------------------------------------------------------------------------------------------------
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class PCIRedactionFilter(logging.Filter):
    """Masks a whole record: message with its arguments, traceback, stack and extra fields.

    For handlers; a filter on a logger does not see the records of its children. The exception itself is
    replaced by its masked text, since no formatter after this one may format it anew.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = (
            redact_data(record.msg) if isinstance(record.msg, dict) else redact(_format_message(record))
        )
        record.args = ()
        if record.exc_info and record.exc_info[0] and not record.exc_text:
            record.exc_text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
        record.exc_info = None
        record.exc_text = redact(record.exc_text) if record.exc_text else None
        record.stack_info = redact(record.stack_info) if record.stack_info else None
        for name in vars(record).keys() - _STANDARD_FIELDS:
            setattr(record, name, _redact_value(getattr(record, name), _kind_of_key(name), 0))
        return True


def _format_message(record: logging.LogRecord) -> str:
    """Logging prints a record with wrong arguments raw to stderr, so that must not be left to it."""
    try:
        return record.getMessage()
    except Exception:  # whatever the arguments' own __str__ may raise
        return f"{record.msg!s} (the arguments could not be formatted)"


class RedactingFormatter(logging.Formatter):
    """Masks what any other formatter made: nothing comes between it and the stream."""

    def __init__(self, inner: logging.Formatter | None = None) -> None:
        super().__init__()
        self.inner = inner or logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        try:
            text = self.inner.format(record)
        except Exception as error:  # logging would print the raw record to stderr
            text = f"a record of {record.name} could not be formatted: {type(error).__name__}"
        return redact(text)
