"""Whether a rule hits more or less often than it used to: the last 7 days against the 28 before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from urllib.parse import urlencode

from django.urls import reverse
from django.utils import timezone

from fraud.measures.judged import count_judged
from fraud.measures.period import Period
from fraud.measures.reading import fetch
from fraud.measures.statistics import Proportion, compare
from payments.models import OnCallPage
from payments.oncall import open_page

RECENT_DAYS, BEFORE_DAYS = 7, 28
SURE = (
    0.01  # the chance that a flag comes of nothing; a dozen rules a day would raise one false flag in 8 days
)
LARGE = 0.25  # a change that matters, of the rate that it was
SILENCE = timedelta(days=7)  # of a rule after its notice

# What the rule would have hit, whatever a hit may do: putting it on, or a customer on the allow list, is no drift.
_HITS = """
SELECT rule, day, count(*) FROM (
    SELECT verdict.rule_key AS rule, (min(assessment.created_at) AT TIME ZONE 'UTC')::date AS day
    FROM fraud_assessment assessment JOIN fraud_verdict verdict ON verdict.assessment_id = assessment.id
    WHERE assessment.created_at >= %(since)s AND assessment.created_at < %(until)s
        AND verdict.status IN ('hit', 'shadow', 'snoozed')
    GROUP BY verdict.rule_key, assessment.order_id
) orders GROUP BY rule, day
"""


@dataclass(frozen=True, slots=True)
class Drift:
    """A rule's hit rate lately and before. `chance` is the p-value, None where there is too little to tell."""

    rule: str
    recent: Proportion
    before: Proportion
    chance: float | None

    @property
    def change(self) -> float | None:
        """+1.0 is twice as often; None when it never hit before."""
        if not self.before.value or self.recent.value is None:
            return None
        return self.recent.value / self.before.value - 1

    @property
    def is_flagged(self) -> bool:
        """Surely another rate, and another by a quarter or more."""
        is_large = self.change is None or abs(self.change) >= LARGE
        return self.chance is not None and self.chance < SURE and is_large


def find_drift(*, now: datetime | None = None) -> list[Drift]:
    """Every rule that judged lately and before, the surest change first; two queries.

    Today is not over and is left out.
    """
    today = Period.last(1, now=now).since
    period = Period(today - timedelta(days=RECENT_DAYS + BEFORE_DAYS), today)
    border = (today - timedelta(days=RECENT_DAYS)).date()
    judged = _halve(((rule, day, n) for (rule, day), n in count_judged(period).items()), border)
    hits = _halve(((rule, day, n) for rule, day, n in fetch(_HITS, period)), border)
    found = []
    for rule, (recent_n, before_n) in judged.items():
        recent, before = hits.get(rule, [0, 0])
        one, other = Proportion(recent, recent_n), Proportion(before, before_n)
        if recent_n and before_n:
            found.append(Drift(rule, one, other, compare(one, other)))
    return sorted(found, key=lambda drift: (1.0 if drift.chance is None else drift.chance, drift.rule))


def _halve(rows: Iterable[tuple[str, date, int]], border: date) -> dict[str, list[int]]:
    """By rule, what is of the recent days and of those before."""
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for rule, day, count in rows:
        sums[rule][0 if day >= border else 1] += count
    return dict(sums)


def report_drift(*, now: datetime | None = None) -> int:
    """Call a person for every flagged rule that was not told of within the week. Returns for how many."""
    told = set(
        OnCallPage.objects.filter(
            cause__startswith="fraud_drift:", created_at__gt=(now or timezone.now()) - SILENCE
        ).values_list("cause", flat=True)
    )
    flagged = [drift for drift in find_drift(now=now) if drift.is_flagged and cause_of(drift) not in told]
    for drift in flagged:
        path = f"{reverse('admin:fraud_label_rule')}?{urlencode({'rule': drift.rule})}"
        detail = {"rule": drift.rule, "recent": drift.recent.value, "before": drift.before.value}
        open_page(cause_of(drift), text=describe(drift), detail=detail, path=path[:200])
    return len(flagged)


def cause_of(drift: Drift) -> str:
    return f"fraud_drift:{drift.rule}"


def describe(drift: Drift) -> str:
    recent, before = drift.recent.value or 0.0, drift.before.value or 0.0
    return (
        f"Fraud rule “{drift.rule}” hit {recent:.2%} of {drift.recent.n} orders in 7 days, "
        f"{before:.2%} of {drift.before.n} in the 28 before"
    )
