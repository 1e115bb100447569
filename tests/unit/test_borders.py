"""The borders of the architecture, read off the imports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import fsdeploy

PACKAGE = Path(fsdeploy.__file__).parent
# What planning for hosts needs none of.
OTHERS = [f"fsdeploy.{room}" for room in ("bench", "cli", "fleet", "kernel", "lab", "verify")]
SOURCES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, at any depth."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def users(*modules: str) -> set[str]:
    """Files of the package that import one of the modules."""
    return {
        str(path.relative_to(PACKAGE))
        for path in SOURCES
        if any(
            name == module or name.startswith(module + ".")
            for name in imports(path)
            for module in modules
        )
    }


def test_one_place_starts_processes() -> None:
    assert users("subprocess", "multiprocessing", "pty") == {"run.py"}


def test_one_place_knows_the_terminal() -> None:
    assert users("rich", "curses", "getpass") == {"ui.py"}


def test_ssh_is_the_programs_own_business() -> None:
    """The OpenSSH binary's: one ssh_config for commands, playbooks and checks."""
    assert not users("asyncssh", "fabric", "paramiko")


@pytest.mark.parametrize(
    ("room", "must_not_know"),
    [
        ("bench", ["fsdeploy.fleet", "fsdeploy.verify", "fsdeploy.cli"]),
        (
            "kernel",
            [
                f"fsdeploy.{room}"
                for room in ("bench", "cli", "fleet", "lab", "repository", "verify")
            ],
        ),
        (
            "repository",
            [f"fsdeploy.{room}" for room in ("bench", "cli", "fleet", "lab", "verify")],
        ),
        ("lab", ["fsdeploy.bench", "fsdeploy.fleet", "fsdeploy.verify", "fsdeploy.cli"]),
        ("fleet", ["fsdeploy.bench", "fsdeploy.lab", "fsdeploy.cli"]),
        ("verify", ["fsdeploy.bench", "fsdeploy.lab", "fsdeploy.cli"]),
        ("services", OTHERS),
        ("tuning", OTHERS),
    ],
)
def test_dependencies_point_downwards(room: str, must_not_know: list[str]) -> None:
    inside = {str(path.relative_to(PACKAGE)) for path in (PACKAGE / room).rglob("*.py")}
    assert inside, f"no such room: {room}"
    assert not users(*must_not_know) & inside
