# SPDX-License-Identifier: GPL-2.0-only
"""`fsdeploy rollout`: bring a kernel to hosts."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from fsdeploy import ui
from fsdeploy.cli.hosts import add_hosts, add_json, positive_span, span
from fsdeploy.errors import FsdeployError
from fsdeploy.fleet.plan import Policy
from fsdeploy.fleet.rollout import ResumeRequest, RolloutReport, RolloutRequest, resume, rollout
from fsdeploy.fleet.states import STEPS

_POLICY = Policy()
_TRIAL_TIMEOUT = 600.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    add_hosts(parser, required=False, note="with --resume: the one it began with")
    parser.add_argument(
        "--kernel", type=Path, metavar="RPM", help="the package (with --resume: the first one)"
    )
    parser.add_argument(
        "--key",
        type=Path,
        metavar="FILE",
        help="the public key that the package must be signed with, checked on every host before it"
        " is installed (default: the one of the repository the package lies in, if it does)",
    )
    parser.add_argument(
        "--repository",
        metavar="URL",
        help="hosts fetch the package from what fsdeploy publish made, served at this address,"
        " instead of getting it over SSH",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="look at the hosts, print the waves and what would be done",
    )
    parser.add_argument(
        "--waves",
        type=_shares,
        metavar="PERCENT,…",
        help="shares of the fleet, a wave each, between the canaries (one host of each hardware"
        " class) and the rest (default 5,25)",
    )
    parser.add_argument(
        "--soak",
        type=span,
        metavar="TIME",
        help="how long a wave runs before the next begins: seconds, or with m or h (default 30m)",
    )
    parser.add_argument(
        "--budget",
        type=int,
        metavar="N",
        help="how many hosts may fail over the whole rollout; one more and everything stops"
        " (default 0)",
    )
    parser.add_argument(
        "--at-once",
        type=int,
        metavar="N",
        help="how many hosts boot together; a larger wave goes in parts (default 50)",
    )
    parser.add_argument(
        "--trial-timeout",
        type=positive_span,
        metavar="TIME",
        help="how long a host may take to come back from a boot (default 600 s)",
    )
    parser.add_argument(
        "--trial-argument",
        action="append",
        default=[],
        metavar="ARG",
        help="a kernel argument for the trial boot only; may be repeated",
    )
    parser.add_argument(
        "--power-command",
        metavar="COMMAND",
        help="switches a host off and on that does not come back; {host} stands for its name",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on with the last rollout: cut off, stopped, or with hosts that did not answer",
    )
    add_json(parser)


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(",") if word.strip())
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of percents: 5,25 is") from None


def _show_plan(report: RolloutReport) -> None:
    ui.table(
        f"waves, failure budget {report.plan.budget}",
        ("wave", "name", "hosts", "classes", "soak after it"),
        [
            (
                str(wave.number),
                wave.name,
                f"{len(wave.hosts)}: {', '.join(wave.names[:8])}"
                + (", …" if len(wave.hosts) > 8 else ""),
                "; ".join(sorted({host.hardware or "not known" for host in wave.hosts})),
                ui.duration(wave.soak) if wave.soak else "",
            )
            for wave in report.plan.waves
        ],
    )


def show(report: RolloutReport) -> None:
    """The report as a table, one line a host; before a dry run's the waves."""
    if report.dry_run:
        ui.say("What a rollout would do on each host:")
        for number, (state, what) in enumerate(STEPS, 1):
            ui.say(f"  {number}. {what} ({state})")
        _show_plan(report)
    title = f"{'dry run' if report.dry_run else 'rollout'} of {report.release}"
    ui.table(
        title,
        ("wave", "host", "state", "kernel", "reason"),
        [
            (str(host.wave), host.host, str(host.state), host.kernel, host.reason)
            for host in report.hosts
        ],
    )
    for command in report.commands:
        ui.say(command)
    if report.stopped:
        ui.say(f"stopped: {report.stopped}")
        ui.say("fsdeploy rollout --resume goes on, with --budget N for more failures")
    if report.log:
        ui.note(f"log: {report.log}")


def _to_resume(args: argparse.Namespace) -> ResumeRequest:
    options = {name: getattr(args, name) for name in ("limit", "dry_run", "trial_argument")}
    given = [name for name, value in options.items() if value]
    numbers = {name: getattr(args, name) for name in ("waves", "soak", "at_once")}
    given += [name for name, value in numbers.items() if value is not None]
    if given:
        raise FsdeployError(
            f"--{given[0].replace('_', '-')} cannot be changed in a rollout that has begun",
            hint="--resume takes --inventory, --kernel, --key, --repository, --budget,"
            " --trial-timeout and --power-command",
        )
    return ResumeRequest(
        inventory=args.inventory,
        kernel=args.kernel,
        key=args.key,
        repository=args.repository,
        trial_timeout=args.trial_timeout,
        power_command=args.power_command,
        budget=args.budget,
    )


def _to_begin(args: argparse.Namespace) -> RolloutRequest:
    for name in ("inventory", "kernel"):
        if getattr(args, name) is None:
            raise FsdeployError(f"--{name} is missing", hint="only --resume does without it")
    if any(len(word.split()) != 1 for word in args.trial_argument):
        raise FsdeployError(
            "a --trial-argument must be one word of a kernel command line",
            hint="repeat the option for several",
        )
    policy = Policy(
        _POLICY.shares if args.waves is None else args.waves,
        _POLICY.soak if args.soak is None else args.soak,
        _POLICY.budget if args.budget is None else args.budget,
        _POLICY.at_once if args.at_once is None else args.at_once,
    )
    return RolloutRequest(
        inventory=args.inventory,
        kernel=args.kernel,
        key=args.key,
        repository=args.repository or "",
        limit=tuple(args.limit),
        dry_run=args.dry_run,
        trial_timeout=args.trial_timeout or _TRIAL_TIMEOUT,
        trial_arguments=tuple(args.trial_argument),
        power_command=args.power_command or "",
        policy=policy,
    )


def main(args: argparse.Namespace) -> int:
    """Run it."""
    _check_power_command(args.power_command)
    report = resume(_to_resume(args)) if args.resume else rollout(_to_begin(args))
    if args.json:
        ui.emit_json(report.as_dict())
    else:
        show(report)
    return int(report.exit_code)


def _check_power_command(command: str | None) -> None:
    """A command that would fail for every host fails now."""
    if command is None:
        return
    try:
        words = shlex.split(command)
    except ValueError as problem:
        raise FsdeployError(f"--power-command: {problem}") from None
    if not any("{host}" in word for word in words):
        raise FsdeployError(
            "--power-command names no host",
            hint="for example: --power-command 'ipmitool -H {host}-ipmi chassis power cycle'",
        )
