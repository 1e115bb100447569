# SPDX-License-Identifier: GPL-2.0-only
"""What the checks expect of a host and what they found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Expectation:
    """What a host should look like. An empty value is not checked.

    `default` is the release the boot loader starts when nobody intervenes, `previous` the one that
    must stay bootable. `tuning` are settings with kind, target and value.
    """

    release: str = ""
    default: str = ""
    previous: str = ""
    patched: bool = False
    tuning: tuple[Mapping[str, str], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For the file that the checks read."""
        return asdict(self)


@dataclass(frozen=True)
class CheckResult:
    """One check on one host. A failed `wanted` check is told but fails nothing."""

    host: str
    name: str
    title: str
    outcome: Outcome
    required: bool
    message: str = ""


@dataclass(frozen=True)
class HostReport:
    """All checks of one host; `reached` is False when it did not answer."""

    host: str
    reached: bool
    checks: tuple[CheckResult, ...]
    message: str = ""

    @property
    def ok(self) -> bool:
        """Whether every required check passed."""
        return self.reached and not failures(self.checks)


def failures(checks: Sequence[CheckResult]) -> list[CheckResult]:
    """The required checks that failed."""
    return [check for check in checks if check.required and check.outcome is Outcome.FAILED]
