"""Hosts in folders: the ways to reach them, as commands over SSH and as playbooks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from fsdeploy import run
from fsdeploy.fleet.ansible import HostResult
from fsdeploy.fleet.inventory import Host
from fsdeploy.fleet.transport import Answered

MachineT = TypeVar("MachineT")


class LocalShell:
    """Takes what would go over SSH; the paths of a host are the folder's, its programs ours.

    `places` are beginnings of a host's paths, `before` the characters that stand before a path.
    """

    def __init__(self, root: Path, places: Iterable[str], before: str = " \n'=#") -> None:
        self.root = root
        self._paths = [
            (mark + place, f"{mark}{root}{place}") for place in places for mark in before
        ]
        self.tools = root.parent / "tools"
        self.tools.mkdir()
        self.log = root.parent / "commands"
        self.log.touch()

    def tool(self, name: str, body: str) -> None:
        """A program of the host: what it is called with is in the log."""
        path = self.tools / name
        path.write_text(f'#!/bin/sh\necho {name} "$@" >>{self.log}\n{body}\n')
        path.chmod(0o755)

    def here(self, text: str) -> str:
        """A script of the host's as it is run here."""
        for there, here in self._paths:
            text = text.replace(there, here)
        return text.replace("PATH=", f"PATH={self.tools}:", 1)

    def execute(
        self, _host: Host, command: str, *, input_text: str | None = None, timeout: float = 60
    ) -> Answered:
        ended = run.run(
            ["sh", "-c", self.here(f" {command}")],
            check=False,
            timeout=timeout,
            input_text=self.here(input_text) if input_text else None,
        )
        return Answered(True, ended.returncode, ended.output)

    def require(self, host: Host, command: str) -> str:
        answer = self.execute(host, command)
        assert answer.ok, answer
        return answer.output


class Plays(ABC, Generic[MachineT]):
    """Hosts in folders, reached the way `run_on_alive` reaches them."""

    def __init__(self, machines: Mapping[str, MachineT]) -> None:
        self.machines = machines
        self.silent: set[str] = set()
        self.plays: list[tuple[str, bool, tuple[str, ...]]] = []

    def play(
        self,
        name: str,
        _ssh: object,
        hosts: Sequence[str],
        variables: Mapping[str, Any] | None = None,
        *,
        log: Path,
        check: bool = False,
    ) -> dict[str, HostResult]:
        assert log.suffix == ".log"
        self.plays.append((name, check, tuple(hosts)))
        return {
            host: HostResult(False, False, "Connection refused")
            if host in self.silent
            else self.play_on(host, name, variables or {}, check)
            for host in hosts
        }

    @abstractmethod
    def play_on(
        self, host: str, name: str, variables: Mapping[str, Any], check: bool
    ) -> HostResult:
        """What a playbook does to one of them."""
