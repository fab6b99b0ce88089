"""The suite's settings: one run tests one database.

DURABLE_TEST_DB       sqlite (the default) or postgresql
DATABASE_URL          the database itself; without it, or where it names the other kind, SQLite
                      takes a file in a temporary directory and PostgreSQL a throw-away server
DURABLE_TEST_USE_TZ   0 runs the suite with naive datetimes
DURABLE_TEST_TIME_ZONE  another zone than UTC
DURABLE_TEST_SETTINGS   DURABLE_WORKFLOWS as JSON, for processes that a test starts

Both of the first two are put into the environment, so a process that a test
starts meets the same database.
"""

import atexit
import json
import os
import shutil
import tempfile
from pathlib import Path

import django
import environ

from tests import throwaway_postgres

URL = os.environ.get("DATABASE_URL", "")
KIND = os.environ.get("DURABLE_TEST_DB") or (
    "postgresql" if URL.startswith("postgres") else "sqlite"
)
if KIND not in ("sqlite", "postgresql"):
    raise ValueError(f"DURABLE_TEST_DB is {KIND!r}; it can be sqlite or postgresql.")
os.environ["DURABLE_TEST_DB"] = KIND


def temporary_directory() -> Path:
    """Return a directory that is removed when this process, not a fork of it, ends."""
    path, maker = tempfile.mkdtemp(prefix="durable-tests-"), os.getpid()
    atexit.register(
        lambda: shutil.rmtree(path, ignore_errors=True) if os.getpid() == maker else None
    )
    return Path(path)


def sqlite(path: str | Path) -> dict:
    """Return a SQLite database as the system checks ask for it, also while under test.

    A file, because threads and other processes have to see it.
    """
    path = Path(path)
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        "TEST": {"NAME": str(path.with_name(f"test_{path.name}"))},
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
        },
    }


def default_database() -> dict:
    if KIND == "postgresql":
        return environ.Env.db_url_config(throwaway_postgres.url_for_this_process())
    if not URL.startswith("sqlite:"):
        os.environ["DATABASE_URL"] = f"sqlite:///{temporary_directory() / 'default.sqlite3'}"
    return sqlite(environ.Env.db_url_config(os.environ["DATABASE_URL"])["NAME"])


DATABASES = {"default": default_database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.admin",
    "durable_workflows",
    "example_project.orders",
    "tests",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "tests.urls"
STATIC_URL = "static/"
SECRET_KEY = "for tests only"
ALLOWED_HOSTS = ["*"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

USE_TZ = os.environ.get("DURABLE_TEST_USE_TZ", "1") != "0"
TIME_ZONE = os.environ.get("DURABLE_TEST_TIME_ZONE", "UTC")

DURABLE_WORKFLOWS: dict = json.loads(os.environ.get("DURABLE_TEST_SETTINGS", "{}"))

if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": "django.core.mail.backends.locmem.EmailBackend"}}
