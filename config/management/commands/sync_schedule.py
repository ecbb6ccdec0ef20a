"""`manage.py sync_schedule`: puts the beat defaults into the database, where the admin owns them from then on."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand
from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask

from config.celery import BEAT_SCHEDULE


class Command(BaseCommand):
    help = "Create the periodic tasks that are missing; those that exist keep what the admin made of them."

    def handle(self, *args: Any, **options: Any) -> None:
        existing = set(PeriodicTask.objects.values_list("name", flat=True))
        missing = {name: entry for name, entry in BEAT_SCHEDULE.items() if name not in existing}
        for name, (task, schedule) in missing.items():
            PeriodicTask.objects.create(name=name, task=task, **_make_schedule(schedule))
        self.stdout.write(f"{len(missing)} periodic tasks created, {len(existing)} kept")


def _make_schedule(schedule: float | dict[str, str]) -> dict[str, Any]:
    if isinstance(schedule, dict):
        return {"crontab": CrontabSchedule.objects.get_or_create(timezone="UTC", **schedule)[0]}
    period = IntervalSchedule.SECONDS
    return {"interval": IntervalSchedule.objects.get_or_create(every=int(schedule), period=period)[0]}
