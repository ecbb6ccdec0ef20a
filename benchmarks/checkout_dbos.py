"""Child of the checkout benchmark: DBOS Transact's four-step workflow, as its documentation writes it."""

from __future__ import annotations

import json
import os
import sys
import uuid

from dbos import DBOS, SetWorkflowID

from benchmarks.measure import in_threads


@DBOS.step()
def reserve(order):
    return {"reservation": "r1"}


@DBOS.step()
def authorize(order):
    return {"auth": "a1"}


@DBOS.step()
def capture(order):
    return {"capture": "c1"}


@DBOS.step()
def notify(order):
    return {"sent": True}


@DBOS.workflow()
def checkout(order):
    reserve(order)
    authorize(order)
    capture(order)
    notify(order)
    return {"status": "captured", "order": order["id"]}


ORDER = {"id": "o-1", "amount": 4200, "currency": "usd", "customer": "cus_123", "note": "c" * 200}


def run_workflow() -> None:
    with SetWorkflowID(uuid.uuid4().hex):
        checkout(ORDER)


def main(url: str, count: int) -> None:
    DBOS(
        config={
            "name": "bench",
            "system_database_url": url.replace("postgres://", "postgresql://"),
            "log_level": "ERROR",
            "application_version": "v1",
            "sys_db_pool_size": 20,
        }
    )
    DBOS.launch()
    in_threads(run_workflow, threads=1, count=30)
    rates = {
        f"DBOS workflow, {threads} thread{'s' * (threads > 1)}": in_threads(
            run_workflow, threads=threads, count=count
        )
        for threads in (1, 8)
    }
    print(json.dumps(rates), flush=True)
    os._exit(0)  # its pollers do not stop by themselves


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
