"""Every setting of the site, top to bottom, each value from the environment."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import environ
from csp.constants import NONE, SELF, UNSAFE_EVAL, UNSAFE_INLINE
from django.core.exceptions import ImproperlyConfigured

from config import embedded
from config.logging import logging_config
from config.unfold import UNFOLD  # noqa: F401
from payments.decisions import Stage
from payments.kinds import EVIDENCE_KINDS, DisputeStage, DisputeState, OperationKind
from payments.redaction import redact_data

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.Env()
environ.Env.read_env(BASE_DIR / ".env")

# --- core ---------------------------------------------------------------------------------------------------
DJANGO_ENV = env.str("DJANGO_ENV", "local")
PRODUCTION = DJANGO_ENV == "production"
DEBUG = env.bool("DEBUG", False)
# Development values are made once per checkout and kept in .local/; production must be given its own.
SECRET_KEY = (
    env.str("SECRET_KEY") if PRODUCTION else env.str("SECRET_KEY", embedded.local_secret("secret_key"))
)
ENCRYPTION_KEYS: list[str] = (
    env.list("ENCRYPTION_KEYS")
    if PRODUCTION
    else env.list("ENCRYPTION_KEYS", default=[embedded.local_secret("encryption_key")])
)
ALLOWED_HOSTS: list[str] = env.list(
    "ALLOWED_HOSTS", default=[] if PRODUCTION else ["127.0.0.1", "localhost", "[::1]"]
)
TRUSTED_PROXIES = env.int("TRUSTED_PROXIES", 0)  # how many proxies in front append to X-Forwarded-For
SITE_URL = env.str("SITE_URL", "http://127.0.0.1:8000")

INSTALLED_APPS = [
    "unfold.apps.BasicAppConfig",
    "unfold.contrib.filters",
    "unfold.contrib.forms",
    "config.apps.BackOfficeAdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "django_celery_beat",
    "django_filters",
    "rest_framework",
    "rest_framework_api_key",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "csp",
    "corsheaders",
    "payments.apps.PaymentsConfig",
    "fraud.apps.FraudConfig",
    "reconciliation.apps.ReconciliationConfig",
    "webhooks.apps.WebhooksConfig",
    "config.apps.SiteConfig",
]
MIDDLEWARE = [
    "config.middleware.RequestIdMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "config.middleware.WebhookLaneMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_I18N = True
USE_TZ = True
FORMAT_MODULE_PATH = "config.formats"

# --- data ---------------------------------------------------------------------------------------------------
# Without DATABASE_URL / REDIS_URL the servers out of pip wheels are used, by socket, from .local/.
DATABASE_URL = env.str("DATABASE_URL", "") or embedded.database_url()
REDIS_URL = env.str("REDIS_URL", "") or embedded.redis_url()
DATABASES: dict[str, dict[str, Any]] = {"default": {**environ.Env.db_url_config(DATABASE_URL)}}
DATABASES["default"]["ATOMIC_REQUESTS"] = False
DATABASES["default"]["CONN_MAX_AGE"] = env.int("CONN_MAX_AGE", 600)
DATABASES["default"].setdefault("OPTIONS", {})["options"] = "-c lock_timeout=5s -c statement_timeout=60s"
# Lets payments/sql.py prepare its statements; Django's own cursors prepare nothing either way.
DATABASES["default"]["OPTIONS"]["prepare_threshold"] = 5
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}

# --- web ----------------------------------------------------------------------------------------------------
STATIC_URL = "/static/"
STATIC_ROOT = BASE_DIR / "staticfiles" if PRODUCTION else None  # elsewhere the finders serve them
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if PRODUCTION
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = not PRODUCTION
MEDIA_ROOT = env.str("MEDIA_ROOT", str(BASE_DIR / ".local" / "media"))
DATA_UPLOAD_MAX_MEMORY_SIZE = 256 * 1024
APPEND_SLASH = True
LOGIN_URL = "admin:login"
LOGIN_REDIRECT_URL = "admin:index"

SESSION_COOKIE_AGE = 12 * 60 * 60
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_HTTPONLY = True
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
if PRODUCTION:
    SECURE_SSL_REDIRECT = env.bool("SECURE_SSL_REDIRECT", True)
    SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$"]
    SECURE_HSTS_SECONDS = 365 * 24 * 60 * 60
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True
    if TRUSTED_PROXIES:
        SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

# unfold's Alpine needs eval; nothing else may (see docs/decisions).
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "script-src": [SELF, UNSAFE_EVAL],
        "style-src": [SELF, UNSAFE_INLINE],
        "img-src": [SELF, "data:"],
        "object-src": [NONE],
        "base-uri": [NONE],
        "frame-ancestors": [NONE],
        "form-action": [SELF],
    },
}

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]

# --- API ----------------------------------------------------------------------------------------------------
REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["payments.api.authentication.ApiKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["payments.api.authentication.HasScope"],
    "DEFAULT_PARSER_CLASSES": ["payments.api.parsers.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PAGINATION_CLASS": "payments.api.pagination.SignedCursorPagination",
    "DEFAULT_SCHEMA_CLASS": "payments.api.schema.ProblemAutoSchema",
    "EXCEPTION_HANDLER": "payments.api.errors.handle_exception",
    "UNAUTHENTICATED_USER": None,
    "NUM_PROXIES": TRUSTED_PROXIES,
    "PAGE_SIZE": 25,
}
SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "Countinghouse storefront API",
    "DESCRIPTION": "Place and pay orders; never charge twice.",
    "VERSION": "1.0.0",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SCHEMA_PATH_PREFIX": r"/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "APPEND_COMPONENTS": {
        "securitySchemes": {
            "clientBasic": {"type": "http", "scheme": "basic", "description": "Client id and API key."}
        }
    },
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "payments.api.schema.add_webhooks",
    ],
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "ENUM_NAME_OVERRIDES": {
        "OrderState": "payments.models.order.OrderState",
        "PaymentState": "payments.models.payment.PaymentState",
        "OperationState": "payments.models.payment.OperationState",
        "DisputeState": [state.value for state in DisputeState],
        "DisputeStage": [stage.value for stage in DisputeStage],
        "DeliveryState": "webhooks.models.DeliveryState",
        "ReviewState": "fraud.models.ReviewState",
        "ScreeningStage": [stage.value for stage in Stage],
        "OperationKind": [kind.value for kind in OperationKind],
        "EvidenceKind": EVIDENCE_KINDS,
    },
}
API_RATE_LIMIT = env.str("API_RATE_LIMIT", "100/second")  # per API key
TOKEN_RATE_LIMIT = env.str("TOKEN_RATE_LIMIT", "60/minute")  # token requests, per address of the caller
WEBHOOK_FORGERY_LIMIT = env.str(
    "WEBHOOK_FORGERY_LIMIT", "30/minute"
)  # bad signatures, per address of the sender
ACCESS_TOKEN_SECONDS = env.int("ACCESS_TOKEN_SECONDS", 10 * 60)
TOKEN_KEY_DAYS = env.int("TOKEN_KEY_DAYS", 30)  # how old a signing key becomes before it is rotated
# Browsers on other origins: off unless origins are listed, for the API alone, never with cookies.
CORS_ALLOWED_ORIGINS: list[str] = env.list("CORS_ALLOWED_ORIGINS", default=[])
CORS_URLS_REGEX = r"^/api/"
CORS_ALLOW_CREDENTIALS = False
CORS_ALLOW_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
CORS_ALLOW_HEADERS = ["accept", "authorization", "content-type", "idempotency-key", "prefer", "x-request-id"]
CORS_EXPOSE_HEADERS = [
    "Idempotency-Key",
    "Idempotent-Replayed",
    "Location",
    "Preference-Applied",
    "RateLimit",
    "RateLimit-Policy",
    "Retry-After",
    "WWW-Authenticate",
    "X-Request-ID",
]
if CORS_ALLOWED_ORIGINS:
    MIDDLEWARE.insert(
        MIDDLEWARE.index("csp.middleware.CSPMiddleware"), "corsheaders.middleware.CorsMiddleware"
    )

# --- work ---------------------------------------------------------------------------------------------------
CELERY_BROKER_URL = embedded.broker_url(REDIS_URL)
CELERY_BROKER_TRANSPORT_OPTIONS = embedded.broker_options(REDIS_URL)
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_TIME_LIMIT = 600
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"

# --- payments -----------------------------------------------------------------------------------------------
PAYMENT_GATEWAYS = {
    "stripe": "payments.gateways.stripe.StripeGateway",
    "braintree": "payments.gateways.braintree.BraintreeGateway",
    "adyen": "payments.gateways.adyen.AdyenGateway",
}
PAYMENT_SCREENER = env.str("PAYMENT_SCREENER", "fraud.screening.RuleScreener")
# Strong customer authentication (docs/three-d-secure.md). Off: 3-D Secure is asked for by the fraud rules alone.
SCA_ENABLED = env.bool("SCA_ENABLED", False)
SCA_MERCHANT_COUNTRY = env.str("SCA_MERCHANT_COUNTRY", "")  # of the acquirer, such as DE
SCA_EXEMPTIONS: list[str] = env.list("SCA_EXEMPTIONS", default=["low_value", "tra", "recurring"])
SCA_FRAUD_RATE = env.str("SCA_FRAUD_RATE", "")  # the acquirer's, in percent; empty: no risk analysis (TRA)
SCA_TRA_MAX_SCORE = env.int("SCA_TRA_MAX_SCORE", 0)  # more points of the fraud rules are no low risk
SCA_CHALLENGE_THE_REST = env.bool("SCA_CHALLENGE_THE_REST", False)
SCA_REFERENCE_RATES: dict[str, str] = env.dict("SCA_REFERENCE_RATES", default={})  # USD=1.08: for one euro
# An outside risk score, and the shop's own model (docs/models.md). Empty: none.
FRAUD_RISK_URL = env.str("FRAUD_RISK_URL", "")
FRAUD_RISK_PROVIDER = env.str("FRAUD_RISK_PROVIDER", "outside")  # how the verdicts call it
FRAUD_RISK_SECRET = env.str("FRAUD_RISK_SECRET", "")
FRAUD_RISK_TIMEOUT_MS = env.int("FRAUD_RISK_TIMEOUT_MS", 300)
FRAUD_RISK_ALLOW_PRIVATE = env.bool("FRAUD_RISK_ALLOW_PRIVATE", False)
FRAUD_MODEL_PATH = env.str("FRAUD_MODEL_PATH", "")  # .onnx or .skops, with a .json beside it
INVENTORY_BACKEND = env.str("INVENTORY_BACKEND", "payments.fulfilment.local.LocalInventory")
SHIPPING_BACKEND = env.str("SHIPPING_BACKEND", "payments.fulfilment.local.LocalShipping")
# Who declares how long data is kept, beside payments itself (see payments/retention.py).
DATA_KEEPERS = [
    "webhooks.retention.WebhooksData",
    "fraud.retention.FraudData",
    "reconciliation.retention.ReconciliationData",
    "config.retention.SiteData",
]
UNSERVED_COUNTRIES = env.list("UNSERVED_COUNTRIES", default=["AQ"])  # the local carrier refuses these
STRIPE_API_KEY = env.str("STRIPE_API_KEY", "")
STRIPE_API_BASE = env.str("STRIPE_API_BASE", "https://api.stripe.com")
STRIPE_WEBHOOK_SECRET = env.str("STRIPE_WEBHOOK_SECRET", "")
ADYEN_API_KEY = env.str("ADYEN_API_KEY", "")
ADYEN_API_BASE = env.str("ADYEN_API_BASE", "")  # the live prefix of the account, or a test host
ADYEN_MERCHANT_ACCOUNT = env.str("ADYEN_MERCHANT_ACCOUNT", "")
ADYEN_WEBHOOK_SECRET = env.str("ADYEN_WEBHOOK_SECRET", "")  # the HMAC key, in hexadecimal
BRAINTREE_API_KEY = env.str("BRAINTREE_API_KEY", "")  # the private key
BRAINTREE_API_BASE = env.str("BRAINTREE_API_BASE", "")
BRAINTREE_MERCHANT_ID = env.str("BRAINTREE_MERCHANT_ID", "")
BRAINTREE_PUBLIC_KEY = env.str("BRAINTREE_PUBLIC_KEY", "")
BRAINTREE_WEBHOOK_SECRET = env.str("BRAINTREE_WEBHOOK_SECRET", "")
GATEWAY_RATE_LIMIT = env.str("GATEWAY_RATE_LIMIT", "100/second")  # per gateway account
GATEWAY_TIMEOUT_SECONDS = env.int(
    "GATEWAY_TIMEOUT_SECONDS", 25
)  # below the lease, so no renewal inside a call
SAGA_LEASE_SECONDS = env.int("SAGA_LEASE_SECONDS", 30)
CUSTOMER_ACTION_SECONDS = env.int("CUSTOMER_ACTION_SECONDS", 15 * 60)
# How long a process decides by the rule set that it knows before it looks for a newer one.
FRAUD_RULES_SECONDS = env.float("FRAUD_RULES_SECONDS", 2.0)
REVIEW_SECONDS = env.int(
    "REVIEW_SECONDS", 5 * 24 * 60 * 60
)  # below the 7 days that a card authorization holds
FRAUD_MATURE_DAYS = env.int("FRAUD_MATURE_DAYS", 90)  # captured and not disputed for so long: genuine
REVIEW_SLA_SECONDS = env.int("REVIEW_SLA_SECONDS", 4 * 60 * 60)  # how soon a case should be decided
REVIEW_AT_EXPIRY = env.str("REVIEW_AT_EXPIRY", "reject")  # or approve, or escalate; see fraud.policy
# Major units by currency, "default" for all others: what is approved at expiry, what takes two people.
REVIEW_APPROVE_BELOW: dict[str, str] = env.dict("REVIEW_APPROVE_BELOW", default={})
REVIEW_FOUR_EYES: dict[str, str] = env.dict("REVIEW_FOUR_EYES", default={})
UNKNOWN_QUERY_SECONDS = env.list("UNKNOWN_QUERY_SECONDS", cast=int, default=[5, 60, 300, 3600])
# What a gateway has received and not done: asked for now and then, and a person's task in the end.
PENDING_QUERY_SECONDS = env.list("PENDING_QUERY_SECONDS", cast=int, default=[300, 3600, 21600, 86400])
PENDING_SECONDS = env.int("PENDING_SECONDS", 2 * 24 * 60 * 60)  # how long a saga waits for a gateway's word
PENDING_REFUND_DAYS = env.int("PENDING_REFUND_DAYS", 14)  # banks take up to ten days for a refund
# Before a hold ends: the storefront is warned, then it is canceled (or captured) while it still can be.
HOLD_WARNING_SECONDS = env.int("HOLD_WARNING_SECONDS", 48 * 60 * 60)
HOLD_ACTION_SECONDS = env.int("HOLD_ACTION_SECONDS", 2 * 60 * 60)
HOLD_ACTION = env.str("HOLD_ACTION", "cancel")
if HOLD_ACTION not in ("cancel", "capture"):  # a slip of the pen must not decide what becomes of money
    raise ImproperlyConfigured(
        f"HOLD_ACTION must be cancel or capture, not {HOLD_ACTION!r}; nothing was started."
    )
DISPUTE_WARNING_SECONDS = env.int("DISPUTE_WARNING_SECONDS", 72 * 60 * 60)
# Whether storefront webhooks may go to private addresses and plain http: a demo's own receiver lives there.
WEBHOOK_ALLOW_PRIVATE = env.bool("WEBHOOK_ALLOW_PRIVATE", not PRODUCTION)
# Public networks of our own, behind a NAT or a load balancer, where they must not go either.
WEBHOOK_REFUSED_NETWORKS: list[str] = env.list("WEBHOOK_REFUSED_NETWORKS", default=[])
for _network in WEBHOOK_REFUSED_NETWORKS:
    try:
        ip_network(_network)
    except ValueError as _error:
        raise ImproperlyConfigured(f"WEBHOOK_REFUSED_NETWORKS: {_error}; nothing was started.") from None
WEBHOOK_TIMEOUT_SECONDS = env.float("WEBHOOK_TIMEOUT_SECONDS", 15.0)  # for one whole delivery
WEBHOOKS_IN_FLIGHT = env.int("WEBHOOKS_IN_FLIGHT", 4)  # at one endpoint at once, over all workers

# --- on-call ------------------------------------------------------------------------------------------------
ONCALL_URL = env.str("ONCALL_URL", "")
ONCALL_EMAIL: list[str] = env.list("ONCALL_EMAIL", default=[])
RUNBOOK_URL = env.str("RUNBOOK_URL", "")  # a section's name is put behind it; empty: our own pages
_mail = env.email_url("EMAIL_URL", default="consolemail://")
EMAIL_BACKEND = _mail["EMAIL_BACKEND"]
EMAIL_HOST = _mail.get("EMAIL_HOST") or "localhost"
EMAIL_PORT = _mail.get("EMAIL_PORT") or 25
EMAIL_HOST_USER = _mail.get("EMAIL_HOST_USER") or ""
EMAIL_HOST_PASSWORD = _mail.get("EMAIL_HOST_PASSWORD") or ""
EMAIL_USE_TLS = bool(_mail.get("EMAIL_USE_TLS"))
EMAIL_USE_SSL = bool(_mail.get("EMAIL_USE_SSL"))
EMAIL_FILE_PATH = _mail.get("EMAIL_FILE_PATH") or ""
EMAIL_TIMEOUT = 10  # seconds
DEFAULT_FROM_EMAIL = env.str("EMAIL_FROM", "countinghouse@localhost")

# --- logs ---------------------------------------------------------------------------------------------------
LOG_JSON = env.bool("LOG_JSON", PRODUCTION)
LOG_LEVEL = env.str("LOG_LEVEL", "INFO")
LOGGING = logging_config(json=LOG_JSON, level=LOG_LEVEL)
SENTRY_DSN = env.str("SENTRY_DSN", "")
if SENTRY_DSN:
    import sentry_sdk  # only in the production lock

    sentry_sdk.init(SENTRY_DSN, send_default_pii=False, before_send=lambda event, hint: redact_data(event))
METRICS_TOKEN = env.str("METRICS_TOKEN", "")  # lets a scraper from elsewhere read /metrics in production
