"""Settings of dj-stripe's endpoint; plain Django, since the peer's environment holds nothing of ours."""

import os
from urllib.parse import parse_qsl, unquote, urlsplit

_database = urlsplit(os.environ["DATABASE_URL"])

SECRET_KEY = "x" * 64
ROOT_URLCONF = "benchmarks.receipt_djstripe"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
LOGGING_CONFIG = None
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "djstripe"]
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _database.path.lstrip("/"),
        "USER": unquote(_database.username or ""),
        "PASSWORD": unquote(_database.password or ""),
        "HOST": _database.hostname or dict(parse_qsl(_database.query)).get("host", ""),
        "PORT": _database.port or "",
        "CONN_MAX_AGE": 600,
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STRIPE_TEST_SECRET_KEY = "sk_test_benchmarkbenchmarkbenchmark"
STRIPE_LIVE_MODE = False
STRIPE_API_HOST = os.environ["STRIPE_API_BASE"]
DJSTRIPE_FOREIGN_KEY_TO_FIELD = "id"
if os.environ.get("PEER_MODE") == "stored":
    DJSTRIPE_WEBHOOK_EVENT_CALLBACK = "benchmarks.receipt_djstripe.leave_to_a_queue"
