"""The form that names what is to be replayed: an account, a moment, and whether what succeeded goes along."""

from __future__ import annotations

from typing import Any

from django import forms
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from payments.models import GatewayAccount
from webhooks import replay

WHICH = (
    ("failed", "What did not succeed"),
    ("all", "Everything, also what was applied or ignored"),
)


class ReplaySinceForm(forms.Form):
    """Counts first, replays after; both by the same query."""

    account = forms.ModelChoiceField(
        queryset=GatewayAccount.objects.all(),
        required=False,
        empty_label="All accounts",
        widget=UnfoldAdminSelectWidget,
    )
    since = forms.DateTimeField(
        label="Received since",
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "2026-03-01 08:00"}),
        help_text="In UTC.",
    )
    which = forms.ChoiceField(choices=WHICH, initial="failed", widget=UnfoldAdminSelectWidget)

    def count(self) -> int:
        """How many would be due again."""
        return replay.find_since(**self._wish()).count()

    def replay(self, actor: str) -> int:
        """Make them due, at most `MOST_AT_ONCE`. Returns how many."""
        return replay.replay_since(actor=actor, **self._wish())

    def _wish(self) -> dict[str, Any]:
        """What both are asked with."""
        data = self.cleaned_data
        return {"since": data["since"], "account": data["account"], "with_done": data["which"] == "all"}
