"""docs/guarantees.md names tests; they are there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent


def test_every_guarantee_names_a_test_that_exists():
    text = (ROOT.parent / "docs" / "guarantees.md").read_text()
    promised = set(re.findall(r"`(test_\w+)`", text))
    there = {
        node.name
        for path in ROOT.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }

    assert promised
    assert promised <= there, sorted(promised - there)


def test_every_row_of_a_table_of_guarantees_names_a_test():
    text = (ROOT.parent / "docs" / "guarantees.md").read_text()
    rows = [
        line for line in text.splitlines() if line.startswith("| ") and "guarantee |" not in line
    ]

    assert all("`test_" in row for row in rows), [row for row in rows if "`test_" not in row]
