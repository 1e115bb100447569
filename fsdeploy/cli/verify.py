# SPDX-License-Identifier: GPL-2.0-only
"""`fsdeploy verify`: run the shipped checks on hosts."""

from __future__ import annotations

import argparse

from fsdeploy import ui
from fsdeploy.cli.hosts import add_hosts, add_json
from fsdeploy.fleet.verify import VerifyReport, VerifyRequest, verify_hosts
from fsdeploy.verify.report import Outcome


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_hosts(parser)
    parser.add_argument(
        "--expect",
        default="",
        metavar="RELEASE",
        help="the kernel that must run and be the default (default: what the journal says)",
    )
    add_json(parser)


def show(report: VerifyReport) -> None:
    """A line a check that did not pass, then a table with a line a host."""
    rows = []
    for host in report.hosts:
        bad = [check for check in host.checks if check.outcome is Outcome.FAILED]
        failed = [check for check in bad if check.required]
        for check in bad:
            word = "failed" if check.required else "wanted"
            ui.say(f"{host.host}: {word}: {check.title.rstrip('.')}: {check.message}")
        passed = sum(check.outcome is Outcome.PASSED for check in host.checks)
        skipped = sum(check.outcome is Outcome.SKIPPED for check in host.checks)
        state = "ok" if host.ok else ("failed" if host.reached else "unreachable")
        counts = f"{passed} passed, {len(failed)} failed, {skipped} not applicable"
        if len(bad) > len(failed):
            counts += f", {len(bad) - len(failed)} wanted only"
        wanted = report.expected[host.host].release or "any kernel"
        rows.append((host.host, state, wanted, counts if host.reached else host.message))
    ui.table("verification", ("host", "state", "expected", "checks"), rows)
    ui.note(f"log: {report.log}")


def main(args: argparse.Namespace) -> int:
    """Run it."""
    report = verify_hosts(VerifyRequest(args.inventory, args.expect, tuple(args.limit)))
    if args.json:
        ui.emit_json(report.as_dict())
    else:
        show(report)
    return int(report.exit_code)
