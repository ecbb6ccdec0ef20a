"""The look of the admin: the theme's settings, and nothing but settings."""

from __future__ import annotations

from typing import Any

from django.templatetags.static import static

UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "Countinghouse",
    "SITE_HEADER": "Countinghouse",
    "SITE_SUBHEADER": "Payments back office",
    "SITE_SYMBOL": "account_balance",
    "SITE_URL": None,
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("backoffice/favicon.svg")},
    ],
    "SHOW_BACK_BUTTON": True,
    "ENVIRONMENT": "config.site.show_environment",
    "DASHBOARD_CALLBACK": "config.dashboard.show_dashboard",
    "STYLES": [lambda request: static("backoffice/backoffice.css")],
    "SCRIPTS": [lambda request: static("backoffice/backoffice.js")],
    # The theme's own model search loads every match of a table.
    "COMMAND": {
        "search_callback": "config.search.find_results",
        "search_models": False,
        "show_history": False,
    },
    "SIDEBAR": {
        "show_search": True,
        "command_search": True,
        "show_all_applications": False,
        "navigation": "config.navigation.build_navigation",
    },
    "COLORS": {
        "primary": {
            "50": "#eef6f4",
            "100": "#d5e9e4",
            "200": "#aed4cb",
            "300": "#7db9ac",
            "400": "#6cb8a9",
            "500": "#43a08f",
            "600": "#27665b",
            "700": "#21534b",
            "800": "#1d433d",
            "900": "#1a3834",
            "950": "#0b201d",
        },
    },
}
