# SPDX-License-Identifier: GPL-2.0-only
"""The one exception that reaches a user, and the exit codes it ends with.

Exit codes, for every command: 0 fine, 1 a check failed, 2 bad usage or input, 3 hosts
unreachable, 130 interrupted.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path
from typing import Protocol


class ExitCode(IntEnum):
    """What a command's exit code tells its caller."""

    OK = 0
    CHECK_FAILED = 1
    BAD_INPUT = 2
    UNREACHABLE = 3
    INTERRUPTED = 130


class HostOutcome(Protocol):
    """What decides an exit code, of one host."""

    @property
    def reached(self) -> bool:
        """Whether the host answered."""

    @property
    def ok(self) -> bool:
        """Whether all went well on it."""


def exit_code_of(hosts: Iterable[HostOutcome]) -> ExitCode:
    """3 when a host does not answer, else 1 when one is not well, else 0."""
    outcomes = tuple(hosts)
    if any(not host.reached for host in outcomes):
        return ExitCode.UNREACHABLE
    return ExitCode.OK if all(host.ok for host in outcomes) else ExitCode.CHECK_FAILED


class FsdeployError(Exception):
    """Something a user can understand and act on.

    `message` says what went wrong and where, `hint` what to do about it, `log` names the file that
    holds the whole story.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        log: Path | None = None,
        code: ExitCode = ExitCode.BAD_INPUT,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.log = log
        self.code = code


class CheckFailed(FsdeployError):
    """A check ran and its answer is no: exit code 1."""

    def __init__(self, message: str, *, hint: str = "", log: Path | None = None) -> None:
        super().__init__(message, hint=hint, log=log, code=ExitCode.CHECK_FAILED)


class Unreachable(FsdeployError):
    """Hosts that did not answer: exit code 3."""

    def __init__(self, message: str, *, hint: str = "", log: Path | None = None) -> None:
        super().__init__(message, hint=hint, log=log, code=ExitCode.UNREACHABLE)
