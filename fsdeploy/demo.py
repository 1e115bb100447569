# SPDX-License-Identifier: GPL-2.0-only
"""The whole way on one lab host: build, roll out, verify, break, come back, roll back.

Every line of the closing table is something that was seen: a step that does not end as it should
stops the demo with exit code 1.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fsdeploy import ui
from fsdeploy.errors import CheckFailed
from fsdeploy.fleet.rollback import RollbackRequest, rollback_kernel
from fsdeploy.fleet.rollout import RolloutReport, RolloutRequest, rollout
from fsdeploy.fleet.states import State
from fsdeploy.fleet.verify import VerifyRequest, verify_hosts
from fsdeploy.kernel import build
from fsdeploy.lab import machine

# A kernel that lacks the driver of the host's disk: it panics where it mounts its root file
# system, the way a real misconfigured kernel does.
BROKEN = "# CONFIG_VIRTIO_BLK is not set\n"


@dataclass(frozen=True)
class DemoRequest:
    """What to show it with; `keep` leaves the lab host running."""

    target: str
    source: str = ""
    keep: bool = False


@dataclass(frozen=True)
class Scene:
    """One step that was done: its title, what was seen, and wall time."""

    title: str
    outcome: str
    seconds: float


@dataclass
class _Play:
    scenes: list[Scene] = field(default_factory=list)

    @contextlib.contextmanager
    def scene(self, title: str) -> Iterator[list[str]]:
        """A step; what is put into the list is what the table says was seen."""
        seen: list[str] = []
        began = time.monotonic()
        with ui.step(title):
            yield seen
        self.scenes.append(Scene(title, "; ".join(seen), time.monotonic() - began))


def _expect(condition: bool, message: str, log: Path | None = None) -> None:
    if not condition:
        raise CheckFailed(message, hint="the steps above say what happened", log=log)


def _rolled_out(report: RolloutReport, wanted: State) -> str:
    (host,) = report.hosts
    _expect(
        host.state is wanted,
        f"{host.host} is {host.state}, not {wanted}: {host.reason}",
        report.log,
    )
    return f"{host.state}, runs {host.kernel}" + (f" ({host.reason})" if host.reason else "")


def demo(request: DemoRequest) -> list[Scene]:
    """Play it. Raises CheckFailed at the first step that does not end as it should."""
    play = _Play()
    with tempfile.TemporaryDirectory(prefix="fsdeploy-demo-") as scratch:
        broken = Path(scratch) / "no-disk-driver.config"
        broken.write_text(BROKEN, encoding="utf-8")
        kernels = {}
        for name, stock, extra in (
            ("stock", True, ()),
            ("patched", False, ()),
            ("broken", False, (str(broken),)),
        ):
            with play.scene(f"build the {name} kernel") as seen:
                kernels[name] = build.build_kernel(
                    build.request(request.target, request.source, ("lab", *extra), stock=stock)
                )
                seen.append(kernels[name].release)
        _on_a_host(play, request, kernels)
    return play.scenes


def _on_a_host(play: _Play, request: DemoRequest, kernels: dict[str, build.Build]) -> None:
    stock, patched, broken = kernels["stock"], kernels["patched"], kernels["broken"]
    with contextlib.ExitStack() as stack:
        with play.scene("start a host on the stock kernel") as seen:
            lab = stack.enter_context(machine.lab(kernels=[stock.kernel_rpm], keep=request.keep))
            seen.append(f"{lab.names[0]} runs {lab.command('uname -r')}")
        inventory = lab.inventory

        with play.scene("roll out the patched kernel") as seen:
            report = rollout(RolloutRequest(inventory, patched.kernel_rpm))
            seen.append(_rolled_out(report, State.PROMOTED))
        with play.scene("verify") as seen:
            seen.append(_verified(inventory, patched.release))
        with play.scene("look at it running") as seen:
            running = lab.command("uname -r")
            _expect(running == patched.release, f"the host runs {running}")
            seen.append(f"{lab.command('cat /etc/redhat-release')}, {lab.command('uname -sr')}")
            seen.append(lab.command("uptime").strip())

        with play.scene("roll out a kernel that panics") as seen:
            report = rollout(RolloutRequest(inventory, broken.kernel_rpm))
            seen.append(_rolled_out(report, State.ROLLED_BACK))
        with play.scene("verify") as seen:
            seen.append(_verified(inventory, patched.release))

        with play.scene("roll back to the stock kernel") as seen:
            back = rollback_kernel(RollbackRequest(inventory, to=stock.release))
            (host,) = back.hosts
            _expect(host.ok and host.kernel == stock.release, f"{host.host}: {host.reason}")
            seen.append(f"runs {host.kernel}")
        with play.scene("verify") as seen:
            seen.append(_verified(inventory, stock.release))


def _verified(inventory: Path, release: str) -> str:
    report = verify_hosts(VerifyRequest(inventory, expect=release))
    (host,) = report.hosts
    _expect(report.exit_code == 0, f"{host.host}: {host.message or 'a check failed'}", report.log)
    return f"{len(host.checks)} checks, all that are required passed"
