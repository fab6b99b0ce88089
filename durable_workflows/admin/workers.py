"""Worker processes, the live ones first."""

from django.contrib import admin

from durable_workflows.admin.readonly import ReadOnlyAdmin
from durable_workflows.models import Worker


@admin.register(Worker)
class WorkerAdmin(ReadOnlyAdmin):
    list_display = ["id", "kind", "state", "host", "pid", "app_version", "started_at", "beat_at"]
    list_filter = ["state", "kind"]
    search_fields = ["host"]
    ordering = ["-id"]
