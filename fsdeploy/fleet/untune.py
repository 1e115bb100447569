# SPDX-License-Identifier: GPL-2.0-only
"""`rollback --level tuning`: the values saved before the first change, then verified.

By the host module where the host's Python works, else over plain SSH with nothing but a shell and
coreutils: the record that the host keeps is read here, and what to write is computed here.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fsdeploy.fleet import plainly
from fsdeploy.fleet.inventory import Host
from fsdeploy.fleet.journal import Journal
from fsdeploy.fleet.plainly import settings_before
from fsdeploy.fleet.rollback import RollbackReport, RollbackRequest
from fsdeploy.fleet.takeback import Back, Record, Tried, take_back
from fsdeploy.fleet.transport import Ssh
from fsdeploy.fleet.tuning import forget_applied, restore_with_ansible
from fsdeploy.tuning.settings import Kind, Outcome, fields_of, parse_coalescing
from fsdeploy.tuning.snapshot import parse_interrupts
from fsdeploy.verify.report import Expectation

_BEFORE = "/var/lib/fsdeploy/tuning/before.json"
_PLAN = "/var/lib/fsdeploy/tuning/plan.json"
# Files of others with lines of ours in them, as the host's side has them.
_SHARED = ("/etc/sysconfig/irqbalance", "/etc/default/irqbalance", "/sbin/ifup-local")

_SCRIPT_HEAD = f"""\
{plainly.SCRIPT_HEAD}
cards() {{
	ethtool -C "$@" >/dev/null 2>&1 && return 0
	echo "the coalescing of $1 could not be put back"
	bad=1
}}"""


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
        lines += plainly.file_lines(path, before, shared, "tuning")
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
    lines += plainly.forget_lines(record, _PLAN, _BEFORE)
    return "\n".join([*lines, "sync", "exit 0", ""])


def restore_plainly(ssh: Ssh, host: Host, record: Mapping[str, Any]) -> tuple[dict[str, str], ...]:
    """Put everything back with a shell only: the settings that must be there now.

    FsdeployError naming the first that is not put back.
    """
    shared = plainly.read_shared(ssh, host, [path for path in _SHARED if path in record["files"]])
    interrupts = ssh.require(host, "cat /proc/interrupts")
    cards = {}
    for setting in settings_before(record):
        if setting["kind"] == Kind.COALESCE:
            target = setting["target"]
            now = ssh.execute(host, f"PATH=/sbin:/usr/sbin:$PATH ethtool -c {shlex.quote(target)}")
            if now.ok:
                cards[target] = now.output
    script = restore_script(record, interrupts, cards, shared)
    plainly.run_script(ssh, host, script)
    names = {name for line in parse_interrupts(interrupts) for name in line.names}
    return tuple(
        setting
        for setting in settings_before(record)
        if setting["kind"] != Kind.INTERRUPT or setting["target"] in names
    )


@dataclass(frozen=True)
class _Tuning:
    """The level `tuning`, for takeback.py."""

    record: str = _BEFORE
    nothing: str = "was not tuned, nothing changed"
    checks: tuple[str, ...] = ("tuned_",)

    def would(self, record: Record) -> str:
        return f"would put {len(record['values'])} values back"

    def forget(self, host: str) -> None:
        forget_applied(host)

    def with_ansible(
        self, ssh: Ssh, records: Mapping[str, Record], log: Path
    ) -> Mapping[str, Tried]:
        tried = {}
        for name, outcome in restore_with_ansible(ssh, list(records), log=log).items():
            # An interface that is gone has nothing that could be as before.
            there = [item for item in outcome.items if item.outcome is not Outcome.MISSING]
            back = _back([item.setting.as_dict() for item in there]) if outcome.ok else None
            tried[name] = Tried(back, outcome.reason, outcome.count(Outcome.CANNOT) > 0)
        return tried

    def plainly(self, ssh: Ssh, host: Host, record: Record) -> Back:
        return _back(restore_plainly(ssh, host, record))


def _back(settings: Sequence[dict[str, str]]) -> Back:
    return Back(Expectation(tuning=tuple(settings)), f"{len(settings)} values are as before")


def rollback_tuning(request: RollbackRequest, *, journal: Journal | None = None) -> RollbackReport:
    """Put hosts back to what they were before the first change. What happens is in the report."""
    return take_back(request, _Tuning(), journal=journal)
