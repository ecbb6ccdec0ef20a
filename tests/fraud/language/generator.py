"""Random rules and random facts of a seed, so that all three back ends can be asked the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from fraud.facts import DIMENSIONS, EVENT_KINDS, FACTS, FactType, FraudContext, ListMatch, VelocityKey
from fraud.language import tree
from fraud.language.render import render
from fraud.language.vocabulary import FRACTIONS, LIST_KINDS, LISTS
from payments.decisions import Stage

TEXTS = (
    "visa",
    "VISA",
    "Ümlaut.de",
    "üMLAUT.DE",
    "\u212ax",
    "İstanbul",
    "straße",
    "a\\b",
    'q"q',
    "50%",
    "_x",
    "😀.com",
)
CURRENCIES = ("USD", "EUR", "JPY", "KWD")
COUNTRIES = ("DE", "US", "FR")
WINDOWS = (60, 3600, 86_400, 604_800)
NUMBERS = ("0", "1", "2", "3", "0.5", "0.3", "0.1", "0.000001", "86400", "999999999999999", "-1", "-0.25")
PARAMETERS: dict[str, Any] = {
    "limit": 2,
    "share": 0.3,
    "country": "DE",
    "countries": ["DE", "FR"],
    "needle": "Ü",
    "amounts": ["2.00 USD", "0.200 KWD"],
}
_KEYS = [
    VelocityKey("card", 3600),
    VelocityKey("email", 60, "decline"),
    VelocityKey.parse("card:86400:attempt:sum"),
    VelocityKey.parse("ip:604800:attempt:distinct:card"),
]
_BY_TYPE = {kind: [name for name, fact in FACTS.items() if fact.type is kind] for kind in FactType}


def make_rule(random: Random, depth: int = 2) -> str:
    """A rule that the checker accepts."""
    if depth == 0 or random.random() < 0.3:
        return random.choice(_CONDITIONS)(random)
    inner = [make_rule(random, depth - 1) for _ in range(random.choice((2, 2, 3)))]
    match random.choice(("and", "or", "not", "==")):
        case "not":
            return f"not ({inner[0]})"
        case "==":
            return f"({inner[0]}) {random.choice(('==', '!='))} ({inner[1]})"
        case word:
            return "(" + f" {word} ".join(f"({rule})" for rule in inner) + ")"


def make_context(random: Random) -> FraudContext:
    """Any fact may be missing, but the amount."""
    facts = {name: _make_fact(random, name) for name in FACTS if random.random() < 0.75}
    matches = [
        ListMatch(random.choice(LISTS), random.choice(LIST_KINDS), "m***") for _ in range(random.randrange(3))
    ]
    required = {
        "amount": random.choice((0, 1, 199, 200, 201, 10**17)),
        "currency": random.choice(CURRENCIES),
        "score": 0,
    }
    return FraudContext(
        **{"stage": Stage.AFTER_AUTHORIZATION, **required, **facts},
        assessed_at=random.choice((0, 1_700_000_000, 1_700_000_001)),
        list_matches=tuple(matches),
        velocity={key.name: random.choice((0, 1, 2, 3, 200)) for key in _KEYS if random.random() < 0.7},
    )


def _make_fact(random: Random, name: str) -> Any:
    if name == "amount":
        return random.choice((0, 1, 199, 200, 201, 2000, 10**17))
    if name == "currency":
        return random.choice(CURRENCIES)
    if name in FRACTIONS:
        return random.choice((0.1, 0.2, 0.3, 0.1 + 0.2, 1e-7, -0.25, 1.0, 1e300, 2.5e-6, random.random()))
    match FACTS[name].type:
        case FactType.NUMBER:
            return random.choice((0, 1, 2, 3, 86_400, -1))
        case FactType.TIME:
            return 1_700_000_000 - random.choice((-1, 0, 1, 86_399, 86_400, 172_801))
        case FactType.BOOLEAN:
            return random.random() < 0.5
    return random.choice(FACTS[name].values or (COUNTRIES if name.endswith("country") else TEXTS))


def _literal(text: str) -> str:
    return render(tree.Text(text))


def _number(random: Random, depth: int = 2) -> str:
    if depth and random.random() < 0.3:
        return f"({_number(random, depth - 1)} {random.choice('+-')} {_number(random, depth - 1)})"
    return random.choice((_number_fact, _number_fact, _constant, _figure, _days))(random)


def _number_fact(random: Random) -> str:
    return random.choice(_BY_TYPE[FactType.NUMBER])


def _constant(random: Random) -> str:
    return random.choice((*NUMBERS, "{limit}", "{share}"))


def _figure(random: Random) -> str:
    return random.choice(
        (
            'velocity("card", "1h")',
            'velocity("email", "1m", "decline")',
            'velocity_distinct("ip", "card", "7d")',
        )
    )


def _days(random: Random) -> str:
    return f"days_since({random.choice(_BY_TYPE[FactType.TIME])})"


def _money(random: Random, depth: int = 2) -> str:
    if depth and random.random() < 0.3:
        return f"({_money(random, depth - 1)} {random.choice('+-')} {_money(random, depth - 1)})"
    return random.choice(
        (
            "amount",
            "amount",
            'velocity_sum("card", "24h")',
            'money("2 USD", "2 EUR", "200 JPY")',
            "money({amounts})",
        )
    )


def _text(random: Random) -> str:
    name = random.choice(("card_brand", "email_domain"))
    return f"lower({name})" if random.random() < 0.3 else name


def _sign(random: Random) -> str:
    return random.choice(("==", "!=", "<", "<=", ">", ">="))


def _compare_numbers(random: Random) -> str:
    return f"{_number(random)} {_sign(random)} {_number(random)}"


def _compare_money(random: Random) -> str:
    return f"{_money(random)} {_sign(random)} {_money(random)}"


def _compare_times(random: Random) -> str:
    return f"customer_since {_sign(random)} first_order_at"


def _compare_texts(random: Random) -> str:
    other = random.choice((_text(random), _literal(random.choice(TEXTS))))
    return f"{_text(random)} {random.choice(('==', '!='))} {other}"


def _compare_countries(random: Random) -> str:
    other = random.choice(('"US"', "{country}", 'country("card")', 'country("ip")'))
    return f"{other} {random.choice(('==', '!='))} billing_country"


def _is_among(random: Random) -> str:
    texts = ", ".join(map(_literal, random.sample(TEXTS, 3)))
    found = random.choice(
        (f"{_text(random)} IN ({texts})", "billing_country IN {countries}", 'avs IN ("pass", "fail")',
         f"{_number(random)} IN (1, 0.5, {{limit}}, -1)")
    )  # fmt: skip
    return found.replace(" IN ", random.choice((" in ", " not in ")))


def _is_between(random: Random) -> str:
    make = random.choice((_number, _money))
    return f"{make(random)} between {make(random)} and {make(random)}"


def _is_known(random: Random) -> str:
    subject = random.choice(
        (*FACTS, _figure(random), _days(random), 'money("1 USD")', "(amount > money({amounts}))")
    )
    return f"{subject} is {random.choice(('known', 'unknown'))}"


def _looks_into(random: Random) -> str:
    needle = random.choice(
        (*(_literal(random.choice((text, text[:2], text[-2:]))) for text in TEXTS), "{needle}")
    )
    return f"{random.choice(('starts_with', 'ends_with', 'contains'))}({_text(random)}, {needle})"


def _is_listed(random: Random) -> str:
    kind = f', "{random.choice(LIST_KINDS)}"' if random.random() < 0.5 else ""
    return f'in_list("{random.choice(LISTS)}"{kind})'


def _fact(random: Random) -> str:
    return random.choice((*_BY_TYPE[FactType.BOOLEAN], "true", "false"))


_CONDITIONS: Sequence[Callable[[Random], str]] = (
    _compare_numbers, _compare_numbers, _compare_money, _compare_times, _compare_texts, _compare_countries,
    _is_among, _is_between, _is_known, _looks_into, _is_listed, _fact,
)  # fmt: skip
assert {"card", "email", "ip"} < set(DIMENSIONS), "the figures are of dimensions that exist"
assert "decline" in EVENT_KINDS
