"""App configurations of the site itself."""

from __future__ import annotations

from django.apps import AppConfig
from django.contrib.admin.apps import AdminConfig


class BackOfficeAdminConfig(AdminConfig):
    default_site = "config.site.BackOfficeSite"


class SiteConfig(AppConfig):
    name = "config"
    verbose_name = "Countinghouse"
