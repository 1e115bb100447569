# SPDX-License-Identifier: GPL-2.0-only
"""Verifies hosts: takes what is expected from the journal and runs the shipped checks."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsdeploy import ui
from fsdeploy.errors import ExitCode, exit_code_of
from fsdeploy.fleet.drive import new_log
from fsdeploy.fleet.inventory import load_inventory
from fsdeploy.fleet.journal import HostRecord, Journal
from fsdeploy.fleet.package import is_patched
from fsdeploy.fleet.services import expected_services
from fsdeploy.fleet.states import State
from fsdeploy.fleet.transport import session
from fsdeploy.fleet.tuning import expected_settings
from fsdeploy.verify.report import Expectation, HostReport
from fsdeploy.verify.suite import run_checks


@dataclass(frozen=True)
class VerifyRequest:
    """What to verify; `expect` is the release that must run and be the default."""

    inventory: Path
    expect: str = ""
    limit: tuple[str, ...] = ()


@dataclass(frozen=True)
class VerifyReport:
    """The checks of every host."""

    hosts: tuple[HostReport, ...]
    expected: Mapping[str, Expectation]
    seconds: float
    log: Path

    @property
    def exit_code(self) -> ExitCode:
        """3 when a host does not answer, else 1 when a required check failed, else 0."""
        return exit_code_of(self.hosts)

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "exit_code": int(self.exit_code),
            "seconds": round(self.seconds, 1),
            "log": str(self.log),
            "hosts": [
                {
                    "host": host.host,
                    "reached": host.reached,
                    "ok": host.ok,
                    "state": host.state,
                    "kernel": host.kernel,
                    "message": host.message,
                    "expected": self.expected[host.host].as_dict(),
                    "checks": [
                        {
                            "group": check.group,
                            "name": check.name,
                            "title": check.title,
                            "outcome": str(check.outcome),
                            "required": check.required,
                            "message": check.message,
                            "seconds": check.seconds,
                        }
                        for check in host.checks
                    ],
                }
                for host in self.hosts
            ],
        }


def expectation_for(record: HostRecord | None, release: str, expect: str = "") -> Expectation:
    """What a host should look like, from its last record and the release of that rollout.

    A promoted host runs the rollout's release, and so does one that was only verified, every other
    the kernel it had before. `expect` overrides the release; without a record and without it
    nothing of the kind is expected.
    """
    facts = record.facts if record else {}
    previous = str(facts.get("previous", ""))
    if record and record.state is State.PROMOTED:
        wanted = expect or release
    else:
        wanted = expect or previous
    if record and record.state is State.VERIFIED and not expect:
        # A rollout stopped before the promotion: the new kernel runs, the next boot leads back.
        return Expectation(release, previous, previous, is_patched(release))
    # The other kernel of the last rollout must stay bootable, unless the rollout took it away.
    other = previous if wanted == release else ""
    if record and record.state is not State.PROMOTED and facts.get("back_from"):
        other = str(facts["back_from"]) if wanted != facts["back_from"] else previous
    return Expectation(wanted, wanted, other, is_patched(wanted))


def verify_hosts(request: VerifyRequest, *, journal: Journal | None = None) -> VerifyReport:
    """Run the shipped checks on hosts; changes nothing on them."""
    began = time.monotonic()
    inventory = load_inventory(request.inventory).limited(request.limit)
    book = journal or Journal.to_read()
    try:
        expected = {}
        for name in inventory.names:
            record = book.latest_touched(name)
            release = book.rollout(record.rollout).release if record else ""
            expected[name] = dataclasses.replace(
                expectation_for(record, release, request.expect),
                tuning=expected_settings(name),
                services=expected_services(name),
            )
    finally:
        if journal is None:
            book.close()
    log = new_log("verify")
    many = len(expected)
    with (
        ui.step(f"checking {many} host{'s' if many != 1 else ''}"),
        session(inventory, log=log) as ssh,
    ):
        reports = tuple(
            report
            if report.reached
            else dataclasses.replace(report, message=ssh.reason(report.host, report.message))
            for report in run_checks(ssh.config, expected, log=log)
        )
    return VerifyReport(reports, expected, time.monotonic() - began, log)
