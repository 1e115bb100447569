# SPDX-License-Identifier: GPL-2.0-only
"""`fsdeploy services`: the Fastsocket module on hosts, and services under libfsocket."""

from __future__ import annotations

import argparse
from pathlib import Path

from fsdeploy import ui
from fsdeploy.cli.hosts import add_hosts, add_json
from fsdeploy.errors import FsdeployError
from fsdeploy.fleet import services
from fsdeploy.services.plan import SERVICES, Choice, Package, Workload, parse_parameters
from fsdeploy.tuning.settings import Outcome


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--diff", action="store_true", help="what hosts have otherwise")
    what.add_argument(
        "--apply", action="store_true", help="bring it about, for good; services restart"
    )
    add_hosts(parser)
    parser.add_argument(
        "--module-rpm", type=Path, metavar="RPM", help="kmod-fastsocket, for hosts without it"
    )
    parser.add_argument(
        "--library", type=Path, metavar="RPM", help="libfsocket, for hosts without it"
    )
    parser.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="the public key that the packages must be signed with, checked on every host before it"
        " installs them (default: that of the repository a package lies in)",
    )
    parser.add_argument(
        "--workload",
        choices=[str(workload) for workload in Workload],
        default=str(Workload.WEB),
        help="web: services accept connections (the default); proxy: and open others, so these are"
        " received on the core that opened them",
    )
    parser.add_argument(
        "--parameter",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter of the module, over what the workload says",
    )
    parser.add_argument(
        "--service",
        action="append",
        default=[],
        choices=SERVICES,
        help="only this one (default: all of them that a host has)",
    )
    parser.add_argument(
        "--at-once",
        type=int,
        default=10,
        metavar="N",
        help="hosts whose services restart at the same time (%(default)s)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="for --apply: say what would be done"
    )
    add_json(parser)


def _package(path: Path | None, name: str, option: str, key: Path | None) -> Package | None:
    if path is None:
        return None
    package = services.read_package(path, key)
    if package.name != name:
        raise FsdeployError(f"{option}: {path} is {package.name}, not {name}")
    return package


def _indented(sign: str, text: str) -> None:
    for line in text.splitlines() or [""]:
        ui.say(f"  {sign} {line}")


def _diff(report: services.ServicesReport) -> None:
    for host in report.hosts:
        for item in host.items:
            if item.outcome is Outcome.CHANGED:
                ui.say(f"{host.host} {item.kind} {item.target}")
                _indented("-", item.before)
                _indented("+", item.after)


def _show(report: services.ServicesReport, title: str) -> None:
    rows = []
    for host in report.hosts:
        for item in host.items:
            if item.outcome is not Outcome.UNCHANGED and item.reason:
                ui.say(f"{host.host} {item.kind} {item.target}: {item.outcome}: {item.reason}")
        for note in host.notes:
            ui.say(f"{host.host}: {note}")
        for proposal in host.proposals:
            ui.say(f"{host.host}: to be edited by you: {proposal}")
        word = "to be changed" if report.prospect else "changed"
        counts = ", ".join(
            f"{host.count(outcome)} {word if outcome is Outcome.CHANGED else outcome}"
            for outcome in Outcome
            if host.count(outcome)
        )
        runs = ", ".join(
            f"{item.target} {item.after}" for item in host.items if item.kind == "service"
        )
        state = "ok" if host.ok else ("failed" if host.reached else "unreachable")
        rows.append((host.host, state, host.reason or counts or "nothing to do", runs))
    ui.table(title, ("host", "state", "what", "services"), rows)
    for command in report.commands:
        ui.say(command)
    ui.note(f"log: {report.log}")


def main(args: argparse.Namespace) -> int:
    """Run it."""
    if args.diff and args.dry_run:
        raise FsdeployError("--dry-run says nothing to --diff, which changes nothing")
    if args.at_once < 1:
        raise FsdeployError(f"--at-once {args.at_once}: at least 1")
    if args.key and not (args.module_rpm or args.library):
        raise FsdeployError("--key is for packages: give them with --module-rpm and --library")
    choice = Choice(
        Workload(args.workload),
        parse_parameters(args.parameter),
        tuple(args.service),
        _package(args.module_rpm, "kmod-fastsocket", "--module-rpm", args.key),
        _package(args.library, "libfsocket", "--library", args.key),
    )
    looking = args.diff or args.dry_run
    report = services.apply(
        services.ServicesRequest(args.inventory, choice, tuple(args.limit), looking, args.at_once)
    )
    if args.json:
        ui.emit_json(report.as_dict())
        return int(report.exit_code)
    if args.diff:
        _diff(report)
    _show(report, "dry run" if looking else "services")
    return int(report.exit_code)
