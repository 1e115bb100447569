# SPDX-License-Identifier: GPL-2.0-only
"""Checks of a host's tuning against what was applied. The first line of each says what is true."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Sequence
from typing import Any

import pytest

from fsdeploy.tuning.settings import (
    Kind,
    Setting,
    banned_in,
    fields_of,
    is_same,
    parse_coalescing,
    read_with,
    setting_from,
)
from fsdeploy.tuning.snapshot import parse_interrupts
from fsdeploy.verify.report import Expectation

_MARK = "== fsdeploy == "


def _expected(expected: Expectation, *kinds: Kind, part: str = "") -> list[Setting]:
    settings = [setting_from(item) for item in expected.tuning]
    found = [item for item in settings if item.kind in kinds and part in item.target]
    if not found:
        pytest.skip("no such setting was applied")
    return found


@functools.cache
def _texts(machine: Any, paths: tuple[str, ...]) -> dict[str, str]:
    """Texts of files, by one command: a host with 64 queues has hundreds of them."""
    words = " ".join(shlex.quote(path) for path in paths)
    # Built-ins and one `cat` a file that is there; printf ends a file that has no line end.
    script = f'for f in {words}; do if [ -e "$f" ]; then echo "{_MARK}$f"; cat "$f"; echo; fi; done'
    answer = machine.run(script).stdout
    texts = {}
    for block in answer.split(_MARK)[1:]:
        path, _, text = block.partition("\n")
        texts[path] = text
    return texts


def _differences(machine: Any, settings: Sequence[Setting]) -> list[str]:
    """Sentences about settings that are otherwise than expected; for those that are files."""
    paths = [setting.target for setting in settings if setting.kind is not Kind.INTERRUPT]
    if len(paths) < len(settings):
        lines = _texts(machine, ("/proc/interrupts",)).get("/proc/interrupts", "")
        numbers = [interrupt.number for interrupt in parse_interrupts(lines)]
        paths += [f"/proc/irq/{number}/smp_affinity" for number in numbers]
        paths.append("/proc/interrupts")
    texts = _texts(machine, tuple(paths))
    found = []
    for setting in settings:
        now = read_with(texts.get, setting)
        if now is None:
            found.append(f"{setting.target} is not there")
        elif not is_same(setting.kind, now, setting.value):
            found.append(f"{setting.target} is {now}, expected is {setting.value}")
    return found


def _require_none(differences: Sequence[str]) -> None:
    more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
    assert not differences, differences[0] + more


def check_tuned_interrupts(machine: Any, expected: Expectation) -> None:
    """The interrupts of the cards' queues go to the planned CPUs."""
    _require_none(_differences(machine, _expected(expected, Kind.INTERRUPT)))


def check_tuned_receiving(machine: Any, expected: Expectation) -> None:
    """Received packets are spread over CPUs where that was planned, and nowhere else."""
    _require_none(_differences(machine, _expected(expected, Kind.MASK, part="/rps_cpus")))


def check_tuned_sending(machine: Any, expected: Expectation) -> None:
    """Each CPU sends by its own queue."""
    _require_none(_differences(machine, _expected(expected, Kind.MASK, part="/xps_cpus")))


def check_tuned_values(machine: Any, expected: Expectation) -> None:
    """Port range, limits and flow tables have the planned values."""
    _require_none(_differences(machine, _expected(expected, Kind.VALUE)))


def check_tuned_coalescing(machine: Any, expected: Expectation) -> None:
    """The cards wait as long as planned before they interrupt."""
    differences = []
    for setting in _expected(expected, Kind.COALESCE):
        answer = machine.run("PATH=/sbin:/usr/sbin:$PATH ethtool -c %s", setting.target)
        if answer.rc == 127:
            pytest.skip("there is no ethtool on the host to ask")
        now = parse_coalescing(answer.stdout)
        for name, number in fields_of(setting.value).items():
            # What a card does not have counts as 0, to the kernel as well.
            if now.get(name, 0) != number:
                differences.append(
                    f"{name} of {setting.target} is {now.get(name, 0)}, expected is {number}"
                )
    _require_none(differences)


def check_tuned_irqbalance(machine: Any, expected: Expectation) -> None:
    """The interrupts of the cards' queues are left alone by irqbalance."""
    (setting,) = _expected(expected, Kind.IRQBALANCE)
    answer = machine.run("tr '\\0' ' ' </proc/$(pidof irqbalance | cut -d' ' -f1)/cmdline")
    if answer.rc != 0:
        pytest.skip("irqbalance does not run")
    banned = banned_in(tuple(answer.stdout.split()))
    lines = _texts(machine, ("/proc/interrupts",)).get("/proc/interrupts", "")
    wanted = set(setting.value.split())
    loose = [
        name
        for interrupt in parse_interrupts(lines)
        for name in interrupt.names
        if name in wanted and interrupt.number not in banned
    ]
    assert not loose, f"irqbalance may move {loose[0]}"


def check_tuning_is_kept(machine: Any, expected: Expectation) -> None:
    """What applies the tuning again after a boot is in place."""
    if not expected.tuning:
        pytest.skip("no tuning was applied")
    for path in ("/usr/sbin/fsdeploy-tuning", "/var/lib/fsdeploy/tuning/plan.json"):
        assert machine.file(path).exists, f"{path} is missing"
    starters = ("/etc/init.d/fsdeploy-tuning", "/etc/systemd/system/fsdeploy-tuning.service")
    assert any(machine.file(path).exists for path in starters), f"{starters[0]} is missing"
