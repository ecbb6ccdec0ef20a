"""How a value is spelt, hashed and masked before it is put on a list or looked up."""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

import idna

from fraud.models import ListEntry
from payments.card_numbers import SHORTEST
from payments.encryption import keyed_hash
from payments.errors import InvalidRequestError
from payments.redaction import contains_card_data

Kind = ListEntry.Kind
MAX_VALUE_LENGTH = 500


# --- e-mail -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MailRule:
    """What a provider overlooks in the part before the @."""

    drops_tag: bool = True  # name+tag is name
    drops_dots: bool = False  # n.a.m.e is name
    domain: str = ""  # the one spelling of its domains, where all of them lead to the same mailbox


_TAGS = MailRule()
_GMAIL = MailRule(drops_dots=True, domain="gmail.com")
# Only what the provider itself documents; of every other domain the part before the @ is kept as it is, in lower case.
MAIL_RULES: dict[str, MailRule] = {
    "gmail.com": _GMAIL,
    "googlemail.com": _GMAIL,
    **dict.fromkeys(("outlook.com", "hotmail.com", "live.com", "msn.com"), _TAGS),
    **dict.fromkeys(("icloud.com", "me.com", "mac.com"), _TAGS),
    **dict.fromkeys(("proton.me", "protonmail.com", "pm.me"), _TAGS),
    **dict.fromkeys(("fastmail.com", "fastmail.fm"), _TAGS),
}
_DOMAIN = re.compile(r"(?=.{4,253}\Z)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)+[a-z0-9-]{2,63}\Z")
MOST_PARENTS = 4  # a domain and three above it


def _normalise_email(text: str) -> str:
    local, domain = _split_email(text)
    rule = MAIL_RULES.get(domain)
    if rule is None:
        return f"{local}@{domain}"
    if rule.drops_tag:
        local = local.partition("+")[0] or local
    if rule.drops_dots:
        local = local.replace(".", "") or local
    return f"{local}@{rule.domain or domain}"


def _split_email(text: str) -> tuple[str, str]:
    composed = text if text.isascii() else unicodedata.normalize("NFC", text)
    local, _, domain = composed.casefold().rpartition("@")
    if len(local.split()) != 1 or local != local.strip() or "***" in local:
        raise InvalidRequestError("This is not an e-mail address.")
    return local, _normalise_domain(domain)


def _normalise_domain(text: str) -> str:
    """By IDNA 2008, mapped as browsers do (UTS 46): `MÜLLER.de.` is `xn--mller-kva.de`."""
    domain = text.casefold().removeprefix("@").rstrip(".")
    if not domain.isascii():
        try:
            domain = idna.encode(domain, uts46=True).decode()
        except idna.IDNAError:
            domain = ""
    if not _DOMAIN.match(domain):
        raise InvalidRequestError("This is not a domain; write it as in example.com.")
    return domain


def domain_of(email: str) -> str:
    """What stands after the @, as browsers and mail servers read it (UTS 46): of `a@mail。Shop.example`
    it is `mail.shop.example`. Not encoded, and empty for what is no address.
    """
    domain = email.rpartition("@")[2].strip().casefold()
    if domain.isascii():
        return domain
    try:
        return idna.uts46_remap(domain, std3_rules=False)
    except idna.IDNAError:
        return domain


def domains_above(domain: str) -> list[str]:
    """The domain and those above it, but for the last label: `a.b.example` is below `b.example`."""
    labels = domain.split(".")
    return [".".join(labels[start:]) for start in range(len(labels) - 1)][-MOST_PARENTS:]


# --- addresses of the network -------------------------------------------------------------------------------
# Prefix lengths that a network on a list may have: one hash each for an order, so that a look-up stays one look-up.
NETWORKS = {4: (24, 22, 20, 16, 12, 8), 6: (48, 44, 40, 36, 32)}
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _read_ip(text: str) -> _Address:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise InvalidRequestError("This is not an IP address.") from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id:
            raise InvalidRequestError("This IP address is of one machine's own network.")
        return address.ipv4_mapped or address
    return address


def _normalise_network(text: str) -> str:
    """A bare address stands for its /24 or /48."""
    base, slash, length = text.partition("/")
    address = _read_ip(base.strip())
    known = NETWORKS[address.version]
    bits = known[0]
    if slash:
        if not (length.strip().isascii() and length.strip().isdigit()):
            raise InvalidRequestError("This is not a network; write it as in 203.0.113.0/24.")
        bits = int(length)
    if bits not in known:
        lengths = ", ".join(f"/{number}" for number in sorted(known))
        raise InvalidRequestError(
            f"A network of IPv{address.version} is one of {lengths}; cut it into such parts."
        )
    return _cut(address, bits)


def _cut(address: _Address, bits: int) -> str:
    return str(ipaddress.ip_network(f"{address}/{bits}", strict=False))


def networks_around(ip: str) -> list[str]:
    """Every network that could be on a list and has this address in it. Raises `InvalidRequestError`."""
    address = _read_ip(ip.strip())
    return [_cut(address, bits) for bits in NETWORKS[address.version]]


# --- other kinds --------------------------------------------------------------------------------------------

_PHONE = re.compile(r"\+?[0-9]{6,15}\Z")
_PHONE_DRESS = re.compile(r"[\s().\-/]+")
_NOT_A_WORD = re.compile(r"[^0-9a-z]+")
# What stands for the same in streets, whatever the language writes; as words of their own, or as the end of one.
_STREET_WORDS = {
    "street": "st", "avenue": "ave", "road": "rd", "boulevard": "blvd", "drive": "dr", "lane": "ln", "place": "pl",
}  # fmt: skip
_STRASSE = re.compile(r"str(?:asse|\b)")


