"""The rules on what may stand where: layers, the one place for SQL, complete migrations."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.core.management import call_command

import durable_workflows

ROOT = Path(__file__).parent.parent
PACKAGE = Path(durable_workflows.__file__).parent

SQL = re.compile(
    r"\b(SELECT\b.+\bFROM|INSERT\s+INTO|UPDATE\s+\S+\s+SET|DELETE\s+FROM|LOCK\s+TABLE"
    r"|(CREATE|ALTER|DROP)\s+(TABLE|INDEX))\b",
    re.DOTALL,
)


def modules(*, but: tuple[str, ...] = ()) -> Iterator[tuple[str, ast.Module]]:
    """Yield each module's path inside the package and its syntax tree."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith(but):
            yield name, ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def sql_texts(tree: ast.Module) -> Iterator[ast.Constant]:
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if SQL.search(text):
                yield node


def test_layers_import_only_what_lies_below():
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]

    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_only_the_store_executes_sql():
    calls = [
        f"{name}:{node.lineno}"
        for name, tree in modules(but=("store/",))
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("execute", "executemany", "raw")
    ]
    assert calls == []


def test_only_the_store_has_sql_in_its_texts():
    texts = [
        f"{name}:{text.lineno}"
        for name, tree in modules(but=("store/", "migrations/"))
        for text in sql_texts(tree)
    ]
    assert texts == []


def test_only_the_store_and_the_checks_ask_which_database_it_is():
    asked = [
        f"{name}:{node.lineno}"
        for name, tree in modules(but=("store/__init__.py", "checks"))
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "vendor"
    ]
    assert asked == []


@pytest.mark.django_db
def test_migrations_are_complete(settings):
    settings.MIGRATION_MODULES = {}  # whatever --nomigrations has put there

    call_command("makemigrations", "durable_workflows", check_changes=True, dry_run=True)


@pytest.mark.parametrize(
    "text, found",
    [
        ("UPDATE workflow SET status = 'x'", True),
        ("SELECT 1\nFROM workflow", True),
        ("Select a workflow from the list", False),
        ("Update settings: paste the line", False),
    ],
)
def test_the_search_for_sql_knows_it_from_prose(text, found):
    assert bool(list(sql_texts(ast.parse(repr(text))))) is found
