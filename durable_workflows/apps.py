"""The app: registers checks and finds the project's `workflows` modules; starts nothing."""

from django.apps import AppConfig
from django.utils.module_loading import autodiscover_modules


class DurableWorkflowsConfig(AppConfig):
    name = "durable_workflows"
    verbose_name = "Durable workflows"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        autodiscover_modules("workflows")
