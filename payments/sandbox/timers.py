"""What the gateway leaves for later: refunds that bounce, disputes that come."""

from collections.abc import Callable
from functools import partial

from . import disputes, refunds
from .books import Session


def run_timers(session: Session, *, everything: bool = False) -> int:
    """Do what is due, or all that waits; the number of timers."""
    limit = session.now if not everything else 1 << 62
    rows = session.db.execute("DELETE FROM timers WHERE due <= ? RETURNING *", (limit,)).fetchall()
    now = session.now
    for row in rows:
        session.now = min(row["due"], now)  # What was planned in the past happened in the past.
        ACTIONS[row["name"]](session, row["object"])
    session.now = now
    return len(rows)


ACTIONS: dict[str, Callable[[Session, str], None]] = {
    "fail_refund": refunds.fail_refund,
    "dispute": disputes.dispute_as_told,
    "win_dispute": partial(disputes.decide_if_open, status="won"),
    "lose_dispute": partial(disputes.decide_if_open, status="lost"),
}
