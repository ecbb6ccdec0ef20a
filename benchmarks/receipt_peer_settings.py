"""Settings of the bare peer: a database and one address, no middleware at all."""

import os

import environ

SECRET_KEY = "x" * 64
ROOT_URLCONF = "benchmarks.receipt_peer"
ALLOWED_HOSTS = ["*"]
MIDDLEWARE: list[str] = []
INSTALLED_APPS: list[str] = []
DATABASES = {"default": {**environ.Env.db_url_config(os.environ["DATABASE_URL"]), "CONN_MAX_AGE": 600}}
USE_TZ = True
