"""The site: settings, wiring, the Celery app and the admin site."""

from config.celery import app as celery_app

__all__ = ["celery_app"]
