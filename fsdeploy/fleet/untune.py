# SPDX-License-Identifier: GPL-2.0-only
"""`rollback --level tuning`: the values saved before the first change, then verified.

By the host module where the host's Python works, else over plain SSH with nothing but a shell and
coreutils: the record that the host keeps is read here, and what to write is computed here.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsdeploy import ui
from fsdeploy.errors import FsdeployError
from fsdeploy.fleet.drive import new_log
from fsdeploy.fleet.inventory import Host, load_inventory
from fsdeploy.fleet.journal import Journal
from fsdeploy.fleet.rollback import RollbackOutcome, RollbackReport, RollbackRequest
from fsdeploy.fleet.transport import Ssh
from fsdeploy.fleet.tuning import TuneOutcome, forget_applied, restore_with_ansible
from fsdeploy.tuning.settings import Kind, Outcome, fields_of, parse_coalescing
from fsdeploy.tuning.snapshot import parse_interrupts
from fsdeploy.verify.report import Expectation, failures
from fsdeploy.verify.suite import run_checks

_BEFORE = "/var/lib/fsdeploy/tuning/before.json"
_PLAN = "/var/lib/fsdeploy/tuning/plan.json"
# Files of others with lines of ours in them, as the host's side has them.
_SHARED = ("/etc/sysconfig/irqbalance", "/etc/default/irqbalance", "/sbin/ifup-local")
_BLOCK = re.compile(
    rb"(?P<newline>\n)?# fsdeploy tuning: begin[^\n]*\n"
    rb"(?P<bare># \(the line before had no end\)\n)?.*?# fsdeploy tuning: end\n",
    re.DOTALL,
)

_SCRIPT_HEAD = """\
PATH=/sbin:/usr/sbin:/bin:/usr/bin
bad=0
# A target that is not there now has nothing to be put back.
value() {
	[ -e "$1" ] || return 0
	printf '%s\\n' "$2" 2>/dev/null >"$1" && return 0
	echo "$1 could not be put back to $2"
	bad=1
}
cards() {
	ethtool -C "$@" >/dev/null 2>&1 && return 0
	echo "the coalescing of $1 could not be put back"
	bad=1
}
content() {
	f=$(readlink -f "$1" || echo "$1")
	echo "$3" | base64 -d >"$f.new" && chmod "$2" "$f.new" && mv -f "$f.new" "$f" && return 0
	echo "$1 could not be put back"
	bad=1
}"""


def without_block(data: bytes) -> bytes:
    """A file's content without the lines of the tuning."""

    def head(match: re.Match[bytes]) -> bytes:
        # The line break before our lines is ours where the file had none.
        return b"" if match["bare"] else match["newline"] or b""

    return _BLOCK.sub(head, data)


