# SPDX-License-Identifier: GPL-2.0-only
"""Tunes hosts: collects snapshots, plans here, lets the host module apply, and remembers.

What was applied to a host is kept in the state folder: it is what `verify` expects of it.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsdeploy import paths, ui
from fsdeploy.errors import FsdeployError
from fsdeploy.fleet import remembered
from fsdeploy.fleet.ansible import HostResult, by_hand
from fsdeploy.fleet.ansible import run_on_alive as _play
from fsdeploy.fleet.changes import ChangesReport, HostChanges
from fsdeploy.fleet.drive import new_log
from fsdeploy.fleet.inventory import Inventory, load_inventory
from fsdeploy.fleet.journal import Journal
from fsdeploy.fleet.transport import Ssh
from fsdeploy.tuning.plan import Choice, Plan, plan_tuning
from fsdeploy.tuning.settings import Outcome, Setting, SettingResult, compare, result_from
from fsdeploy.tuning.snapshot import Snapshot, snapshot_from

_ACTION = "host_tuning"


@dataclass(frozen=True)
class TuneRequest:
    """Which hosts, and which CPUs serve their cards' queues."""

    inventory: Path
    choice: Choice = field(default_factory=Choice)
    limit: tuple[str, ...] = ()
    dry_run: bool = False


@dataclass(frozen=True)
class TuneOutcome(HostChanges[SettingResult]):
    """What a host's settings came to."""

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {**super().as_dict(), "settings": [result.as_dict() for result in self.items]}


TuneReport = ChangesReport[TuneOutcome]


# What is remembered of hosts


def _folder(name: str) -> Path:
    return paths.state_dir() / "tuning" / name


def forget_applied(host: str) -> None:
    """The host is as it was: nothing of its tuning is expected any more."""
    (_folder("applied") / f"{host}.json").unlink(missing_ok=True)


def applied_results(host: str) -> tuple[SettingResult, ...]:
    """How the last `tune --apply` ended on a host; empty when there was none."""
    path = _folder("applied") / f"{host}.json"
    try:
        items = json.loads(path.read_text(encoding="utf-8"))["results"]
        return tuple(result_from(item) for item in items)
    except FileNotFoundError:
        return ()
    except (KeyError, TypeError, ValueError) as problem:
        raise FsdeployError(
            f"{path} is damaged: {problem}", hint="fsdeploy tune --apply writes it anew"
        ) from None


def expected_settings(host: str) -> tuple[dict[str, str], ...]:
    """What `verify` expects: each setting that the host took, with the value it has since."""
    return tuple(
        {**result.setting.as_dict(), "value": result.after}
        for result in applied_results(host)
        if result.outcome in (Outcome.UNCHANGED, Outcome.CHANGED)
    )


def _document_of(results: Sequence[SettingResult]) -> list[dict[str, str]]:
    return [
        {
            "kind": str(result.setting.kind),
            "target": result.setting.target,
            "wanted": result.setting.value,
            "before": result.before,
            "after": result.after,
            "outcome": str(result.outcome),
            "reason": result.reason,
        }
        for result in results
    ]


# Looking


@dataclass(frozen=True)
class Collected:
    """What a host module said of a host: its snapshot, or why there is none."""

    document: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    reached: bool = True


def _collect(ssh: Ssh, hosts: Sequence[str], log: Path) -> dict[str, Collected]:
    with ui.step("Looking at the hosts"):
        results = _play("tune_collect", ssh, hosts, log=log)
    found = {}
    for host in hosts:
        result = results.get(host, HostResult(False, False, "no answer"))
        document = result.data.get(_ACTION, {}).get("snapshot")
        if result.ok and document:
            found[host] = Collected(document)
        else:
            found[host] = Collected(reason=result.message, reached=result.reached)
    return found


def collect(inventory: Path, limit: Sequence[str] = ()) -> tuple[dict[str, Collected], Path]:
    """Snapshots by host, and the log. Changes nothing."""
    hosts = load_inventory(inventory).limited(limit)
    log = new_log("tune")
    with Ssh(hosts, log=log) as ssh:
        return _collect(ssh, hosts.names, log), log


def compare_plan(
    snapshot: Snapshot, plan: Plan, applied: Sequence[SettingResult] = ()
) -> tuple[SettingResult, ...]:
    """How each setting of a plan would end, by the snapshot and what the host refused before."""
    refused = {
        (result.setting.kind, result.setting.target, result.setting.value): result
        for result in applied
        if result.outcome is Outcome.CANNOT
    }
    taken = {
        (result.setting.kind, result.setting.target, result.setting.value): result
        for result in applied
        if result.reason and result.outcome in (Outcome.CHANGED, Outcome.UNCHANGED)
    }
    found = []
    for setting in plan.settings:
        result = compare(snapshot, setting)
        key = (setting.kind, setting.target, setting.value)
        known = refused.get(key)
        if key in taken and taken[key].after == result.before:
            known = taken[key]
        if known and result.outcome is Outcome.CHANGED:
            outcome = Outcome.CANNOT if key in refused else Outcome.UNCHANGED
            result = SettingResult(setting, result.before, result.before, outcome, known.reason)
        found.append(result)
    return tuple(found)


def show_snapshot(snapshot: Snapshot, host: str, choice: Choice) -> TuneOutcome:
    """What the plan for a snapshot is and how it would end."""
    plan = plan_tuning(snapshot, choice)
    results = compare_plan(snapshot, plan, applied_results(host))
    return TuneOutcome(host, True, items=results, notes=plan.notes)


