# SPDX-License-Identifier: GPL-2.0-only
"""Runs the checks: pytest in processes of its own, results as data."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fsdeploy import run
from fsdeploy.errors import FsdeployError
from fsdeploy.verify.report import CheckResult, Expectation, HostReport, Outcome

_FOLDER = Path(__file__).resolve().parent
# pytest's own codes: 0 all passed, 1 some failed.
_PYTEST_RAN = (0, 1)
_COMMAND_LIMIT = 60.0  # seconds for one command on a host; a host has a few times that
# A process looks at one host after the other.
_HOSTS_A_PROCESS = 4
_MOST_PROCESSES = 16
# Seconds for a host and for a start, long enough for a busy control machine.
_HOST_LIMIT, _START_LIMIT = 600.0, 120.0


def parse_results(text: str, hosts: Mapping[str, Expectation]) -> tuple[HostReport, ...]:
    """From the lines that the checks wrote to a report a host."""
    checks: dict[str, list[CheckResult]] = {host: [] for host in hosts}
    silent: dict[str, str] = {}
    kernels: dict[str, str] = {}
    for line in text.splitlines():
        item = json.loads(line)
        if "kernel" in item:
            kernels[item["host"]] = item["kernel"]
            continue
        if not item["reached"]:
            # What it said first: later checks were not tried any more.
            silent.setdefault(item["host"], item["message"].removeprefix("unreachable: "))
            continue
        checks[item["host"]].append(
            CheckResult(
                item["host"],
                item["name"],
                item["title"],
                Outcome(item["outcome"]),
                item["required"],
                item["message"],
                item["group"],
                item["seconds"],
            )
        )
    return tuple(
        HostReport(
            host,
            # A host that went away between two checks did not answer either.
            host not in silent and bool(checks[host]),
            tuple(checks[host]),
            silent.get(host, ""),
            kernels.get(host, ""),
        )
        for host in hosts
    )


def _parts(hosts: Sequence[str]) -> list[list[str]]:
    """Which process looks at which hosts."""
    count = min(_MOST_PROCESSES, math.ceil(len(hosts) / _HOSTS_A_PROCESS))
    return [list(hosts[place::count]) for place in range(count)]


def _command(folder: Path, ssh_config: Path, limit: float, only: Sequence[str]) -> list[str | Path]:
    """The argument list of pytest, for what is in the folder."""
    return [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        _FOLDER / "pytest.ini",
        f"--rootdir={_FOLDER}",
        f"--fsdeploy-expected={folder / 'expected.json'}",
        f"--fsdeploy-ssh-config={ssh_config}",
        f"--fsdeploy-results={folder / 'results'}",
        f"--fsdeploy-limit={limit}",
        "-q",
        *(["-k", " or ".join(f"check_{name}" for name in only)] if only else []),
        *sorted(_FOLDER.glob("check_*.py")),
    ]


def run_checks(
    ssh_config: Path,
    expectations: Mapping[str, Expectation],
    *,
    log: Path | None = None,
    limit: float = _COMMAND_LIMIT,
    only: Sequence[str] = (),
) -> tuple[HostReport, ...]:
    """Run the shipped checks on hosts, a report each. FsdeployError when pytest could not work.

    `limit` is in seconds, for one command on a host. With `only`: those whose names begin so.
    """
    if not expectations:
        return ()
    with tempfile.TemporaryDirectory(prefix="fsdeploy-verify-") as name:
        parts = {
            Path(name) / str(number): hosts
            for number, hosts in enumerate(_parts(list(expectations)))
        }
        texts = []
        with contextlib.ExitStack() as stack:
            processes = {}
            for folder, hosts in parts.items():
                folder.mkdir()
                expected = {host: expectations[host].as_dict() for host in hosts}
                (folder / "expected.json").write_text(json.dumps(expected), encoding="utf-8")
                (folder / "results").touch()
                out = stack.enter_context((folder / "output").open("wb"))
                # On any way out, also by Ctrl-C, they are ended.
                processes[folder] = stack.enter_context(
                    run.running(
                        run.start(
                            _command(folder, ssh_config, limit, only),
                            env={
                                "PYTHONPATH": str(_FOLDER.parent.parent),
                                "PYTHONDONTWRITEBYTECODE": "1",
                            },
                            stdout=out,
                        )
                    )
                )
            most = max(len(hosts) for hosts in parts.values())
            deadline = time.monotonic() + _START_LIMIT + most * _HOST_LIMIT
            for folder, process in processes.items():
                code = run.wait(process, max(0.0, deadline - time.monotonic()))
                said = (folder / "output").read_text(encoding="utf-8", errors="replace")
                if log:
                    with log.open("a", encoding="utf-8") as record:
                        record.write(f"$ checks of {', '.join(parts[folder])}\n{said}")
                if code not in _PYTEST_RAN:
                    tail = " ".join(said.strip().splitlines()[-3:])
                    if code is None:
                        tail = f"no end of {', '.join(parts[folder])} in time"
                    raise FsdeployError(f"the checks could not run: {tail}", log=log)
                texts.append((folder / "results").read_text(encoding="utf-8"))
        return parse_results("".join(texts), expectations)
