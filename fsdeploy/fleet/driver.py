# SPDX-License-Identifier: GPL-2.0-only
"""What a rollout asks of the world: the line between deciding (rollout.py) and doing.

`FleetDriver` (drive.py) does it with Ansible, SSH and the shipped checks; tests have one that
plays hosts in memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fsdeploy.fleet.preflight import Snapshot
from fsdeploy.fleet.transport import Pulse
from fsdeploy.verify.report import CheckResult, Expectation


@dataclass(frozen=True)
class StepResult:
    """How a step ended on one host. `reached` is False when the host did not answer."""

    ok: bool
    reached: bool = True
    message: str = ""
    changed: bool = False
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Looked:
    """A host's snapshot, or why there is none."""

    result: StepResult
    snapshot: Snapshot | None = None


class Driver(Protocol):
    """Steps on hosts. Results by host name; a host that is missing in them was not reached."""

    def classes(self, hosts: Sequence[str]) -> Mapping[str, str]:
        """The hardware class of each host, empty for one that does not answer."""
        ...

    def look(self, hosts: Sequence[str]) -> Mapping[str, Looked]:
        """Collect the snapshots; changes nothing."""
        ...

    def commands(self, hosts: Sequence[str]) -> tuple[str, ...]:
        """What changes hosts, as commands that a person can copy."""
        ...

    def stage(self, hosts: Sequence[str]) -> Mapping[str, StepResult]:
        """Copy, check and install the package beside the running kernel."""
        ...

    def unstage(self, hosts: Sequence[str]) -> Mapping[str, StepResult]:
        """Take the package away again; only the one that this rollout brought."""
        ...

    def arm(self, hosts: Sequence[str]) -> Mapping[str, StepResult]:
        """Let the boot loader start the new kernel once."""
        ...

    def disarm(self, hosts: Sequence[str]) -> Mapping[str, StepResult]:
        """Take back what `arm` did to the boot loader."""
        ...

    def promote(self, hosts: Sequence[str], release: str) -> Mapping[str, StepResult]:
        """Make a release the default and read it back."""
        ...

    def reboot(self, boots: Mapping[str, str]) -> Mapping[str, StepResult]:
        """Tell each host to end the boot of that id; one in another boot does nothing."""
        ...

    def power_cycle(self, hosts: Sequence[str]) -> Mapping[str, StepResult]:
        """Switch the power of hosts off and on; empty when there is no command for it."""
        ...

    def pulse(self, hosts: Sequence[str]) -> Mapping[str, Pulse | None]:
        """Signs of life."""
        ...

    def last_words(self, host: str) -> str:
        """What the kernel that died left behind (pstore, kdump), in one line; may be empty."""
        ...

    def verify(
        self, expectations: Mapping[str, Expectation]
    ) -> Mapping[str, Sequence[CheckResult] | None]:
        """Run the shipped checks; None for a host that does not answer."""
        ...
