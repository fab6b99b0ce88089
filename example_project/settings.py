"""The example shop's settings. Nothing needs to be set; each value can be, by environment.

DATABASE_URL   SQLite in var/ by default; postgresql://user:password@host/name
GATEWAY_URL    where the payment gateway listens
EMAIL_BACKEND  the console by default; with EMAIL_FILE_PATH the file backend is useful, too
"""

from pathlib import Path

import django
import environ

BASE_DIR = Path(__file__).resolve().parent
VAR_DIR = BASE_DIR / "var"
VAR_DIR.mkdir(exist_ok=True)

env = environ.Env()

DEBUG = env.bool("DEBUG", default=True)
SECRET_KEY = env("SECRET_KEY", default="only-for-development-and-the-demo")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])

DATABASES = {"default": env.db("DATABASE_URL", default=f"sqlite:///{VAR_DIR / 'shop.sqlite3'}")}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # Readers beside one writer, and a writer that takes its turn at BEGIN.
    DATABASES["default"]["OPTIONS"] = {
        "timeout": 20,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "durable_workflows",
    "example_project.orders",
]

DURABLE_WORKFLOWS = {"LEASE_SECONDS": env.float("DURABLE_LEASE_SECONDS", default=30.0)}

# The payment gateway, example_project/gateway.py in a process of its own.
GATEWAY_URL = env("GATEWAY_URL", default="http://127.0.0.1:8800")

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
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
            ],
        },
    },
]
ROOT_URLCONF = "example_project.urls"
WSGI_APPLICATION = "example_project.wsgi.application"
STATIC_URL = "static/"
STATIC_ROOT = VAR_DIR / "static"

LANGUAGE_CODE = "en-us"
TIME_ZONE = env("TIME_ZONE", default="UTC")
USE_TZ = True

EMAIL_BACKEND_CLASS = env("EMAIL_BACKEND", default="django.core.mail.backends.console.EmailBackend")
EMAIL_DIRECTORY = env("EMAIL_FILE_PATH", default=str(VAR_DIR / "mail"))
if django.VERSION >= (6, 1):
    writes_files = EMAIL_BACKEND_CLASS.endswith("filebased.EmailBackend")
    MAILERS = {
        "default": {
            "BACKEND": EMAIL_BACKEND_CLASS,
            "OPTIONS": {"file_path": EMAIL_DIRECTORY} if writes_files else {},
        }
    }
else:
    EMAIL_BACKEND = EMAIL_BACKEND_CLASS
    EMAIL_FILE_PATH = EMAIL_DIRECTORY
DEFAULT_FROM_EMAIL = "shop@example.com"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "{asctime} {levelname:<7} {name}: {message}", "style": "{"},
    },
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {
        "durable_workflows": {"level": env("LOG_LEVEL", default="INFO")},
        "example_project": {"level": env("LOG_LEVEL", default="INFO")},
    },
}
