"""`manage.py sync_schedule`: puts the beat defaults into the database, where the admin owns them from then on."""

from __future__ import annotations

from typing import Any

from celery.schedules import crontab
from django.core.management.base import BaseCommand
from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask

from config.celery import BEAT_SCHEDULE


class Command(BaseCommand):
    help = "Create the periodic tasks that are missing; those that exist keep what the admin made of them."

    def handle(self, *args: Any, **options: Any) -> None:
        existing = set(PeriodicTask.objects.values_list("name", flat=True))
        missing = {name: entry for name, entry in BEAT_SCHEDULE.items() if name not in existing}
        for name, entry in missing.items():
            PeriodicTask.objects.create(name=name, task=entry["task"], **_schedule(entry["schedule"]))
        self.stdout.write(f"{len(missing)} periodic tasks created, {len(existing)} kept")


def _schedule(value: Any) -> dict[str, Any]:
    if isinstance(value, crontab):
        fields = {"minute": value._orig_minute, "hour": value._orig_hour, "timezone": "UTC"}
        return {"crontab": CrontabSchedule.objects.get_or_create(**fields)[0]}
    interval, _ = IntervalSchedule.objects.get_or_create(every=int(value), period=IntervalSchedule.SECONDS)
    return {"interval": interval}
