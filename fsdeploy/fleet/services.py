# SPDX-License-Identifier: GPL-2.0-only
"""Brings the module and services under libfsocket to hosts: looks, plans here, applies, remembers.

What was applied to a host is kept in the state folder: it is what `verify` expects of it.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fsdeploy import paths, run, ui
from fsdeploy.errors import FsdeployError
from fsdeploy.fleet import remembered
from fsdeploy.fleet.ansible import HostResult, by_hand, run_on_alive
from fsdeploy.fleet.changes import ChangesReport, HostChanges
from fsdeploy.fleet.drive import new_log
from fsdeploy.fleet.inventory import load_inventory
from fsdeploy.fleet.journal import Journal
from fsdeploy.fleet.package import key_for
from fsdeploy.fleet.transport import Ssh
from fsdeploy.kernel.manifest import require_as_built
from fsdeploy.services.host import view_from
from fsdeploy.services.plan import Choice, Level, Package, Plan, plan_services
from fsdeploy.tuning.settings import Outcome

_ACTION = "host_services"
# The host module's words for how a service runs.
UNDER = "under libfsocket"


@dataclass(frozen=True)
class ServicesRequest:
    """Which hosts and what they get. `at_once`: hosts whose services restart at the same time."""

    inventory: Path
    choice: Choice
    limit: tuple[str, ...] = ()
    dry_run: bool = False
    at_once: int = 10


@dataclass(frozen=True)
class Item:
    """One package, file, module, value or service on a host and how it ended."""

    kind: str
    target: str
    wanted: str
    before: str
    after: str
    outcome: Outcome
    reason: str = ""

    def as_dict(self) -> dict[str, str]:
        """For `--json`."""
        return {**asdict(self), "outcome": str(self.outcome)}


@dataclass(frozen=True)
class ServicesOutcome(HostChanges[Item]):
    """What a host got, and what its operator should edit."""

    proposals: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            **super().as_dict(),
            "proposals": list(self.proposals),
            "items": [item.as_dict() for item in self.items],
        }


ServicesReport = ChangesReport[ServicesOutcome]


def read_package(path: Path, key: Path | None = None) -> Package:
    """Look into the RPM of the module or the library.

    It must be signed with `key`; one in a repository of ours with the key of that. FsdeployError
    when it is no whole package, or not signed as it must be.
    """
    if not path.is_file():
        raise FsdeployError(
            f"there is no package {path}",
            hint="fsdeploy build-kernel and fsdeploy build-library make them",
        )
    run.require("rpm")
    sha256 = require_as_built(path)
    form = "%{NAME}\\n%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}\\n[%{REQUIRENAME} %{REQUIREVERSION}\\n]"
    asked = run.run(["rpm", "-qp", "--nosignature", "--qf", form, path], check=False)
    digests = run.run(["rpm", "-K", "--nosignature", path], check=False)
    lines = asked.output.splitlines()
    if asked.returncode != 0 or digests.returncode != 0 or len(lines) < 2:
        raise FsdeployError(f"{path} is not a whole RPM package", hint="copy or build it again")
    needs = dict(line.split(" ", 1) for line in lines[2:] if " " in line)
    wanted = key_for(path, key)
    return Package(
        str(path.resolve()),
        lines[0],
        lines[1],
        sha256,
        needs.get("kernel-uname-r", ""),
        wanted.path.read_text(encoding="ascii") if wanted else "",
    )


# What is remembered of hosts


def _folder(name: str) -> Path:
    return paths.state_dir() / "services" / name


def expected_services(host: str) -> dict[str, Any]:
    """What `verify` expects since the last `services --apply`; empty when there was none."""
    path = _folder("applied") / f"{host}.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _ = found.items()
    except FileNotFoundError:
        return {}
    except (AttributeError, ValueError) as problem:
        raise FsdeployError(
            f"{path} is damaged: {problem}", hint="fsdeploy services --apply writes it anew"
        ) from None
    return found


_OF_LEVEL = {
    Level.MODULE: ("module", "values", "module_files"),
    Level.SERVICE: ("services", "service_files"),
}


def forget_applied(host: str, level: Level) -> None:
    """The level was taken back: nothing of it is expected any more."""
    left = {
        name: value
        for name, value in expected_services(host).items()
        if name not in _OF_LEVEL[level]
    }
    path = _folder("applied") / f"{host}.json"
    if left:
        remembered.write(path, left)
    else:
        path.unlink(missing_ok=True)


def expectation_of(plan: Plan, items: Sequence[Item]) -> dict[str, Any]:
    """What a host should look like since a plan was brought about: for the checks."""
    runs = {item.target: item.after for item in items if item.kind == "service"}
    files: dict[Level, list[str]] = {level: [] for level in Level}
    for item in plan.files:
        files[Level(item["level"])].append(item["path"])
    wanted: dict[str, Any] = {
        "module": plan.module,
        "values": dict(plan.values),
        "module_files": files[Level.MODULE],
    }
    if plan.services:
        # A service that was off may be off.
        wanted["services"] = {name: runs.get(name) == UNDER for name in plan.services}
        wanted["service_files"] = files[Level.SERVICE]
    return wanted


# Looking and changing


def _plans(
    ssh: Ssh, hosts: Sequence[str], choice: Choice, log: Path
) -> tuple[dict[str, Plan], dict[str, ServicesOutcome]]:
    """Plans by host, and the hosts that have none."""
    with ui.step("Looking at the hosts"):
        results = run_on_alive("services_collect", ssh, hosts, log=log)
    plans, ended = {}, {}
    for host in hosts:
        result = results.get(host, HostResult(False, False, "no answer"))
        document = result.data.get(_ACTION, {}).get("host")
        if not result.ok or not document:
            ended[host] = ServicesOutcome(host, False, result.message, result.reached)
            continue
        try:
            plans[host] = plan_services(view_from(document, f"what {host} says"), choice)
        except FsdeployError as problem:
            hint = f"; {problem.hint}" if problem.hint else ""
            ended[host] = ServicesOutcome(host, False, problem.message + hint)
    return plans, ended


def items_of(result: HostResult) -> tuple[Item, ...]:
    """What a run of the host module says of each thing."""
    return tuple(
        Item(
            item["kind"],
            item["target"],
            item["wanted"],
            item["before"],
            item["after"],
            Outcome(item["outcome"]),
            item["reason"],
        )
        for item in result.data.get(_ACTION, {}).get("results", ())
    )


def apply(request: ServicesRequest, *, journal: Journal | None = None) -> ServicesReport:
    """Bring hosts their module and services, or with `dry_run` ask what would change.

    Hosts go in parts. After a part in which one failed, the others are left alone.
    """
    began = time.monotonic()
    inventory = load_inventory(request.inventory).limited(request.limit)
    log = new_log("services")
    with contextlib.ExitStack() as stack:
        ssh = stack.enter_context(Ssh(inventory, log=log))
        if not request.dry_run:
            book = journal or stack.enter_context(Journal())
            stack.enter_context(book.lock())
        plans, ended = _plans(ssh, inventory.names, request.choice, log)
        for host, plan in plans.items():
            remembered.write(_folder("planned") / f"{host}.json", plan.as_dict())
        variables = {"services_plans": str(_folder("planned"))}
        names, failed = list(plans), ""
        size = len(names) if request.dry_run else request.at_once
        while names:
            part, names = names[:size], names[size:]
            if failed:
                reason = f"left alone, because {failed} failed"
                ended.update({host: ServicesOutcome(host, False, reason) for host in part})
                continue
            with ui.step("Asking what would change" if request.dry_run else ", ".join(part)):
                results = run_on_alive(
                    "services", ssh, part, variables, log=log, check=request.dry_run
                )
            for host in part:
                result = results.get(host, HostResult(False, False, "no answer"))
                ended[host] = outcome = _outcome(host, plans[host], result)
                if not outcome.ok:
                    failed = failed or host
                elif not request.dry_run:
                    path = _folder("applied") / f"{host}.json"
                    remembered.write(path, expectation_of(plans[host], outcome.items))
        commands = (by_hand("services", inventory, list(plans), variables),) if plans else ()
    return ServicesReport(
        tuple(ended[host] for host in inventory.names),
        time.monotonic() - began,
        log,
        commands if request.dry_run else (),
        request.dry_run,
    )


def _outcome(host: str, plan: Plan, result: HostResult) -> ServicesOutcome:
    return ServicesOutcome(
        host,
        result.ok,
        result.message,
        result.reached,
        result.changed,
        items_of(result),
        plan.notes,
        plan.proposals,
    )
