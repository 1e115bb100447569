# SPDX-License-Identifier: GPL-2.0-only
"""A setting, what a target holds, and how the two compare. No host is asked here."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fsdeploy.tuning.cpus import parse_mask
from fsdeploy.tuning.snapshot import Snapshot, parse_interrupts


class Kind(StrEnum):
    """What a setting's target is; the host's side has the same words."""

    INTERRUPT = "interrupt"  # a name in /proc/interrupts; the value is a CPU mask
    MASK = "mask"  # a file with a CPU mask
    VALUE = "value"  # a file with words
    COALESCE = "coalesce"  # an interface; the value is NAME=NUMBER, names of ethtool -C
    IRQBALANCE = "irqbalance"  # its configuration; the value is names of interrupts


class Outcome(StrEnum):
    """How a setting ended on a host."""

    UNCHANGED = "unchanged"
    CHANGED = "changed"
    CANNOT = "cannot be changed"
    MISSING = "not there"


@dataclass(frozen=True)
class Setting:
    """One target and the value it should have; `why` is for people."""

    kind: Kind
    target: str
    value: str
    why: str = ""

    def as_dict(self) -> dict[str, str]:
        """For the host module and for files."""
        return {
            "kind": str(self.kind),
            "target": self.target,
            "value": self.value,
            "why": self.why,
        }


def setting_from(item: Mapping[str, Any]) -> Setting:
    """The other way round; KeyError or ValueError when it is not one."""
    return Setting(
        Kind(item["kind"]), str(item["target"]), str(item["value"]), str(item.get("why", ""))
    )


@dataclass(frozen=True)
class SettingResult:
    """How one setting ended on a host."""

    setting: Setting
    before: str
    after: str
    outcome: Outcome
    reason: str = ""

    def as_dict(self) -> dict[str, str]:
        """For `--json`."""
        return {
            **self.setting.as_dict(),
            "before": self.before,
            "after": self.after,
            "outcome": str(self.outcome),
            "reason": self.reason,
        }


def result_from(item: Mapping[str, Any]) -> SettingResult:
    """From what the host module returned."""
    return SettingResult(
        Setting(Kind(item["kind"]), item["target"], item["wanted"]),
        item["before"],
        item["after"],
        Outcome(item["outcome"]),
        item["reason"],
    )


def fields_of(value: str) -> dict[str, int]:
    """The NAME=NUMBER words of a coalescing setting."""
    return {
        name: int(number) for name, _, number in (word.partition("=") for word in value.split())
    }


_SWITCHES = {"off": 0, "on": 1}
_NUMBER = re.compile(r"^([a-z-]+):\s+(\d+)\s*$", re.MULTILINE)


def parse_coalescing(text: str) -> dict[str, int]:
    """What `ethtool -c` prints: `rx-usecs: 333`, and `Adaptive RX: off  TX: off`."""
    found = {match[1]: int(match[2]) for match in _NUMBER.finditer(text)}
    adaptive = re.search(r"^Adaptive RX:\s+(\w+)\s+TX:\s+(\w+)", text, re.MULTILINE)
    if adaptive:
        # A card without it says n/a, which is as good as off.
        found["adaptive-rx"] = _SWITCHES.get(adaptive[1], 0)
        found["adaptive-tx"] = _SWITCHES.get(adaptive[2], 0)
    return found


def is_same(kind: Kind, one: str, other: str) -> bool:
    """Whether two values of a kind mean the same."""
    if kind in (Kind.INTERRUPT, Kind.MASK):
        try:
            return parse_mask(one) == parse_mask(other)
        except ValueError:
            return False
    if kind is Kind.COALESCE:
        return fields_of(one) == fields_of(other)
    return one.split() == other.split()


Read = Callable[[str], str | None]


def read_with(read: Read, setting: Setting) -> str | None:
    """What a target that is a file holds; None when it is not there.

    `read` gives the text of a file or None. Not for coalescing, which is in no file.
    """
    path = setting.target
    if setting.kind is Kind.INTERRUPT:
        numbers = [
            interrupt.number
            for interrupt in parse_interrupts(read("/proc/interrupts") or "")
            if setting.target in interrupt.names
        ]
        if not numbers:
            return None
        path = f"/proc/irq/{numbers[0]}/smp_affinity"
    text = read(path)
    return None if text is None else " ".join(text.split())


def banned_in(arguments: tuple[str, ...]) -> frozenset[int]:
    """The interrupts that irqbalance's arguments ban."""
    words = (word.removeprefix("--banirq=") for word in arguments if word.startswith("--banirq="))
    return frozenset(int(word) for word in words if word.isdecimal())


def compare(snapshot: Snapshot, setting: Setting) -> SettingResult:
    """How a setting would end on a host, as far as its snapshot tells."""
    now: str | None
    if setting.kind is Kind.COALESCE:
        fields = snapshot.ethtool.get(setting.target, {"error": errno.ENODEV})
        if "error" in fields:
            reason = os.strerror(fields["error"])
            return SettingResult(setting, "", "", Outcome.CANNOT, reason)
        now = " ".join(f"{name}={fields.get(name, 0)}" for name in fields_of(setting.value))
    elif setting.kind is Kind.IRQBALANCE:
        return _compare_irqbalance(snapshot, setting)
    else:
        now = read_with(snapshot.files.get, setting)
    if now is None:
        return SettingResult(setting, "", "", Outcome.MISSING)
    same = is_same(setting.kind, now, setting.value)
    outcome = Outcome.UNCHANGED if same else Outcome.CHANGED
    return SettingResult(setting, now, setting.value, outcome)


def _compare_irqbalance(snapshot: Snapshot, setting: Setting) -> SettingResult:
    if not snapshot.irqbalance.arguments:
        reason = "irqbalance does not run; its configuration is not in a snapshot"
        return SettingResult(setting, "", setting.value, Outcome.CHANGED, reason)
    banned = banned_in(snapshot.irqbalance.arguments)
    wanted = setting.value.split()
    known = {name: line.number for line in snapshot.interrupts for name in line.names}
    now = " ".join(name for name in wanted if known.get(name) in banned)
    same = now.split() == [name for name in wanted if name in known]
    return SettingResult(
        setting, now, setting.value, Outcome.UNCHANGED if same else Outcome.CHANGED
    )
