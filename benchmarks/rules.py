"""What one rule costs beside the same condition in plain Python, and what the worst text costs to refuse."""

from __future__ import annotations

import timeit
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import thread_time

from fraud.facts import FraudContext
from fraud.language import Expression, LanguageError, parse
from fraud.language.closures import compile_expression
from fraud.language.explain import compile_explanation
from payments.decisions import Stage
from tests.fraud.language.generator import PARAMETERS
from tests.fraud.language.hostile import make_texts

CALLS, ROUNDS = 2000, 200  # short rounds: some are undisturbed on a busy machine too
CONTEXT = FraudContext(
    stage=Stage.AFTER_AUTHORIZATION,
    amount=250_000,
    currency="USD",
    assessed_at=1_700_000_000,
    customer_since=1_699_000_000,
    orders_before=3,
    model_score=0.4,
    billing_country="DE",
    card_country="US",
    avs="fail",
    velocity={"card:3600": 4},
)
LIMITS = {"USD": 200_000}
COUNTRIES = frozenset(("US", "DE"))


def _whole(context: FraudContext) -> bool | None:
    limit, count = LIMITS.get(context.currency), context.velocity.get("card:3600")
    if limit is None or count is None or not context.card_country or not context.billing_country:
        return None
    return context.amount >= limit and context.card_country != context.billing_country and count >= 3


Test = Callable[[FraudContext], bool | None]
RULES: tuple[tuple[str, Test], ...] = (
    ("orders_before >= 3", lambda it: None if it.orders_before is None else it.orders_before >= 3),
    ('avs == "fail"', lambda it: it.avs == "fail" if it.avs else None),
    (
        'amount >= money("2000 USD")',
        lambda it: it.amount >= LIMITS[it.currency] if it.currency in LIMITS else None,
    ),
    (
        'velocity("card", "1h") >= 3',
        lambda it: None if (n := it.velocity.get("card:3600")) is None else n >= 3,
    ),
    (
        "card_country != billing_country",
        lambda it: it.card_country != it.billing_country if it.card_country and it.billing_country else None,
    ),
    ('card_country in ("US", "DE")', lambda it: it.card_country in COUNTRIES if it.card_country else None),
    ("model_score > 0.3", lambda it: None if it.model_score is None else it.model_score > 0.3),
    ('in_list("block")', lambda it: "block" in it.listed),
    (
        "days_since(customer_since) < 30",
        lambda it: None if it.customer_since is None else (it.assessed_at - it.customer_since) // 86_400 < 30,
    ),
    (
        'amount >= money("2000 USD") and card_country != billing_country and velocity("card", "1h") >= 3',
        _whole,
    ),
)


def main() -> None:
    print("\nOne rule on one order, nanoseconds, the best of several rounds, the call included\n")
    print(f"| {'rule':96} | plain Python | rule | times |\n|{'-' * 98}|-------------:|-----:|------:|")
    for text, plain in RULES:
        rule = compile_expression(parse(text))
        assert rule(CONTEXT) == plain(CONTEXT)
        ours, theirs = nanoseconds(rule, CONTEXT), nanoseconds(plain, CONTEXT)
        print(f"| {text:96} | {theirs:12.0f} | {ours:4.0f} | {ours / theirs:5.2f} |")
    print_other(parse(RULES[-1][0]))


def print_other(rule: Expression) -> None:
    """The last rule of the table, off the live path; and the worst text."""
    reading = nanoseconds(parse, rule.text, calls=5) / 1000
    compiling = nanoseconds(compile_expression, rule, calls=5) / 1000
    explaining = nanoseconds(compile_explanation(rule), CONTEXT, calls=100) / 1000
    print(
        f"\nThe last rule: read {reading:.0f} us, compiled {compiling:.0f} us, a hit explained {explaining:.1f} us."
    )
    times = sorted(time_texts(make_texts()))
    print(
        f"{len(times)} random and hostile texts, CPU: median {times[len(times) // 2] * 1000:.2f} ms, "
        f"the longest {times[-1] * 1000:.1f} ms (at most 50 ms are allowed).\n"
    )


def nanoseconds(function: Callable[..., object], argument: object, calls: int = CALLS) -> float:
    names = {"function": function, "argument": argument}
    return min(timeit.repeat("function(argument)", globals=names, number=calls, repeat=ROUNDS)) / calls * 1e9


def time_texts(texts: Iterable[str]) -> list[float]:
    """Seconds of CPU until each is a rule or refused."""
    parse(
        'currency == "EUR" and card_country == "DE"'
    )  # the tables of currencies and countries are made once
    found = []
    for text in texts:
        began = thread_time()
        with suppress(LanguageError):
            parse(text, PARAMETERS)
        found.append(thread_time() - began)
    return found


if __name__ == "__main__":
    main()
