"""The linters, run as tests: what they find is a failure like any other."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fsdeploy import run

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
LINT_BIN = ROOT / ".venv-lint" / "bin"


def tracked(*patterns: str) -> list[Path]:
    """Files git tracks, or would, that match the patterns."""
    listed = run.run(
        ["git", "ls-files", "-co", "--exclude-standard", "--", *patterns], cwd=ROOT
    ).output.splitlines()
    return [ROOT / name for name in listed if (ROOT / name).is_file()]


def clean(*argv: str | Path, env: dict[str, str] | None = None) -> None:
    ended = run.run(argv, cwd=ROOT, check=False, env=env)
    if ended.returncode != 0:
        pytest.fail(ended.output, pytrace=False)


def test_ruff_finds_nothing() -> None:
    clean(BIN / "ruff", "check", ".")


def test_code_is_formatted() -> None:
    clean(BIN / "ruff", "format", "--check", ".")


def test_types_hold() -> None:
    clean(BIN / "mypy")


def test_yaml_is_clean() -> None:
    clean(BIN / "yamllint", "--strict", *tracked("*.yml", "*.yaml"))


def test_playbooks_are_clean() -> None:
    if not (LINT_BIN / "ansible-lint").exists():
        pytest.skip("ansible-lint is not installed: make lint sets it up")
    # It shells out to ansible-playbook of its own environment, found on PATH.
    path = f"{LINT_BIN}:/usr/local/bin:/usr/bin:/bin"
    # Ansible does not start in a locale without UTF-8.
    env = {"PATH": path, "LC_ALL": "C.UTF-8"}
    clean(LINT_BIN / "ansible-lint", "--offline", "--strict", "playbooks", env=env)


def test_shell_scripts_are_clean() -> None:
    scripts = [
        path
        for path in tracked()
        if path.suffix == ".sh"
        or (
            path.suffix == ""
            and path.read_bytes()[:20].startswith((b"#!/bin/sh", b"#!/usr/bin/env bash"))
        )
    ]
    assert scripts
    clean("shellcheck", *scripts)


def test_host_code_runs_on_python_2_6() -> None:
    modules = tracked(
        "playbooks/**/library/*.py", "playbooks/library/*.py", "playbooks/module_utils/*.py"
    )
    assert modules
    clean(BIN / "vermin", "--no-tips", "-t=2.6-", "-t=3.0-", "--violations", *modules)
