"""Settings of the tests: the site's own, with servers of their own and without a broker."""

import os

from config import embedded

# Computing the addresses starts nothing; tests/conftest.py starts what is ours before the first test.
os.environ.setdefault("DATABASE_URL", embedded.database_url(fast=True))
os.environ.setdefault("REDIS_URL", embedded.redis_url(fast=True))

from config.settings import *  # noqa: F403
from config.settings import DATABASES, LOGGING

DATABASES["default"]["CONN_MAX_AGE"] = 0  # threads of a live server would keep theirs beyond the test
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # speed; nothing here is secret
CELERY_BROKER_URL = "memory://"
CELERY_BROKER_TRANSPORT_OPTIONS = {}
CELERY_TASK_ALWAYS_EAGER = False  # messages only ring the bell: a test that needs one would be wrong
EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
LOGGING = LOGGING | {"root": {**LOGGING.get("root", {}), "level": "ERROR"}}