def _normalise_country(text: str) -> str:
    if len(text) != 2 or not text.isascii() or not text.isalpha():
        raise InvalidRequestError("This is not a country; use its two letters, such as DE.")
    return text.upper()


def _normalise_phone(text: str) -> str:
    digits = _PHONE_DRESS.sub("", text.replace("(0)", ""))
    if digits.startswith("00"):
        digits = f"+{digits[2:]}"
    if not _PHONE.match(digits):
        raise InvalidRequestError("This is not a phone number; write it as in +49 30 1234567.")
    return digits


def _normalise_address(text: str) -> str:
    """`DE, 10115, Invalidenstr. 7`: who lives there, flat and city are left out, as fraudsters vary them first."""
    country, comma, rest = text.partition(",")
    postal_code, second, street = rest.partition(",")
    line = spell_street(street)
    if not (comma and second and line):
        raise InvalidRequestError(
            "Write an address as country, postal code, street: DE, 10115, Invalidenstr. 7."
        )
    return f"{_normalise_country(country.strip())}|{spell_code(postal_code)}|{line}"


def spell_street(street: str) -> str:
    """`invalidenstr7` for `Invalidenstraße 7` and `Invaliden-Str. 7`; empty when there is no letter in it."""
    line = "".join(_STREET_WORDS.get(word, word) for word in _fold(street).split())
    return _STRASSE.sub("str", line)


def spell_code(postal_code: str) -> str:
    return _fold(postal_code).replace(" ", "")


def join_address(country: str, postal_code: str, street: str) -> str:
    """An order's address as a value of a list; empty when it is not known."""
    return f"{country}, {postal_code.replace(',', ' ')}, {street}" if country and street.strip() else ""


def _fold(text: str) -> str:
    """Lower case, without accents and punctuation."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return _NOT_A_WORD.sub(" ", "".join(char for char in plain if not unicodedata.combining(char))).strip()


def _normalise_card(text: str) -> str:
    if text.isdigit() and len(text) >= SHORTEST:
        raise InvalidRequestError(_NO_CARDS)
    return _normalise_plain(text)


def _normalise_plain(text: str) -> str:
    if "…" in text:
        raise InvalidRequestError("This is a masked value; the whole one is needed.")
    return text


_NO_CARDS = "This looks like a card number, which is never kept. Use the gateway's fingerprint of the card."
_NORMALISERS: dict[str, Callable[[str], str]] = {
    Kind.EMAIL: _normalise_email,
    Kind.DOMAIN: _normalise_domain,
    Kind.IP: lambda text: str(_read_ip(text)),
    Kind.NETWORK: _normalise_network,
    Kind.CARD: _normalise_card,
    Kind.PHONE: _normalise_phone,
    Kind.ADDRESS: _normalise_address,
    Kind.COUNTRY: _normalise_country,
}


# --- one value ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Value:
    """A value as a list keeps it: its keyed hash, and what may be shown."""

    kind: str
    hash: str
    masked: str


def normalise(kind: str, value: str) -> str:
    """The one spelling under which a value is matched.

    Raises `InvalidRequestError` when it cannot be one; what was given is not repeated.
    """
    text = value.strip()
    if not text:
        raise InvalidRequestError("An empty value cannot be put on a list.")
    if len(text) > MAX_VALUE_LENGTH:
        raise InvalidRequestError(f"A value has at most {MAX_VALUE_LENGTH} characters.")
    if "\0" in text:
        raise InvalidRequestError("A value has no control characters.")
    if kind != Kind.PHONE and contains_card_data(text) is not None:
        raise InvalidRequestError(_NO_CARDS)
    return _NORMALISERS.get(kind, _normalise_plain)(text)


def read_value(kind: str, value: str) -> Value:
    """Raises `InvalidRequestError` as `normalise` does."""
    text = normalise(kind, value)
    return Value(kind, _hash(kind, text), _mask(kind, text))


def mask_email(email: str) -> str:
    local, at, domain = email.rpartition("@")
    return f"{local[:1]}***@{domain}" if at else ""


def hashes_of(kind: str, value: str) -> set[str]:
    """Under which hashes an order's value may be listed; none for what is no such value.

    An e-mail address has two: addresses that were listed before their provider had a rule are found in that spelling.
    """
    if not value.strip():
        return set()
    try:
        text = normalise(kind, value)
        found = {_hash(kind, text)}
        if kind == Kind.EMAIL:
            local, domain = _split_email(value.strip())
            found.add(_hash(kind, f"{local}@{domain}"))
    except InvalidRequestError:
        return set()
    return found


def possible_hashes(text: str) -> set[str]:
    """The hashes that a plain value has on a list as any of the kinds that it could be."""
    return {digest for kind in Kind.values for digest in hashes_of(kind, text)}


def _hash(kind: str, text: str) -> str:
    return keyed_hash(text, purpose=f"fraud:{kind}")


def _mask(kind: str, text: str) -> str:
    if kind in (Kind.COUNTRY, Kind.NETWORK, Kind.DOMAIN):
        return text[:100]
    if kind == Kind.EMAIL:
        return mask_email(text)[:100]
    if kind == Kind.IP:
        head, separator, _ = text.rpartition("." if "." in text else ":")
        return f"{head}{separator}x"
    if kind == Kind.PHONE:
        return f"{text[:4]}…{text[-2:]}"
    if kind == Kind.ADDRESS:
        country, code, _ = text.split("|")
        return f"{country} {code[:3].upper()}…"
    return f"{text[:4]}…"
