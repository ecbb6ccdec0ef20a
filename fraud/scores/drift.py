"""Whether the model's scores of the last days are still spread as those of its training."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models.fields.json import KeyTextTransform
from django.utils import timezone

from fraud.models import Assessment
from fraud.scores.base import ScoreError
from fraud.scores.evaluation import find_stability_index, read_stability
from fraud.scores.model import Model
from fraud.scores.sources import get_model_scorer
from payments.decisions import Stage
from payments.ids import lowest_id

DAYS = 7
MIN_SCORES = 100  # fewer move by chance


@dataclass(frozen=True, slots=True)
class ScoreDrift:
    """`index` is None when there is nothing to compare: no training distribution, or too few scores."""

    scores: int
    index: float | None = None

    @property
    def reading(self) -> str:
        return "unknown" if self.index is None else read_stability(self.index)


def find_model_drift() -> ScoreDrift | None:
    """Of the model that the settings name; None without one, or when it cannot be read."""
    if not settings.FRAUD_MODEL_PATH:
        return None
    try:
        return measure_drift(get_model_scorer().load())
    except ScoreError:
        return None


def measure_drift(model: Model, *, now: datetime | None = None) -> ScoreDrift:
    """The population stability index of the last seven days' scores of this very model against its training."""
    until = now or timezone.now()
    scores = read_model_scores(model, since=until - timedelta(days=DAYS), until=until)
    if model.training is None or len(scores) < MIN_SCORES:
        return ScoreDrift(len(scores))
    return ScoreDrift(len(scores), find_stability_index(model.training, scores))


def read_model_scores(model: Model, *, since: datetime, until: datetime) -> list[float]:
    """The scores that this version and file gave before the authorization, by the ids' order of time."""
    rows = Assessment.objects.filter(
        pk__gte=lowest_id("asm", since), pk__lt=lowest_id("asm", until), stage=Stage.BEFORE_AUTHORIZATION
    ).filter(context__scores__model__version=model.label)
    texts = rows.annotate(told=KeyTextTransform("model_score", "context")).values_list("told", flat=True)
    return [float(text) for text in texts if text is not None]
