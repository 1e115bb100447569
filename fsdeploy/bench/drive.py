# SPDX-License-Identifier: GPL-2.0-only
"""Runs a benchmark: builds the kernels, boots the guests, keeps everything they said."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fsdeploy import paths, run, ui
from fsdeploy.bench import plan
from fsdeploy.kernel import build, store, target
from fsdeploy.lab import guest, ktap, qemu

FORMAT = 1
PROGRAM = "connections"

_SOURCE = Path(__file__).parent / "guestfiles" / f"{PROGRAM}.c"

# RHEL's kernel goes over to unfair spinlocks when it sees a hypervisor; hosts have ticket locks.
GUEST_CPU = f"{qemu.DEFAULT_CPU},-hypervisor"


def bench(request: plan.Request, output: Path | None = None) -> dict[str, Any]:
    """Run all of it and return the record, which `report` reads; see docs/benchmark.md.

    `output` is written after each guest, so what an interrupted run has measured is kept.
    """
    plan.check(request)
    run.require(guest.COMPILER, qemu.TOOL)
    runs = plan.runs(request)
    kernels = _kernels(request, runs)
    record: dict[str, Any] = {
        "format": FORMAT,
        "request": {
            **asdict(request),
            "configurations": [one.name for one in request.configurations],
        },
        "host": _host(),
        "kernels": {
            f"{base}, {measure}": {"release": one.release, "build_id": one.manifest.build_id}
            for (base, measure), one in kernels.items()
        },
        "runs": [],
    }
    with tempfile.TemporaryDirectory(prefix="fsdeploy-bench-") as name:
        program = compile_program(Path(name))
        with ui.progress("Benchmark", len(runs)) as meter:
            for one in runs:
                built = kernels[one.configuration.base, one.measure]
                record["runs"].append(
                    run_one(
                        request,
                        one,
                        built.image,
                        program,
                        Path(name) / "guest",
                        modules=[built.module(module) for module in own_modules(request, one)],
                    )
                )
                if output:
                    store.write_atomically(output, json.dumps(record, indent=1) + "\n")
                meter.advance()
    return record


def compile_program(folder: Path) -> Path:
    """The load generator and servers, compiled."""
    guest.compile_program(_SOURCE, folder / PROGRAM, include=[paths.data_root() / "modules"])
    return folder / PROGRAM


def own_modules(request: plan.Request, one: plan.Run) -> tuple[str, ...]:
    """Modules of ours that a guest loads: those of its target, if it switches anything."""
    wanted = plan.switches(request.target, one.configuration)
    return tuple(path.name for path in target.load(request.target).modules) if wanted else ()


def run_one(
    request: plan.Request,
    one: plan.Run,
    image: Path,
    program: Path,
    folder: Path,
    modules: Sequence[Path] = (),
) -> dict[str, Any]:
    """The record of one guest: all it said of each phase, and what was wrong."""
    count = len(plan.phases(request, one.measure))
    machine = guest.Guest(
        kernel=image,
        modules=tuple(modules),
        programs=(guest.Program(PROGRAM, program, seconds=count * (plan.PHASE_LIMIT + 30)),),
        cpus=one.cpus,
        environment=plan.environment(request, one),
        cpu=GUEST_CPU,
        counted=one.measure == plan.INSTRUCTIONS,
        seed=one.repetition + 1,
    )
    started, before = time.time(), os.getloadavg()
    result = guest.run_guest(machine, folder)
    phases = _phases(result)
    failures = list(result.failures())
    if len(phases) != count and not failures:
        failures.append(f"{len(phases)} phases of {count} were reported")
    if failures:
        kept = paths.log_dir() / f"bench-{time.strftime('%Y%m%d-%H%M%S')}.log"
        shutil.copyfile(result.log, kept)
        ui.warn(f"{one}: {failures[0]} (log: {kept})")
    return {
        "measure": one.measure,
        "configuration": one.configuration.name,
        "cpus": one.cpus,
        "repetition": one.repetition,
        "release": result.release,
        "started": round(started, 1),
        "seconds": round(result.seconds, 1),
        # The host's, over a minute, when the guest was started and when it had ended.
        "load": [round(before[0], 2), round(os.getloadavg()[0], 2)],
        "failures": failures,
        "phases": phases,
    }


def _phases(result: guest.GuestResult) -> list[list[str]]:
    test = result.program(PROGRAM).test
    report = test.subtests if test else None
    return [[line.strip() for line in one.diagnostics] for one in (report or ktap.Report()).tests]


def _kernels(
    request: plan.Request, runs: tuple[plan.Run, ...]
) -> Mapping[tuple[str, str], build.Build]:
    """The builds by base and measure; those of one base share a build where they can."""
    wanted = dict.fromkeys((one.configuration.base, one.measure) for one in runs)
    return {
        (base, measure): build.build_kernel(
            build.request(
                request.target,
                fragments=("lab", "lockstat") if measure == plan.COUNTS else ("lab",),
                stock=base == plan.STOCK,
            )
        )
        for base, measure in wanted
    }


def _host() -> dict[str, Any]:
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "model": _model(),
        "qemu": run.run([qemu.TOOL, "--version"]).output.splitlines()[0],
        "guest_cpu": GUEST_CPU,
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }


def _model() -> str:
    """The processor's own name for itself."""
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return "unknown"
