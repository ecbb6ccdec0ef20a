"""The tables of fraud: rules, what they said of each order, lists, counts, links, reviews and labels."""

from fraud.models.assessment import Assessment, Verdict
from fraud.models.backtest import BackTest, BackTestState
from fraud.models.label import PRECEDENCE, EffectiveLabel, Label, LabelSource
from fraud.models.link import EntityLink
from fraud.models.listing import (
    ListChange,
    ListEntry,
    ListEntryQuerySet,
    ListHit,
    ListImport,
    ListImportLine,
)
from fraud.models.measure import RuleDay
from fraud.models.position import EventPosition
from fraud.models.review import (
    APPROVE_REASONS,
    LEASE_MINUTES,
    PERSON,
    REJECT_REASONS,
    ReasonCode,
    Review,
    ReviewEvent,
    ReviewEventKind,
    ReviewQuerySet,
    ReviewState,
)
from fraud.models.ruleset import (
    Rule,
    RuleActivation,
    RuleActivationQuerySet,
    RuleSet,
    RuleSetQuerySet,
    RuleSetState,
)
from fraud.models.velocity import VelocityEvent

__all__ = [
    "APPROVE_REASONS",
    "LEASE_MINUTES",
    "PERSON",
    "PRECEDENCE",
    "REJECT_REASONS",
    "Assessment",
    "BackTest",
    "BackTestState",
    "EffectiveLabel",
    "EntityLink",
    "EventPosition",
    "Label",
    "LabelSource",
    "ListChange",
    "ListEntry",
    "ListEntryQuerySet",
    "ListHit",
    "ListImport",
    "ListImportLine",
    "ReasonCode",
    "Review",
    "ReviewEvent",
    "ReviewEventKind",
    "ReviewQuerySet",
    "ReviewState",
    "Rule",
    "RuleActivation",
    "RuleActivationQuerySet",
    "RuleDay",
    "RuleSet",
    "RuleSetQuerySet",
    "RuleSetState",
    "VelocityEvent",
    "Verdict",
]
