"""What the rules and the review are worth, measured against the labels: fixed queries, no state."""

from fraud.measures.drift import Drift, find_drift, report_drift
from fraud.measures.judged import count_judged, keep_judged
from fraud.measures.overall import Overall, measure_overall
from fraud.measures.period import Period
from fraud.measures.queue import AnalystMeasure, QueueMeasure, measure_queue
from fraud.measures.rules import DayMeasure, Overlap, RuleMeasure, find_examples, measure_days, measure_rules
from fraud.measures.statistics import TOO_FEW, Proportion

__all__ = [
    "TOO_FEW",
    "AnalystMeasure",
    "DayMeasure",
    "Drift",
    "Overall",
    "Overlap",
    "Period",
    "Proportion",
    "QueueMeasure",
    "RuleMeasure",
    "count_judged",
    "find_drift",
    "find_examples",
    "keep_judged",
    "measure_days",
    "measure_overall",
    "measure_queue",
    "measure_rules",
    "report_drift",
]
