# SPDX-License-Identifier: GPL-2.0-only
"""Runs the checks: pytest in a process of its own, results as data."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fsdeploy import run
from fsdeploy.errors import FsdeployError
from fsdeploy.verify.report import CheckResult, Expectation, HostReport, Outcome

_FOLDER = Path(__file__).resolve().parent
_TIMEOUT = 1800.0
# pytest's own codes: 0 all passed, 1 some failed.
_PYTEST_RAN = (0, 1)


def parse_results(text: str, hosts: Mapping[str, Expectation]) -> tuple[HostReport, ...]:
    """From the lines that the checks wrote to a report a host."""
    checks: dict[str, list[CheckResult]] = {host: [] for host in hosts}
    silent: dict[str, str] = {}
    for line in text.splitlines():
        item = json.loads(line)
        if not item["reached"]:
            silent[item["host"]] = item["message"].removeprefix("unreachable: ")
            continue
        checks[item["host"]].append(
            CheckResult(
                item["host"],
                item["name"],
                item["title"],
                Outcome(item["outcome"]),
                item["required"],
                item["message"],
            )
        )
    return tuple(
        HostReport(
            host,
            # A host that went away between two checks did not answer either.
            host not in silent and bool(checks[host]),
            tuple(checks[host]),
            silent.get(host, ""),
        )
        for host in hosts
    )


def run_checks(
    ssh_config: Path, expectations: Mapping[str, Expectation], *, log: Path | None = None
) -> tuple[HostReport, ...]:
    """Run the shipped checks on hosts, a report each. FsdeployError when pytest could not work."""
    if not expectations:
        return ()
    with tempfile.TemporaryDirectory(prefix="fsdeploy-verify-") as name:
        folder = Path(name)
        expected, results = folder / "expected.json", folder / "results"
        expected.write_text(
            json.dumps({host: item.as_dict() for host, item in expectations.items()}),
            encoding="utf-8",
        )
        results.touch()
        outcome = run.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-c",
                _FOLDER / "pytest.ini",
                f"--rootdir={_FOLDER}",
                f"--fsdeploy-expected={expected}",
                f"--fsdeploy-ssh-config={ssh_config}",
                f"--fsdeploy-results={results}",
                "-q",
                *sorted(_FOLDER.glob("check_*.py")),
            ],
            env={"PYTHONPATH": str(_FOLDER.parent.parent), "PYTHONDONTWRITEBYTECODE": "1"},
            log=log,
            check=False,
            timeout=_TIMEOUT,
        )
        if outcome.returncode not in _PYTEST_RAN:
            tail = " ".join(outcome.output.strip().splitlines()[-3:])
            raise FsdeployError(f"the checks could not run: {tail}", log=log)
        return parse_results(results.read_text(encoding="utf-8"), expectations)
