# SPDX-License-Identifier: GPL-2.0-only
"""What the checks expect of a host and what they found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
    must stay bootable. `tuning` are settings with kind, target and value. `services` is what
    fleet/services.py says of the module and of services under libfsocket.
    """

    release: str = ""
    default: str = ""
    previous: str = ""
    patched: bool = False
    tuning: tuple[Mapping[str, str], ...] = ()
    services: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For the file that the checks read."""
        return asdict(self)


@dataclass(frozen=True)
class CheckResult:
    """One check on one host. A failed `wanted` check is told but fails nothing.

    `group` is the part of the host that it looks at, `seconds` how long it took.
    """

    host: str
    name: str
    title: str
    outcome: Outcome
    required: bool
    message: str = ""
    group: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class HostReport:
    """All checks of one host; `reached` is False when it did not answer. `kernel` is what runs."""

    host: str
    reached: bool
    checks: tuple[CheckResult, ...]
    message: str = ""
    kernel: str = ""

    @property
    def ok(self) -> bool:
        """Whether every required check passed."""
        return self.reached and not failures(self.checks)

    @property
    def state(self) -> str:
        """One word for it."""
        return "ok" if self.ok else ("failed" if self.reached else "unreachable")

    def count(self, outcome: Outcome, *, required: bool | None = None) -> int:
        """How many checks ended so; of all, or of the required or the wanted ones."""
        return sum(
            check.outcome is outcome and required in (None, check.required) for check in self.checks
        )


@dataclass(frozen=True)
class Finding:
    """The same thing wrong on hosts: the check, and who said what."""

    title: str
    required: bool
    hosts: Mapping[str, tuple[str, ...]]  # by message, the most frequent first

    @property
    def count(self) -> int:
        """On how many hosts."""
        return sum(len(names) for names in self.hosts.values())


def failures(checks: Sequence[CheckResult]) -> list[CheckResult]:
    """The required checks that failed."""
    return [check for check in checks if check.required and check.outcome is Outcome.FAILED]


def _by_message(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Hosts by what was said, from pairs of a message and a host."""
    found: dict[str, list[str]] = {}
    for message, host in pairs:
        found.setdefault(message, []).append(host)
    order = sorted(found, key=lambda message: -len(found[message]))
    return {message: tuple(found[message]) for message in order}


def findings(hosts: Sequence[HostReport]) -> tuple[Finding, ...]:
    """What failed, by check: required ones first, then by the number of hosts."""
    failed: dict[tuple[bool, str], list[tuple[str, str]]] = {}
    for host in hosts:
        for check in host.checks:
            if check.outcome is Outcome.FAILED:
                said = (check.message, host.host)
                failed.setdefault((check.required, check.title.rstrip(".")), []).append(said)
    found = [
        Finding(title, required, _by_message(said)) for (required, title), said in failed.items()
    ]
    return tuple(sorted(found, key=lambda item: (not item.required, -item.count)))


def silent(hosts: Sequence[HostReport]) -> Mapping[str, tuple[str, ...]]:
    """Hosts that did not answer, by the reason."""
    return _by_message(
        (host.message or "no answer", host.host) for host in hosts if not host.reached
    )


def states(hosts: Sequence[HostReport]) -> Mapping[str, int]:
    """How many hosts are in which state; each state is named."""
    counts = Counter(host.state for host in hosts)
    return {state: counts[state] for state in ("ok", "failed", "unreachable")}