def parse_record(text: str, where: str) -> dict[str, Any]:
    """What a host remembers of the time before; FsdeployError when it is damaged."""
    try:
        record: dict[str, Any] = json.loads(text)
        _ = record["values"].items(), record["files"].items(), list(record["folders"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise FsdeployError(f"{where} is damaged; look at it and remove it") from None
    return record


def settings_before(record: Mapping[str, Any]) -> tuple[dict[str, str], ...]:
    """The remembered values as settings, for the checks."""
    found = []
    for key, value in record["values"].items():
        kind, _, target = key.partition(" ")
        found.append({"kind": kind, "target": target, "value": value})
    return tuple(found)


def restore_script(
    record: Mapping[str, Any],
    interrupts: str,
    cards: Mapping[str, str],
    shared: Mapping[str, bytes | None],
) -> str:
    """A shell script that puts everything back; it names what stays otherwise and ends with 1.

    `interrupts` is the host's /proc/interrupts, `cards` what `ethtool -c` says of interfaces,
    `shared` the present contents of files of others.
    """
    numbers = {name: line.number for line in parse_interrupts(interrupts) for name in line.names}
    lines = [_SCRIPT_HEAD]
    for setting in settings_before(record):
        kind, target, value = Kind(setting["kind"]), setting["target"], setting["value"]
        if kind is Kind.COALESCE:
            fields, words = fields_of(value), [target]
            # A card that was asked for more than its driver can was left as it is, and refuses
            # to be told its own values too.
            if target in cards:
                now = parse_coalescing(cards[target])
                if all(now.get(name, 0) == number for name, number in fields.items()):
                    continue
            for name, number in fields.items():
                switch = name.startswith("adaptive")
                words += [name, ("on" if number else "off") if switch else str(number)]
            lines.append(f"cards {shlex.join(words)}")
            continue
        path = target
        if kind is Kind.INTERRUPT:
            if target not in numbers:
                continue
            path = f"/proc/irq/{numbers[target]}/smp_affinity"
        lines.append(f"value {shlex.join([path, value])}")
    restart = False
    lines.append("[ ! -d /run/systemd/system ] || systemctl stop fsdeploy-tuning")
    for path, before in sorted(record["files"].items()):
        lines += _file_lines(path, before, shared.get(path))
        restart = restart or (path in _SHARED and "irqbalance" in path)
    if restart:
        lines.append(
            "if pidof irqbalance >/dev/null; then if [ -d /run/systemd/system ];"
            " then systemctl restart irqbalance; else /etc/init.d/irqbalance restart; fi"
            " >/dev/null 2>&1; fi"
        )
    lines.append("[ ! -d /run/systemd/system ] || systemctl daemon-reload")
    # What could not be put back stays remembered.
    lines.append("[ $bad = 0 ] || exit 1")
    lines.append(f"rm -f {_PLAN} {_BEFORE}")
    lines += [f"rmdir {shlex.quote(name)} 2>/dev/null" for name in reversed(record["folders"])]
    return "\n".join([*lines, "sync", "exit 0", ""])


def _file_lines(path: str, before: Mapping[str, Any], now: bytes | None) -> list[str]:
    word = shlex.quote(path)
    ours = path in _SHARED and now is not None
    if "link" in before and not ours:
        return [f"ln -sfn {shlex.quote(before['link'])} {word}"]
    wanted = base64.b64decode(before["content"]) if "content" in before else None
    if ours and now is not None and without_block(now) not in (wanted, b"", b"#!/bin/sh\n"):
        # Others have changed it since: only our lines are taken out.
        wanted = without_block(now)
    if wanted is None:
        return [f"rm -f {word}"]
    mode = f"{before['mode']:o}" if "mode" in before else f"--reference={path}"
    return [f"content {shlex.join([path, mode, base64.b64encode(wanted).decode('ascii')])}"]


def read_record(ssh: Ssh, host: Host) -> dict[str, Any] | None:
    """What a host remembers; None when nothing was applied. Unreachable when it is silent."""
    text = ssh.require(host, f"if [ -e {_BEFORE} ]; then cat {_BEFORE}; else echo -; fi")
    return None if text.strip() == "-" else parse_record(text, f"{_BEFORE} on {host.name}")


def restore_plainly(ssh: Ssh, host: Host, record: Mapping[str, Any]) -> tuple[dict[str, str], ...]:
    """Put everything back with a shell only: the settings that must be there now.

    FsdeployError naming the first that is not put back.
    """
    shared: dict[str, bytes | None] = {}
    for path in _SHARED:
        if path in record["files"]:
            text = ssh.require(host, f"if [ -e {path} ]; then base64 {path}; else echo -; fi")
            shared[path] = None if text.strip() == "-" else base64.b64decode(text)
    interrupts = ssh.require(host, "cat /proc/interrupts")
    cards = {}
    for setting in settings_before(record):
        if setting["kind"] == Kind.COALESCE:
            target = setting["target"]
            now = ssh.execute(host, f"PATH=/sbin:/usr/sbin:$PATH ethtool -c {shlex.quote(target)}")
            if now.ok:
                cards[target] = now.output
    script = restore_script(record, interrupts, cards, shared)
    answer = ssh.execute(host, "sh -s", input_text=script)
    if not answer.ok:
        said = answer.output.strip().splitlines()
        raise FsdeployError(f"{host.name}: {said[0] if said else 'the shell did not answer'}")
    names = {name for line in parse_interrupts(interrupts) for name in line.names}
    return tuple(
        setting
        for setting in settings_before(record)
        if setting["kind"] != Kind.INTERRUPT or setting["target"] in names
    )


def rollback_tuning(request: RollbackRequest, *, journal: Journal | None = None) -> RollbackReport:
    """Put hosts back to what they were before the first change. What happens is in the report."""
    began = time.monotonic()
    inventory = load_inventory(request.inventory).limited(request.limit)
    log = new_log("rollback")
    ended: dict[str, RollbackOutcome] = {}
    with contextlib.ExitStack() as stack:
        ssh = stack.enter_context(Ssh(inventory, log=log))
        if not request.dry_run:
            book = journal or stack.enter_context(Journal())
            stack.enter_context(book.lock())
        records: dict[str, dict[str, Any]] = {}
        kernels: dict[str, str] = {}
        pulses = ssh.each(inventory.hosts, ssh.pulse)
        for host in inventory.hosts:
            pulse = pulses[host.name]
            if pulse is None:
                reason = "does not answer over SSH"
                ended[host.name] = RollbackOutcome(host.name, False, "", reason, False)
                continue
            kernels[host.name] = pulse.release
            try:
                record = read_record(ssh, host)
            except FsdeployError as problem:
                ended[host.name] = RollbackOutcome(host.name, False, pulse.release, problem.message)
                continue
            if record is None:
                reason = "was not tuned, nothing changed"
                ended[host.name] = RollbackOutcome(host.name, True, pulse.release, reason)
                forget_applied(host.name)
                continue
            records[host.name] = record
            if request.dry_run:
                reason = f"would put {len(record['values'])} values back"
                ended[host.name] = RollbackOutcome(host.name, True, pulse.release, reason)
        if not request.dry_run:
            problems, back = _restore(ssh, records, plain=request.plain_ssh, log=log)
            ended.update(_prove(ssh, back, kernels, problems, log))
    hosts = tuple(ended[name] for name in inventory.names)
    return RollbackReport(hosts, time.monotonic() - began, log, request.dry_run)


Settings = tuple[dict[str, str], ...]


def _restore(
    ssh: Ssh, records: Mapping[str, Mapping[str, Any]], *, plain: bool, log: Path
) -> tuple[dict[str, str], dict[str, Settings]]:
    """What is wrong on which host after it; and on the others, what must be there now."""
    done: dict[str, TuneOutcome] = {}
    if not plain:
        done = restore_with_ansible(ssh, list(records), log=log)
    problems: dict[str, str] = {}
    back: dict[str, Settings] = {}
    for name, record in records.items():
        outcome = done.get(name)
        if outcome is not None and outcome.ok:
            # An interface that is gone has nothing that could be as before.
            there = [item for item in outcome.results if item.outcome is not Outcome.MISSING]
            back[name] = tuple(item.setting.as_dict() for item in there)
            continue
        if outcome is not None and outcome.count(Outcome.CANNOT):
            # The module worked and the kernel said no: a shell gets the same answer.
            problems[name] = outcome.reason
            continue
        if outcome is not None:
            ui.warn(f"{name}: {outcome.reason}; trying over plain SSH")
        try:
            with ui.step(f"{name}: putting the values back (plain SSH)"):
                back[name] = restore_plainly(ssh, ssh.inventory.host(name), record)
                forget_applied(name)
        except FsdeployError as problem:
            problems[name] = problem.message
    return problems, back


def _prove(
    ssh: Ssh,
    back: Mapping[str, Settings],
    kernels: Mapping[str, str],
    problems: Mapping[str, str],
    log: Path,
) -> dict[str, RollbackOutcome]:
    """The shipped checks, with the values from before as what is expected."""
    with ui.step("verification"):
        reports = run_checks(
            ssh.config,
            {name: Expectation(tuning=settings) for name, settings in back.items()},
            log=log,
        )
    ended = {
        name: RollbackOutcome(name, False, kernels[name], reason)
        for name, reason in problems.items()
    }
    for report in reports:
        name, kernel = report.host, kernels[report.host]
        # The others are about kernels and services, which are left alone.
        failed = [item for item in failures(report.checks) if item.name.startswith("tuned_")]
        if not report.reached:
            reason = "does not answer to the checks"
            ended[name] = RollbackOutcome(name, False, kernel, reason, False)
        elif failed:
            reason = f"a check failed: {failed[0].message or failed[0].title}"
            ended[name] = RollbackOutcome(name, False, kernel, reason)
        else:
            reason = f"{len(back[name])} values are as before"
            ended[name] = RollbackOutcome(name, True, kernel, reason)
    return ended
