"""manage.py runworker: run workflows until told to stop."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.conf import settings as django_settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connections
from django.utils import autoreload

from durable_workflows.conf import settings
from durable_workflows.core.names import check_name
from durable_workflows.errors import InvalidName
from durable_workflows.worker.banner import banner, problems
from durable_workflows.worker.main import Main
from durable_workflows.worker.supervisor import Supervisor
from durable_workflows.worker.worker import Orders


class Command(BaseCommand):
    help = "Runs durable workflows."

    def add_arguments(self, parser: ArgumentParser) -> None:
        defaults = settings()
        parser.add_argument("--queues", help="Names by comma; the default is all.")
        parser.add_argument(
            "--threads", type=int, default=defaults.threads, help="For def workflows."
        )
        parser.add_argument(
            "--async-slots", type=int, default=defaults.async_slots, help="For async def workflows."
        )
        parser.add_argument("--processes", type=int, default=1, help="Worker processes to keep up.")
        parser.add_argument("--drain", action="store_true", help="End when nothing is left to run.")
        parser.add_argument(
            "--grace", type=float, default=30.0, help="Seconds that steps get to finish at the end."
        )
        parser.add_argument(
            "--check", action="store_true", help="Say whether everything fits, and exit."
        )
        parser.add_argument(
            "--reload",
            action="store_true",
            default=None,
            help="Restart when code changes; the default under DEBUG.",
        )
        parser.add_argument("--no-reload", dest="reload", action="store_false")

    def handle(self, *args: Any, **options: Any) -> None:
        orders = self._orders(options)
        if options["check"]:
            self._check(orders)
            return
        if options["processes"] > 1:
            sys.exit(
                Supervisor(_one_process(), options["processes"], drains=options["drain"]).run()
            )
        reload = options["reload"]
        if reload is None:
            reload = django_settings.DEBUG and not options["drain"]
        if reload:
            autoreload.run_with_reloader(self._run, orders, False)
        else:
            self._run(orders, options["drain"])

    def _orders(self, options: dict[str, Any]) -> Orders:
        for name in ("threads", "async_slots"):
            if options[name] < 0:
                raise CommandError(f"--{name.replace('_', '-')} can't be negative.")
        if options["threads"] + options["async_slots"] == 0:
            raise CommandError("A worker without threads and without async slots runs nothing.")
        if options["processes"] < 1:
            raise CommandError("--processes is at least 1.")
        if not options["grace"] >= 0:
            raise CommandError("--grace can't be negative.")
        queues = None
        if options["queues"] is not None:
            queues = tuple(name.strip() for name in options["queues"].split(",") if name.strip())
            if not queues:
                raise CommandError("--queues names no queue; leave it out for all of them.")
            try:
                for name in queues:
                    check_name(name, "A queue name")
            except InvalidName as error:
                raise CommandError(f"--queues: {error}") from error
        return Orders(
            "worker", queues, options["threads"], options["async_slots"], options["grace"]
        )

    def _run(self, orders: Orders, drain: bool) -> None:
        for line in banner(orders):
            self.stdout.write(line)
        self.stdout.flush()
        main = Main(orders, drain=drain)
        connections.close_all()
        main.run()

    def _check(self, orders: Orders) -> None:
        for line in banner(orders):
            self.stdout.write(line)
        if found := problems(orders):
            for problem in found:
                self.stderr.write(self.style.ERROR(problem))
            sys.exit(1)
        self.stdout.write(self.style.SUCCESS("Everything fits."))


def _one_process() -> list[str]:
    """Return this command line for one of several processes."""
    # The last word counts, however the first one was abbreviated: a child that supervised
    # children of its own would not be the last.
    return [
        sys.executable,
        *sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv)],
        *sys.argv,
        "--processes=1",
        "--no-reload",
    ]
