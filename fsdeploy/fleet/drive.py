# SPDX-License-Identifier: GPL-2.0-only
"""Does what a rollout decides: playbooks through Ansible, boots over SSH, the shipped checks."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fsdeploy import paths, run, ui
from fsdeploy.errors import FsdeployError
from fsdeploy.fleet import hardware
from fsdeploy.fleet.ansible import HostResult, by_hand, run_playbook
from fsdeploy.fleet.driver import Looked, StepResult
from fsdeploy.fleet.hardware import CLASS_VARIABLE, hardware_class
from fsdeploy.fleet.inventory import Host, Inventory
from fsdeploy.fleet.package import KernelPackage
from fsdeploy.fleet.preflight import snapshot_from
from fsdeploy.fleet.transport import Pulse, Ssh, reason_of
from fsdeploy.repository.publish import address_of
from fsdeploy.verify.report import CheckResult, Expectation
from fsdeploy.verify.suite import run_checks

# What a trial kernel is started with: a panic, an oops or a CPU that hangs boots the host again.
# "1" switches the NMI watchdog on, only "panic" has it do more than warn; both kernels take both.
TRIAL_ARGUMENTS = (
    "panic=10",
    "oops=panic",
    "softlockup_panic=1",
    "nmi_watchdog=1",
    "nmi_watchdog=panic",
)

_POWER_SECONDS = 120.0  # how long a power command may take


def new_log(command: str) -> Path:
    """A log file for one run of a command."""
    return paths.log_dir() / f"{time.strftime('%Y%m%d-%H%M%S')}-{command}.log"


def step_result(result: HostResult) -> StepResult:
    """A playbook's result as a step's."""
    return StepResult(result.ok, result.reached, result.message, result.changed, result.data)


def _tell(task: str) -> None:
    # "role : what it does"; the check of the role's own arguments is no step of a host.
    words = task.rsplit(" : ", 1)[-1]
    if not words.startswith("Validating arguments"):
        ui.note(words)


class FleetDriver:
    """The driver (see driver.py) for real hosts."""

    def __init__(
        self,
        inventory: Inventory,
        *,
        package: KernelPackage | None = None,
        trial_arguments: Sequence[str] = (),
        power_command: str = "",
        repository: str = "",
        command: str = "rollout",
        keep_open: Sequence[int] = (),
    ) -> None:
        self.log = new_log(command)
        self.ssh = Ssh(inventory, log=self.log)
        self._inventory = inventory
        self._package = package
        self._trial_arguments = (*TRIAL_ARGUMENTS, *trial_arguments)
        self._power_command = power_command
        self._repository = repository
        self._keep_open = keep_open

    def __enter__(self) -> FleetDriver:
        return self

    def __exit__(self, *_: object) -> None:
        self.ssh.close()

    def _hosts(self, names: Sequence[str]) -> list[Host]:
        return [self._inventory.host(name) for name in names]

    def _play(
        self, name: str, hosts: Sequence[str], variables: Mapping[str, Any] | None = None
    ) -> dict[str, HostResult]:
        return run_playbook(
            name,
            self.ssh,
            hosts,
            variables,
            log=self.log,
            on_task=_tell,
            keep_open=self._keep_open,
        )

    def _steps(
        self, name: str, hosts: Sequence[str], variables: Mapping[str, Any] | None = None
    ) -> dict[str, StepResult]:
        results = self._play(name, hosts, variables)
        return {host: step_result(result) for host, result in results.items()}

    def classes(self, hosts: Sequence[str]) -> Mapping[str, str]:
        """What the inventory says; else what the host says of itself."""
        chosen = self._hosts(hosts)
        named = {host.name: str(host.variables.get(CLASS_VARIABLE, "")) for host in chosen}
        answers = self.ssh.each(
            [host for host in chosen if not named[host.name]],
            lambda host: self.ssh.execute(host, hardware.ASK, timeout=40),
        )
        asked = {name: hardware_class(answer.output) for name, answer in answers.items()}
        return {**named, **asked}

    def look(self, hosts: Sequence[str]) -> Mapping[str, Looked]:
        """Collect the snapshots; a host that does not answer costs Ansible no time."""
        answers = self.ssh.each(
            self._hosts(hosts), lambda host: self.ssh.execute(host, "true", timeout=40)
        )
        alive = [host for host in hosts if answers[host].reached]
        looked = {
            host: Looked(StepResult(False, False, reason_of(answers[host].output)))
            for host in hosts
            if host not in alive
        }
        for host, result in self._play("preflight", alive).items():
            snapshot = None
            if result.ok:
                snapshot = snapshot_from(
                    result.data.get("host_preflight", {}).get("host", {}),
                    result.data.get("boot_entry", {}).get("boot", {}),
                )
            looked[host] = Looked(step_result(result), snapshot)
        return looked

    def _package_variables(self) -> dict[str, Any]:
        assert self._package is not None
        return {
            "kernel_package_file": str(self._package.path),
            "kernel_package_name": self._package.name,
            "kernel_package_release": self._package.release,
            "kernel_package_sha256": self._package.sha256,
            "kernel_package_key": str(self._package.key.path) if self._package.key else "",
            "kernel_package_url": address_of(self._repository, self._package.path)
            if self._repository
            else "",
        }

    def stage(self, hosts: Sequence[str]) -> Mapping[str, StepResult]:
        """Bring, check and install the package beside the running kernel."""
        return self._steps("stage", hosts, self._package_variables())

    def unstage(self, hosts: Sequence[str]) -> Mapping[str, StepResult]:
        """Take the package away again."""
        return self._steps("unstage", hosts, self._package_variables())

    def _trial_variables(self) -> dict[str, Any]:
        assert self._package is not None
        return {
            "trial_boot_release": self._package.release,
            "trial_boot_arguments": list(self._trial_arguments),
        }

    def arm(self, hosts: Sequence[str]) -> Mapping[str, StepResult]:
        """Let the boot loader start the new kernel once, with the arguments of a trial."""
        return self._steps("arm", hosts, self._trial_variables())

    def disarm(self, hosts: Sequence[str]) -> Mapping[str, StepResult]:
        """Take back what `arm` did to the boot loader."""
        return self._steps("disarm", hosts)

    def promote(self, hosts: Sequence[str], release: str) -> Mapping[str, StepResult]:
        """Make a release the default and read it back."""
        return self._steps("promote", hosts, {"promotion_release": release})

    def commands(self, hosts: Sequence[str]) -> tuple[str, ...]:
        """What a rollout runs on hosts that pass the preflight, for a person to copy."""
        assert self._package is not None
        plays: tuple[tuple[str, Mapping[str, Any]], ...] = (
            ("stage", self._package_variables()),
            ("arm", self._trial_variables()),
            ("promote", {"promotion_release": self._package.release}),
        )
        if not hosts:
            return ()
        return tuple(by_hand(name, self._inventory, hosts, values) for name, values in plays)

    def reboot(self, boots: Mapping[str, str]) -> Mapping[str, StepResult]:
        """Tell hosts to boot, side by side."""
        answers = self.ssh.each(
            self._hosts(list(boots)), lambda host: self.ssh.reboot(host, boots[host.name])
        )
        return {
            name: StepResult(
                answer.ok, answer.reached, "" if answer.ok else reason_of(answer.output)
            )
            for name, answer in answers.items()
        }

    def power_cycle(self, hosts: Sequence[str]) -> Mapping[str, StepResult]:
        """Run the operator's command for each host, one after the other."""
        results = {}
        for host in hosts if self._power_command else ():
            words = [word.replace("{host}", host) for word in shlex.split(self._power_command)]
            try:
                run.run(words, timeout=_POWER_SECONDS, log=self.log)
                results[host] = StepResult(True)
            except FsdeployError as problem:
                results[host] = StepResult(False, True, problem.message)
        return results

    def pulse(self, hosts: Sequence[str]) -> Mapping[str, Pulse | None]:
        """Signs of life."""
        return self.ssh.each(self._hosts(hosts), self.ssh.pulse)

    def last_words(self, host: str) -> str:
        """The line of a panic that pstore kept over the boot, if the machine has such a store."""
        answer = self.ssh.execute(
            self._inventory.host(host),
            "cat /sys/fs/pstore/dmesg-* 2>/dev/null | grep -a -m1 -E 'Kernel panic|BUG|Oops'",
            timeout=30,
        )
        return " ".join(answer.output.split())[:200] if answer.ok else ""

    def verify(
        self, expectations: Mapping[str, Expectation]
    ) -> Mapping[str, Sequence[CheckResult] | None]:
        """Run the shipped checks."""
        reports = run_checks(self.ssh.config, expectations, log=self.log)
        return {report.host: report.checks if report.reached else None for report in reports}
