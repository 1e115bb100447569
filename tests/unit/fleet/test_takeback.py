"""What happens to hosts that are taken back: by the module, by a shell, or not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fsdeploy.errors import ExitCode, FsdeployError
from fsdeploy.fleet import takeback
from fsdeploy.fleet.inventory import Host, Inventory
from fsdeploy.fleet.rollback import RollbackRequest
from fsdeploy.fleet.takeback import Back, Record, Tried
from fsdeploy.fleet.transport import Pulse, Ssh
from fsdeploy.verify.report import CheckResult, Expectation, HostReport, Outcome

RECORD: dict[str, object] = {"values": {}, "files": {}, "folders": []}
NAMES = ("module", "shell", "refused", "broken", "silent", "nothing", "damaged", "unproven", "gone")


class FakeSsh:
    """Hosts whose names say how they are."""

    def __init__(self, inventory: Inventory, *, log: Path) -> None:
        self.inventory = inventory
        self.config = log

    def __enter__(self) -> FakeSsh:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def each(
        self, hosts: Iterable[Host], ask: Callable[[Host], Pulse | None]
    ) -> Mapping[str, object]:
        return {host.name: ask(host) for host in hosts}

    def pulse(self, host: Host) -> Pulse | None:
        return None if host.name == "silent" else Pulse("id", "2.6.32", 1.0)

    def require(self, host: Host, command: str) -> str:
        assert "/record" in command
        return {"nothing": "-", "damaged": "{"}.get(host.name, json.dumps(RECORD))


@dataclass
class FakeWay:
    record: str = "/record"
    nothing: str = "has nothing"
    checks: tuple[str, ...] = ("some_",)
    forgotten: list[str] = field(default_factory=list)
    shells: list[str] = field(default_factory=list)

    def would(self, record: Record) -> str:
        assert record == RECORD
        return "would do it"

    def forget(self, host: str) -> None:
        self.forgotten.append(host)

    def with_ansible(
        self, _ssh: Ssh, records: Mapping[str, Record], _log: Path
    ) -> Mapping[str, Tried]:
        done = {
            "refused": Tried(problem="the kernel said no", final=True),
            "shell": Tried(problem="no Python"),
            "broken": Tried(problem="no Python"),
        }
        usual = Tried(Back(Expectation(release="x"), "is back"))
        return {name: done.get(name, usual) for name in records}

    def plainly(self, _ssh: Ssh, host: Host, record: Record) -> Back:
        assert record == RECORD
        self.shells.append(host.name)
        if host.name == "broken":
            raise FsdeployError("no shell either")
        return Back(Expectation(), "is back by a shell")


def prove(
    _config: Path, expectations: Mapping[str, Expectation], *, log: Path, only: Sequence[str]
) -> tuple[HostReport, ...]:
    assert log
    assert only == ("some_",)
    found = []
    for name in expectations:
        outcome = Outcome.FAILED if name == "unproven" else Outcome.PASSED
        check = CheckResult(name, "some_check", "It is so.", outcome, True, "it is not so")
        found.append(HostReport(name, name != "gone", (check,) if name != "gone" else ()))
    return tuple(found)


@pytest.fixture
def inventory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(takeback, "Ssh", FakeSsh)
    monkeypatch.setattr(takeback, "run_checks", prove)
    path = tmp_path / "hosts.yml"
    path.write_text(f"fleet: {{hosts: {{{', '.join(f'{name}: {{}}' for name in NAMES)}}}}}\n")
    return path


def test_each_host_ends_as_it_should(inventory: Path) -> None:
    way = FakeWay()
    report = takeback.take_back(RollbackRequest(inventory), way)
    assert {host.host: (host.ok, host.reason) for host in report.hosts} == {
        "module": (True, "is back"),
        "shell": (True, "is back by a shell"),
        "refused": (False, "the kernel said no"),
        "broken": (False, "no shell either"),
        "silent": (False, "does not answer over SSH"),
        "nothing": (True, "has nothing"),
        "damaged": (False, "/record on damaged is damaged; look at it and remove it"),
        "unproven": (False, "a check failed: it is not so"),
        "gone": (False, "does not answer to the checks"),
    }
    assert report.exit_code is ExitCode.UNREACHABLE
    assert {host.host for host in report.hosts if not host.reached} == {"silent", "gone"}
    assert way.shells == ["shell", "broken"]
    # Nothing is expected any more of those that were put back, whatever the checks say.
    assert sorted(way.forgotten) == ["gone", "module", "nothing", "shell", "unproven"]


def test_without_ansible_from_the_start(inventory: Path) -> None:
    way = FakeWay()
    takeback.take_back(RollbackRequest(inventory, limit=("module", "refused"), plain_ssh=True), way)
    assert way.shells == ["module", "refused"]


def test_a_dry_run(inventory: Path) -> None:
    way = FakeWay()
    report = takeback.take_back(
        RollbackRequest(inventory, limit=("module", "nothing"), dry_run=True), way
    )
    assert [host.reason for host in report.hosts] == ["would do it", "has nothing"]
    assert report.dry_run
    assert (way.shells, way.forgotten) == ([], [])
