"""What a user installs: the wheel holds all that the package needs, and nothing else.

In a checkout the wheel is built here. Where the suite runs beside an installed
wheel, as on CI, the installed files are looked at.
"""

import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "durable_workflows"
DISTRIBUTION = "django-durable-workflows"
DATA = {".html", ".css", ".js", ".svg", ".typed"}


@pytest.fixture(scope="module")
def shipped(tmp_path_factory) -> set[str]:
    """Return the names of the files in the wheel."""
    if not SOURCE.exists():
        return {str(file) for file in metadata.files(DISTRIBUTION) or []}
    directory = tmp_path_factory.mktemp("wheel")
    # No isolation: the extra `test` brings the build system, and no network is needed.
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    # Built from a copy, so that a stale build/ can't add what was deleted.
    copy = directory / "source"
    copy_source(copy)
    subprocess.run([*command, "-w", directory, copy], check=True, capture_output=True)
    (wheel,) = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def copy_source(destination: Path) -> None:
    destination.mkdir()
    names = ["setup.cfg", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"]
    for path in [*(ROOT / name for name in names), *SOURCE.rglob("*")]:
        if path.is_file() and "__pycache__" not in path.parts:
            target = destination / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())


@pytest.mark.parametrize(
    "name",
    [
        "__init__.py",
        "py.typed",
        "migrations/__init__.py",
        "migrations/0001_initial.py",
        "management/commands/runworker.py",
    ],
)
def test_the_wheel_carries(shipped, name):
    assert f"durable_workflows/{name}" in shipped


def test_the_wheel_carries_every_file_of_the_source(shipped):
    if not SOURCE.exists():
        pytest.skip("an installed wheel has no source to compare with")
    source = {
        path.relative_to(ROOT).as_posix()
        for path in SOURCE.rglob("*")
        if path.suffix in DATA | {".py"}
    }
    assert source - shipped == set()


def test_the_wheel_carries_nothing_but_the_package(shipped):
    tops = {name.partition("/")[0] for name in shipped if "__pycache__" not in name}
    assert all(top == "durable_workflows" or top.endswith(".dist-info") for top in tops), tops


def test_the_metadata_name_the_supported_versions():
    about = metadata.metadata(DISTRIBUTION)
    assert about["Requires-Python"] == ">=3.11"
    assert any(line.startswith("Django>=5.2") for line in metadata.requires(DISTRIBUTION))
