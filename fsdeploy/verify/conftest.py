# SPDX-License-Identifier: GPL-2.0-only
"""The pytest side of the checks: which hosts, what is expected, where results go."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import testinfra

from fsdeploy.verify.report import Expectation


def pytest_addoption(parser: pytest.Parser) -> None:
    """The files that suite.py writes and reads."""
    group = parser.getgroup("fsdeploy")
    group.addoption("--fsdeploy-expected", help="JSON file: expectation by host name")
    group.addoption("--fsdeploy-ssh-config", help="ssh_config that says where the hosts are")
    group.addoption("--fsdeploy-results", help="file that gets one JSON object a check")


def _expected(config: pytest.Config) -> dict[str, dict[str, Any]]:
    name = config.getoption("--fsdeploy-expected")
    loaded: dict[str, dict[str, Any]] = json.loads(Path(name).read_text(encoding="utf-8"))
    return loaded


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every check runs on every host."""
    if "machine" in metafunc.fixturenames:
        names = list(_expected(metafunc.config))
        metafunc.parametrize("machine", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def machine(request: pytest.FixtureRequest) -> Any:
    """The host under check; a host that does not answer fails here, before any check."""
    config = request.config.getoption("--fsdeploy-ssh-config")
    host = testinfra.get_host(f"ssh://{request.param}", ssh_config=config)
    try:
        answer = host.run("true")
    except RuntimeError as problem:
        # testinfra raises with the result of ssh itself.
        said = str(getattr(problem.args[0], "stderr", problem)).strip().splitlines()
        pytest.fail(f"unreachable: {said[-1] if said else 'no answer'}", pytrace=False)
    if answer.rc != 0:
        pytest.fail(f"unreachable: {answer.stderr.strip()}", pytrace=False)
    return host


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
        "outcome": report.outcome,
        "required": item.get_closest_marker("wanted") is None,
        "message": message.removeprefix("assert ").strip(),
        "reached": not (failed_early and "unreachable" in message),
    }
    with Path(item.config.getoption("--fsdeploy-results")).open("a", encoding="utf-8") as out:
        out.write(json.dumps(line) + "\n")
    return report


def pytest_configure(config: pytest.Config) -> None:
    """Name our marker."""
    config.addinivalue_line("markers", "wanted: told when it fails, but fails nothing")
