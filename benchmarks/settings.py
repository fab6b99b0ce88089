"""Django settings of the benchmark: nothing that a plain project does not have.

The engine runs at its defaults. The database is named by BENCH_DATABASE_URL:
`postgresql://…` or `sqlite:///absolute/path`.
"""

import os
from urllib.parse import unquote, urlsplit

SECRET_KEY = "only for the benchmark"
DEBUG = False
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "durable_workflows",
    "benchmarks",
]


def database(url):
    """Return the DATABASES entry for the URL."""
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": parts.path,
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
                "timeout": 20,
            },
        }
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.lstrip("/"),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": parts.port or "",
        "CONN_MAX_AGE": None,
    }


DATABASES = {"default": database(os.environ["BENCH_DATABASE_URL"])}
LOGGING_CONFIG = None