def _plan(
    found: Mapping[str, Collected], choice: Choice
) -> tuple[dict[str, tuple[Snapshot, Plan]], dict[str, TuneOutcome]]:
    """Plans by host, and the hosts that have none."""
    plans, ended = {}, {}
    for host, collected in found.items():
        if not collected.document:
            ended[host] = TuneOutcome(host, False, collected.reason, collected.reached)
            continue
        try:
            snapshot = snapshot_from(collected.document, f"what {host} says of itself")
            plans[host] = (snapshot, plan_tuning(snapshot, choice))
        except FsdeployError as problem:
            hint = f"; {problem.hint}" if problem.hint else ""
            ended[host] = TuneOutcome(host, False, problem.message + hint)
    return plans, ended


def show(request: TuneRequest) -> TuneReport:
    """What is planned for hosts and how it differs from what they have. Changes nothing."""
    began = time.monotonic()
    found, log = collect(request.inventory, request.limit)
    plans, ended = _plan(found, request.choice)
    for host, (snapshot, plan) in plans.items():
        results = compare_plan(snapshot, plan, applied_results(host))
        ended[host] = TuneOutcome(host, True, items=results, notes=plan.notes)
    return TuneReport(
        tuple(ended[host] for host in found), time.monotonic() - began, log, prospect=True
    )


# Changing


def results_of(result: HostResult, settings: Sequence[Setting] = ()) -> tuple[SettingResult, ...]:
    """What a run of the host module says of each setting, with the plan's own words for it."""
    why = {(setting.kind, setting.target): setting for setting in settings}
    found = []
    for item in result.data.get(_ACTION, {}).get("results", ()):
        parsed = result_from(item)
        setting = why.get((parsed.setting.kind, parsed.setting.target), parsed.setting)
        found.append(
            SettingResult(setting, parsed.before, parsed.after, parsed.outcome, parsed.reason)
        )
    return tuple(found)


def apply(request: TuneRequest, *, journal: Journal | None = None) -> TuneReport:
    """Tune hosts. A setting that a host cannot take is in its results and fails nothing."""
    began = time.monotonic()
    inventory = load_inventory(request.inventory).limited(request.limit)
    log = new_log("tune")
    with contextlib.ExitStack() as stack:
        ssh = stack.enter_context(Ssh(inventory, log=log))
        if not request.dry_run:
            _hold(stack, journal)
        found = _collect(ssh, inventory.names, log)
        plans, ended = _plan(found, request.choice)
        for host, (_, plan) in plans.items():
            settings = [setting.as_dict() for setting in plan.settings]
            remembered.write(_folder("planned") / f"{host}.json", {"settings": settings})
        variables = {"tuning_plans": str(_folder("planned"))}
        with ui.step("Trying the settings" if request.dry_run else "Applying the settings"):
            results = _play("tune", ssh, list(plans), variables, log=log, check=request.dry_run)
        for host, (_, plan) in plans.items():
            result = results.get(host, HostResult(False, False, "no answer"))
            done = results_of(result, plan.settings)
            ended[host] = TuneOutcome(
                host, result.ok, result.message, result.reached, result.changed, done, plan.notes
            )
            if result.ok and not request.dry_run:
                remembered.write(
                    _folder("applied") / f"{host}.json", {"results": _document_of(done)}
                )
        commands: tuple[str, ...] = ()
        if plans:
            commands = (by_hand("tune", inventory, list(plans), variables),)
    return TuneReport(
        tuple(ended[host] for host in found),
        time.monotonic() - began,
        log,
        commands if request.dry_run else (),
        request.dry_run,
    )


def _hold(stack: contextlib.ExitStack, journal: Journal | None) -> None:
    """Hold the fleet: no rollout at the same time."""
    book = journal or stack.enter_context(Journal())
    stack.enter_context(book.lock())


def restore_with_ansible(
    ssh: Ssh, hosts: Sequence[str], *, log: Path, dry_run: bool = False
) -> dict[str, TuneOutcome]:
    """Put everything back by the host module; what is not put back fails the host."""
    if not hosts:
        return {}
    with ui.step("Trying to put the values back" if dry_run else "Putting the values back"):
        results = _play("untune", ssh, hosts, log=log, check=dry_run)
    ended = {}
    for host in hosts:
        result = results.get(host, HostResult(False, False, "no answer"))
        ended[host] = TuneOutcome(
            host, result.ok, result.message, result.reached, result.changed, results_of(result)
        )
        if result.ok and not dry_run:
            forget_applied(host)
    return ended


def restore(request: TuneRequest, *, journal: Journal | None = None) -> TuneReport:
    """Put hosts back to what they were before the first change."""
    began = time.monotonic()
    inventory: Inventory = load_inventory(request.inventory).limited(request.limit)
    log = new_log("untune")
    with contextlib.ExitStack() as stack:
        ssh = stack.enter_context(Ssh(inventory, log=log))
        if not request.dry_run:
            _hold(stack, journal)
        ended = restore_with_ansible(ssh, inventory.names, log=log, dry_run=request.dry_run)
        commands = (by_hand("untune", inventory, inventory.names, {}),)
    return TuneReport(
        tuple(ended[host] for host in inventory.names),
        time.monotonic() - began,
        log,
        commands if request.dry_run else (),
        request.dry_run,
    )
