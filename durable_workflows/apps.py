"""The app: registers checks and finds the project's `workflows` modules; starts nothing."""

from __future__ import annotations

from django.apps import AppConfig, apps
from django.utils.module_loading import autodiscover_modules


class DurableWorkflowsConfig(AppConfig):
    name = "durable_workflows"
    verbose_name = "Durable workflows"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from durable_workflows import checks  # noqa: F401  (registers itself)
        from durable_workflows.engine import process  # noqa: F401  (its receivers)
        from durable_workflows.engine.registry import registry

        registry.labeller = app_label
        autodiscover_modules("workflows")
        registry.resolve()  # two functions of one name stop the process here, not a worker later


def app_label(module: str) -> str:
    """Return the label of the longest installed app that contains a module, else the module."""
    homes = [
        config
        for config in apps.get_app_configs()
        if module == config.name or module.startswith(config.name + ".")
    ]
    return max(homes, key=lambda config: len(config.name)).label if homes else module
