# SPDX-License-Identifier: GPL-2.0-only
"""The pytest side of the checks: which hosts, what is expected, where results go."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import testinfra

from fsdeploy.verify.report import Expectation

_SSH_FAILED = 255
_TIMEOUT_ENDED = 124  # timeout(1) ended the command
_SLOW_COMMANDS = 5  # so many times the limit of one command is the limit of a host


def pytest_addoption(parser: pytest.Parser) -> None:
    """The files that suite.py writes and reads."""
    group = parser.getgroup("fsdeploy")
    group.addoption("--fsdeploy-expected", help="JSON file: expectation by host name")
    group.addoption("--fsdeploy-ssh-config", help="ssh_config that says where the hosts are")
    group.addoption("--fsdeploy-results", help="file that gets one JSON object a check")
    group.addoption("--fsdeploy-limit", type=float, help="seconds for one command on a host")


class Silent(Exception):
    """The host does not answer over SSH, or stopped to."""


class TooSlow(Exception):
    """A command did not end in time."""


def _expected(config: pytest.Config) -> dict[str, dict[str, Any]]:
    name = config.getoption("--fsdeploy-expected")
    loaded: dict[str, dict[str, Any]] = json.loads(Path(name).read_text(encoding="utf-8"))
    return loaded


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every check runs on every host."""
    if "machine" in metafunc.fixturenames:
        names = list(_expected(metafunc.config))
        metafunc.parametrize("machine", names, indirect=True, scope="session")


def _limit(host: Any, limit: float) -> None:
    """Give each command of a host a time limit, and all of them together.

    One that hangs (a dead network file system, a locked package database) fails its check; a host
    on which they all do must not hold up the others for the whole number of checks.
    """
    backend = host.backend
    run_here = backend.run_local
    deadline = time.monotonic() + _SLOW_COMMANDS * limit
    lost: list[str] = []

    def run_local(command: str, *args: str) -> Any:
        if lost:
            raise Silent(lost[0])
        seconds = min(limit, deadline - time.monotonic())
        if seconds <= 0:
            raise TooSlow("not tried: the checks before it took too long")
        answer = run_here(f"timeout -k 5 {seconds:.1f} {command}", *args)
        if answer.rc == _SSH_FAILED:
            said = answer.stderr.strip().splitlines()
            lost.append(f"unreachable: {said[-1] if said else 'no answer'}")
            raise Silent(lost[0])
        if answer.rc == _TIMEOUT_ENDED:
            raise TooSlow(f"a command did not end within {seconds:.0f} s: {args[-1]}")
        return answer

    backend.run_local = run_local


@pytest.fixture(scope="session")
def machine(request: pytest.FixtureRequest) -> Any:
    """The host under check; a host that does not answer fails here, before any check."""
    config = request.config
    ssh_config = config.getoption("--fsdeploy-ssh-config")
    host = testinfra.get_host(f"ssh://{request.param}", ssh_config=ssh_config)
    _limit(host, config.getoption("--fsdeploy-limit"))
    try:
        kernel = host.run("uname -r").stdout.strip()
    except TooSlow as problem:
        raise Silent(f"unreachable: {problem}") from None
    _record(config, {"host": request.param, "kernel": kernel})
    return host


def _record(config: pytest.Config, line: dict[str, Any]) -> None:
    with Path(config.getoption("--fsdeploy-results")).open("a", encoding="utf-8") as out:
        out.write(json.dumps(line) + "\n")


@pytest.fixture
def expected(request: pytest.FixtureRequest) -> Expectation:
    """What the host should look like."""
    name = request.node.callspec.params["machine"]
    return Expectation(**_expected(request.config)[name])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Write a check's result as it ends."""
    report = yield
    failed_early = report.when == "setup" and report.outcome != "passed"
    if report.when != "call" and not failed_early:
        return report
    function = getattr(item, "function", None)
    problem = call.excinfo.value if call.excinfo else None
    lines = str(problem).strip().splitlines() if problem is not None else []
    message = lines[0] if lines else ""
    line = {
        "host": item.callspec.params["machine"],  # type: ignore[attr-defined]
        "name": function.__name__.removeprefix("check_") if function else item.name,
        "title": (function.__doc__ or "").strip().splitlines()[0] if function else item.name,
        "group": item.path.stem.removeprefix("check_"),
        "outcome": report.outcome,
        "required": item.get_closest_marker("wanted") is None,
        "message": message.removeprefix("assert ").strip(),
        "seconds": round(report.duration, 3),
        "reached": not isinstance(problem, Silent),
    }
    _record(item.config, line)
    return report


def pytest_configure(config: pytest.Config) -> None:
    """Name our marker."""
    config.addinivalue_line("markers", "wanted: told when it fails, but fails nothing")
