# SPDX-License-Identifier: GPL-2.0-only
"""`fsdeploy verify`: run the shipped checks on hosts."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from fsdeploy import ui
from fsdeploy.cli.hosts import add_hosts, add_json
from fsdeploy.errors import FsdeployError
from fsdeploy.fleet.verify import VerifyReport, VerifyRequest, verify_hosts
from fsdeploy.verify.report import HostReport, Outcome, findings, silent, states

# With more hosts the terminal lists only those that are not well; the files have them all.
_LISTED = 40
_NAMED = 6  # hosts that are named for one message
_MESSAGES = 5  # messages that are told for one check


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
    for option, what in (
        ("--json-lines", "also write a line of JSON for each check of each host"),
        ("--junit", "also write JUnit XML, for a CI system: a suite a host, a case a check"),
        ("--html", "also write one page that needs nothing else, to be read, mailed or printed"),
    ):
        parser.add_argument(option, type=Path, metavar="FILE", help=what)


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _say_grouped(title: str, said: Mapping[str, Sequence[str]]) -> None:
    """What is wrong, then each message with those who said it."""
    ui.say(title)
    for message, names in list(said.items())[:_MESSAGES]:
        ui.say(f"  {message}: {_some(names)}")
    if len(said) > _MESSAGES:
        rest = sum(len(names) for names in list(said.values())[_MESSAGES:])
        ui.say(f"  and {len(said) - _MESSAGES} other messages, of {rest} hosts")


def _checks(host: HostReport) -> str:
    if not host.reached:
        return host.message or "no answer"
    text = (
        f"{host.count(Outcome.PASSED)} passed,"
        f" {host.count(Outcome.FAILED, required=True)} failed,"
        f" {host.count(Outcome.SKIPPED)} not applicable"
    )
    wanted = host.count(Outcome.FAILED, required=False)
    return text + (f", {wanted} wanted only" if wanted else "")


def show(report: VerifyReport) -> None:
    """A line a host, then what is wrong by check, then the counts. Few hosts or many."""
    hosts = report.hosts
    listed = [host for host in hosts if len(hosts) <= _LISTED or not host.ok]
    if listed:
        ui.table(
            "verification",
            ("host", "state", "runs", "expected", "checks"),
            [
                (
                    host.host,
                    host.state,
                    host.kernel,
                    report.expected[host.host].release or "any kernel",
                    _checks(host),
                )
                for host in listed[:_LISTED]
            ],
        )
    if len(listed) > _LISTED:
        ui.say(f"and {len(listed) - _LISTED} more that are not ok; --html FILE has all")
    if unreached := silent(hosts):
        many = sum(len(names) for names in unreached.values())
        _say_grouped(f"unreachable: {many} of {len(hosts)} hosts", unreached)
    for finding in findings(hosts):
        word = "failed" if finding.required else "wanted, and not so,"
        _say_grouped(
            f"{word} on {finding.count} of {len(hosts)} hosts: {finding.title}", finding.hosts
        )
    counts = ", ".join(f"{count} {state}" for state, count in states(hosts).items())
    ui.say(f"{len(hosts)} host{'s' if len(hosts) != 1 else ''}: {counts}")
    ui.note(f"log: {report.log}")


def json_lines(report: VerifyReport) -> str:
    """One object a check; one without a check for a host that does not answer."""
    lines = []
    for host in report.as_dict()["hosts"]:
        of_host = {"host": host["host"], "state": host["state"], "kernel": host["kernel"]}
        if not host["reached"]:
            lines.append({**of_host, "check": None, "message": host["message"]})
        for check in host["checks"]:
            name = {"check": check["name"]}
            rest = {key: value for key, value in check.items() if key != "name"}
            lines.append({**of_host, **name, **rest})
    return "".join(json.dumps(line) + "\n" for line in lines)


def _write(report: VerifyReport, args: argparse.Namespace, began: float) -> None:
    """The files that were asked for."""
    if args.json_lines:
        args.json_lines.write_text(json_lines(report), encoding="utf-8")
    if args.junit:
        from fsdeploy.verify.junit import junit_xml

        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(began))
        text = junit_xml(report.hosts, report.expected, stamp, report.seconds)
        args.junit.write_text(text, encoding="utf-8")
    if args.html:
        from fsdeploy.verify.page import html_page

        when = time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(began))
        page = html_page(report.hosts, report.expected, when, ui.duration(report.seconds))
        args.html.write_text(page, encoding="utf-8")


def _require_writable(path: Path) -> None:
    """A report that cannot be written is told before the hosts are asked."""
    there = path if path.exists() else path.parent
    if path.is_dir() or not there.exists() or not os.access(there, os.W_OK):
        raise FsdeployError(
            f"{path} cannot be written", hint="name a file in a folder that is there"
        )


def main(args: argparse.Namespace) -> int:
    """Run it."""
    for path in (args.json_lines, args.junit, args.html):
        if path:
            _require_writable(path)
    began = time.time()
    report = verify_hosts(VerifyRequest(args.inventory, args.expect, tuple(args.limit)))
    _write(report, args, began)
    if args.json:
        ui.emit_json(report.as_dict())
    else:
        show(report)
    return int(report.exit_code)
