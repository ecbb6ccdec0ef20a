"""The peers of the decision benchmark, in the environment of requirements/bench-fraud.txt: one JSON line of rates."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable

import zen

import payments as library  # prod_py_utils calls its package so

SECONDS = 1.0
ZEN_INPUTS = {"i1": "blocked", "i2": "cvv", "i3": "velocity", "i4": "foreign", "i5": "amount"}
ZEN_ROWS = [
    ('"block"', {"i1": "true"}),
    ('"block"', {"i2": '"fail"'}),
    ('"block"', {"i3": ">= 5"}),
    ('"challenge"', {"i4": "true"}),
    ('"challenge"', {"i5": ">= 100000"}),
    ('"approve"', {}),
]


def rate(work: Callable[[], object]) -> float:
    """Calls per second, over about a second."""
    for _ in range(1000):
        work()
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        for _ in range(1000):
            work()
        count += 1000
    return count / (time.perf_counter() - began)


def make_library() -> Callable[[float, str], object]:
    logging.getLogger("payments").setLevel(logging.WARNING)
    tracker = library.VelocityTracker()
    for _ in range(3):
        tracker.record("velocity:cus_7")
    engine = library.FraudEngine(
        [
            library.blocklist_rule({f"bad{number}@example.com" for number in range(1000)}),
            library.avs_cvv_rule(),
            library.velocity_rule(
                tracker, key_fn=lambda context: context.user_id, max_count=5, window_seconds=3600
            ),
            library.country_mismatch_rule(),
            library.high_amount_rule(threshold=1000.0),
        ]
    )

    def decide(amount: float, country: str) -> object:
        context = library.FraudContext(
            user_id="cus_7",
            email="buyer@example.com",
            ip_address="198.51.100.7",
            amount=amount,
            card_token="tok_ok",
            card_country=country,
            billing_country="US",
            avs_result="match",
            cvv_result="match",
        )
        return engine.evaluate(context)

    return decide


def make_zen() -> Callable[[dict[str, object]], object]:
    rules = [
        {"_id": f"r{number}", **{name: cells.get(name, "") for name in ZEN_INPUTS}, "o1": outcome}
        for number, (outcome, cells) in enumerate(ZEN_ROWS)
    ]
    content = {
        "hitPolicy": "first",
        "inputs": [
            {"id": key, "name": field, "type": "expression", "field": field}
            for key, field in ZEN_INPUTS.items()
        ],
        "outputs": [{"id": "o1", "name": "decision", "type": "expression", "field": "decision"}],
        "rules": rules,
    }
    place = {"x": 0, "y": 0}
    nodes = [
        {"id": "in", "type": "inputNode", "name": "in", "position": place},
        {"id": "t", "type": "decisionTableNode", "name": "t", "position": place, "content": content},
        {"id": "out", "type": "outputNode", "name": "out", "position": place},
    ]
    edges = [
        {"id": "e1", "sourceId": "in", "targetId": "t", "type": "edge"},
        {"id": "e2", "sourceId": "t", "targetId": "out", "type": "edge"},
    ]
    return zen.ZenEngine().create_decision(json.dumps({"nodes": nodes, "edges": edges})).evaluate


def main() -> None:
    decide, evaluate = make_library(), make_zen()
    good = {"blocked": False, "cvv": "pass", "velocity": 3, "foreign": False, "amount": 4200}
    bad = {**good, "foreign": True, "amount": 200_000}
    assert decide(42.0, "US").decision == "approve"
    assert decide(2000.0, "FR").decision == "challenge"
    assert [evaluate(each)["result"]["decision"] for each in (good, bad)] == ["approve", "challenge"]
    rates = {
        "prod_py_utils 1.0.0, approve": rate(lambda: decide(42.0, "US")),
        "prod_py_utils 1.0.0, challenge": rate(lambda: decide(2000.0, "FR")),
        "zen-engine 2.1.3, approve": rate(lambda: evaluate(good)),
        "zen-engine 2.1.3, challenge": rate(lambda: evaluate(bad)),
    }
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
