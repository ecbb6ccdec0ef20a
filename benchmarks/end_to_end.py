"""A checkout end to end through HTTP, and where its time goes, beside a bare view that only calls the gateway."""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack

from benchmarks.measure import ROOT, drop_scratch, scratch_url
from benchmarks.servers import running_sandbox, serving

CLIENTS = (1, 8)
OURS, FLOOR = "our checkout", "a bare view, gateway calls only"
APPLICATIONS = {
    FLOOR: "benchmarks.end_to_end_server:floor",
    OURS: "benchmarks.end_to_end_server:site",
}
PARTS = {
    "gateway": "in the gateway",
    "database": "in the database",
    "cpu": "our code, on the processor",
    "waiting": "our code, waiting for its turn",
    "outside": "HTTP: server, queue, client",
}
NOTE = """Medians over rounds, milliseconds of one POST /api/v1/orders that ends paid. gunicorn (2 workers of 4
threads), the sandbox and the clients have a process each, and share the machine's cores. The gateway's part is what
the stack's own Timing sees (two calls, the SDK's work included); the database's is spent in execute and commit; our
code is the rest, on the processor or waiting for it and for the interpreter; the last part is what the client saw
beyond the application. The bare view makes the same two calls through the same stack and does nothing else: no
checkout can be faster. Read the ratio and the percentages."""
Sample = dict[str, float]


def main(*, rounds: int = 8, seconds: float = 3.0) -> None:
    url = scratch_url("bench_end_to_end")
    found: dict[tuple[str, int], list[Sample]] = {}
    try:
        with running_sandbox() as address, ExitStack() as stack:
            environment = prepare(url, address)
            secret = environment.pop("BENCH_KEY")
            ports = {
                name: stack.enter_context(
                    serving(application, environment, is_ready=lambda port: order(port, secret))
                ).port
                for name, application in APPLICATIONS.items()
            }
            for number in range(rounds + 1):  # the first warms every thread up
                for clients in CLIENTS:
                    for name, port in ports.items():  # in turns, and the other one idle
                        sample = load(port, secret, clients, seconds)
                        if number:
                            found.setdefault((name, clients), []).append(sample)
    finally:
        drop_scratch("bench_end_to_end")
    for clients in CLIENTS:
        report(clients, found[OURS, clients], found[FLOOR, clients])
    print(f"\n{NOTE}\n")


def prepare(url: str, gateway: str) -> dict[str, str]:
    """The server's environment, with a key of the API in BENCH_KEY."""
    environment = {
        **os.environ,
        "DATABASE_URL": url,
        "PYTHONPATH": str(ROOT),
        "LOG_LEVEL": "WARNING",
        "STRIPE_API_BASE": gateway,
        "STRIPE_API_KEY": "sk_test_bench",
        "GATEWAY_RATE_LIMIT": "10000/second",
        "API_RATE_LIMIT": "10000/second",
    }
    run = [sys.executable, "manage.py"]
    subprocess.run([*run, "migrate", "-v0"], cwd=ROOT, env=environment, check=True)
    made = subprocess.run(
        [*run, "create_api_client", "bench", "--scope", "orders:write", "--scope", "orders:read"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return {**environment, "BENCH_KEY": made.stdout.strip().splitlines()[-1]}


def order(port: int, secret: str) -> bool:
    return place(http.client.HTTPConnection("127.0.0.1", port, timeout=30), secret)["all"] > 0


def place(connection: http.client.HTTPConnection, secret: str) -> Sample:
    """One paid order by a customer and a card of its own; seconds by part. Raises on any other answer."""
    name = uuid.uuid4().hex
    body = {
        "reference": f"B-{name}",
        "amount": 4200,
        "currency": "EUR",
        "payment_method": f"pm_card_visa_c{name[:12]}",
        "customer": {"id": f"c-{name[:12]}", "email": f"{name[:12]}@example.com"},
        "billing": {"country": "DE"},
        "shipping": {"country": "DE"},
        "lines": [{"sku": "MUG-1", "quantity": 1, "unit_amount": 4200}],
    }
    headers = {
        "Authorization": f"Bearer {secret}",
        "Content-Type": "application/json",
        "Idempotency-Key": name,
    }
    start = time.perf_counter()
    connection.request("POST", "/api/v1/orders", json.dumps(body), headers)
    response = connection.getresponse()
    answer = response.read()
    total = time.perf_counter() - start
    if response.status != 201 or json.loads(answer)["state"] != "paid":
        raise RuntimeError(f"{response.status}: {answer.decode()[:500]}")
    return split(total, json.loads(response.headers["Bench-Time"]))


def split(total: float, told: Sample) -> Sample:
    """What is neither the gateway's nor the database's is ours: working, or waiting for a turn to work."""
    ours = told["all"] - told["gateway"] - told["database"]
    busy = min(told["cpu"], ours)  # the two clocks are not read at the same moment
    return {
        "gateway": told["gateway"],
        "database": told["database"],
        "cpu": busy,
        "waiting": ours - busy,
        "outside": total - told["all"],
        "all": total,
    }


def load(port: int, secret: str, clients: int, seconds: float) -> Sample:
    """Means by part of what so many keep-alive clients saw, and `rate` per second; any refusal ends the benchmark."""
    samples: list[Sample] = []
    failures: list[Exception] = []
    start = time.perf_counter()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            while time.perf_counter() - start < seconds:
                samples.append(place(connection, secret))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    spent = time.perf_counter() - start
    means = {part: statistics.fmean(sample[part] for sample in samples) for part in samples[0]}
    return {**means, "rate": len(samples) / spent}


def report(clients: int, ours: Sequence[Sample], floor: Sequence[Sample]) -> None:
    def median(samples: Sequence[Sample], part: str) -> float:
        return statistics.median(sample[part] for sample in samples)

    whole, bare = median(ours, "all"), median(floor, "all")
    print(f"\nCheckout end to end, {clients} client{'s' * (clients > 1)}\n")
    print(f"| {'':32} | {OURS}, ms | share | {FLOOR}, ms | share |")
    print(f"|{'-' * 34}|{'-' * (len(OURS) + 5)}:|------:|{'-' * (len(FLOOR) + 5)}:|------:|")
    for part, name in [*PARTS.items(), ("all", "all of it")]:
        mine, its = median(ours, part), median(floor, part)
        print(
            f"| {name:32} | {mine * 1e3:{len(OURS) + 4}.1f} | {mine / whole:5.0%} "
            f"| {its * 1e3:{len(FLOOR) + 4}.1f} | {its / bare:5.0%} |"
        )
    rates = [sorted(sample["rate"] for sample in samples) for samples in (ours, floor)]
    told = [f"{statistics.median(rate):.1f} ({rate[0]:.1f}..{rate[-1]:.1f})" for rate in rates]
    print(
        f"\nPer second: ours {told[0]}, the bare view {told[1]}; a checkout takes {whole / bare:.1f} times as long."
    )


if __name__ == "__main__":
    main()
