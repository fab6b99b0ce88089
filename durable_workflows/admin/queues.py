"""Queues, with their limits."""

from django.contrib import admin

from durable_workflows.admin.readonly import ReadOnlyAdmin
from durable_workflows.models import Queue


@admin.register(Queue)
class QueueAdmin(ReadOnlyAdmin):
    list_display = ["name", "concurrency", "worker_concurrency", "hold", "paused"]
    list_filter = ["paused", "hold"]
    search_fields = ["name"]
    ordering = ["name"]
