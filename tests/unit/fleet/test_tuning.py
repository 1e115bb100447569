"""Planning for hosts of an inventory, and what is remembered of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fsdeploy import cli, paths
from fsdeploy.errors import ExitCode, FsdeployError
from fsdeploy.fleet import tuning
from fsdeploy.fleet.ansible import HostResult
from fsdeploy.fleet.journal import Journal
from fsdeploy.tuning.plan import parse_choice
from fsdeploy.tuning.settings import Outcome
from tests.unit.fleet.folders import Plays
from tests.unit.tuning.host_side import SNAPSHOTS, Machine, document, host_side


class Fleet(Plays[Machine]):
    """Hosts made of snapshots."""

    def play_on(
        self, host: str, name: str, variables: Mapping[str, Any], check: bool
    ) -> HostResult:
        machine, changed = self.machines[host].host, False
        data: dict[str, Any] = {}
        if name == "tune_collect":
            data["snapshot"] = host_side.collect(machine)
        elif name == "tune":
            plan = json.loads((Path(variables["tuning_plans"]) / f"{host}.json").read_text())
            data["results"], changed = host_side.apply_settings(machine, plan["settings"], check)
        else:
            data["results"], changed = host_side.restore(machine, check)
        return HostResult(True, True, "", changed, {"host_tuning": data})


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    shapes = {"a": "igb-8", "b": "e1000-2"}
    machines = {name: Machine(tmp_path / name, document(shape)) for name, shape in shapes.items()}
    for machine in machines.values():
        machine.on_command = machine.restart_irqbalance
    made = Fleet(machines)
    monkeypatch.setattr(tuning, "_play", made.play)
    return made


@pytest.fixture
def inventory(tmp_path: Path) -> Path:
    path = tmp_path / "hosts.yml"
    path.write_text("fleet: {hosts: {a: {}, b: {}}}\n")
    return path


def request(inventory: Path, cpus: str = "all", *, dry_run: bool = False) -> tuning.TuneRequest:
    return tuning.TuneRequest(inventory, parse_choice(cpus), dry_run=dry_run)


def test_show_changes_nothing(fleet: Fleet, inventory: Path) -> None:
    before = fleet.machines["a"].tree()
    report = tuning.show(request(inventory))
    assert report.exit_code is ExitCode.OK
    assert [host.host for host in report.hosts] == ["a", "b"]
    assert report.hosts[0].count(Outcome.CHANGED) > 20
    assert report.hosts[0].notes == ("eth1 is down and left alone",)
    assert fleet.machines["a"].tree() == before
    assert fleet.plays == [("tune_collect", False, ("a", "b"))]


def test_applied_twice_then_restored(fleet: Fleet, inventory: Path) -> None:
    before = fleet.machines["a"].tree(without=["/proc/99"])
    first = tuning.apply(request(inventory))
    assert first.exit_code is ExitCode.OK
    assert all(host.changed for host in first.hosts)
    second = tuning.apply(request(inventory))
    assert not any(host.changed for host in second.hosts)
    assert all(
        item.outcome in (Outcome.UNCHANGED, Outcome.CANNOT)
        for host in tuning.show(request(inventory)).hosts
        for item in host.items
    )
    back = tuning.restore(request(inventory))
    assert back.exit_code is ExitCode.OK
    assert fleet.machines["a"].tree(without=["/proc/99"]) == before
    assert tuning.expected_settings("a") == ()


def test_what_verify_expects_is_what_hosts_took(fleet: Fleet, inventory: Path) -> None:
    fleet.machines["a"].cards.limits["eth0"] = 256
    tuning.apply(request(inventory))
    expected = {item["target"]: item["value"] for item in tuning.expected_settings("a")}
    assert expected["eth0-TxRx-5"] == "20"
    # Not 333: the driver made it of that. And e1000's, which was refused, is not expected.
    assert expected["eth0"] == "adaptive-rx=0 rx-usecs=256"
    assert not any(item["kind"] == "coalesce" for item in tuning.expected_settings("b"))
    # Nor is it shown as something that is still to be changed.
    (host, _) = tuning.show(request(inventory)).hosts
    assert host.count(Outcome.CHANGED) == 0


def test_a_refusal_is_remembered(fleet: Fleet, inventory: Path) -> None:
    fleet.machines["a"].cards.refused.add("eth0")
    assert tuning.apply(request(inventory)).exit_code is ExitCode.OK
    (host, _) = tuning.show(request(inventory)).hosts
    (card,) = [item for item in host.items if item.outcome is Outcome.CANNOT]
    assert card.reason == "Invalid argument (EINVAL)"


def test_what_was_refused_is_shown_with_its_reason(
    fleet: Fleet, inventory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.machines["a"].cards.refused.add("eth0")
    words = ["-q", "tune", "-i", str(inventory), "--apply"]
    for _ in range(2):
        assert cli.main(words) == 0
        said = capsys.readouterr().out
        assert "Invalid argument (EINVAL)" in said
        assert "1 cannot be changed" in said
    assert "ip_local_port_range" not in said  # unchanged the second time


def test_a_dry_run_asks_the_hosts_and_prints_commands(fleet: Fleet, inventory: Path) -> None:
    before = fleet.machines["a"].tree()
    report = tuning.apply(request(inventory, dry_run=True))
    assert fleet.plays[-1] == ("tune", True, ("a", "b"))
    assert fleet.machines["a"].tree() == before
    assert report.prospect
    (command,) = report.commands
    assert "ansible-playbook" in command
    assert "tuning_plans" in command
    assert tuning.expected_settings("a") == ()
    tuning.apply(request(inventory))
    applied = fleet.machines["a"].tree()
    assert tuning.restore(request(inventory, dry_run=True)).prospect
    assert fleet.machines["a"].tree() == applied
    assert tuning.expected_settings("a")


def test_a_silent_host(fleet: Fleet, inventory: Path) -> None:
    fleet.silent.add("b")
    report = tuning.apply(request(inventory))
    assert report.exit_code is ExitCode.UNREACHABLE
    a, b = report.hosts
    assert a.ok
    assert (b.ok, b.reached, b.reason) == (False, False, "Connection refused")


def test_a_choice_that_fits_one_host_only(fleet: Fleet, inventory: Path) -> None:
    report = tuning.apply(request(inventory, "7"))
    assert report.exit_code is ExitCode.CHECK_FAILED
    a, b = report.hosts
    assert a.ok
    assert b.reason == "CPU 7 does not run on this host; it has 0-1"
    assert "somaxconn" not in json.dumps(fleet.machines["b"].commands)
    assert fleet.machines["b"].get("/proc/sys/net/core/somaxconn") == "128\n"


def test_not_while_a_rollout_runs(fleet: Fleet, inventory: Path) -> None:
    with Journal() as journal, journal.lock():
        other = request(inventory)
        with pytest.raises(FsdeployError, match="a rollout is running"):
            tuning.apply(other)
        # Looking is no harm.
        assert tuning.show(other).exit_code is ExitCode.OK
    assert fleet.plays == [("tune_collect", False, ("a", "b"))]


def test_a_damaged_memory(fleet: Fleet, inventory: Path) -> None:
    tuning.apply(request(inventory))
    (path,) = (paths.state_dir() / "tuning" / "applied").glob("a.json")
    path.write_text("{}")
    with pytest.raises(FsdeployError, match=r"a\.json is damaged"):
        tuning.expected_settings("a")
    assert fleet.plays


def test_snapshots_are_collected_and_planned_from(
    fleet: Fleet, inventory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "out"
    words = ["-q", "tune", "-i", str(inventory), "--collect", "--output", str(folder)]
    assert cli.main(words) == 0
    assert json.loads((folder / "a.json").read_text()) == fleet.machines["a"].made_of
    capsys.readouterr()
    assert cli.main(["-q", "tune", "--show", "--json", "--snapshot", str(folder / "a.json")]) == 0
    shown = json.loads(capsys.readouterr().out)
    (host,) = shown["hosts"]
    assert {item["outcome"] for item in host["settings"]} == {"unchanged", "changed"}


def test_a_plan_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    path = str(SNAPSHOTS / "tg3-6.json")
    assert cli.main(["-q", "tune", "--diff", "--snapshot", path]) == 0
    said = capsys.readouterr().out
    assert "tg3-6 interrupt em1-2\n  - 3f\n  + 02\n" in said
    assert "to be changed" in said
    assert cli.main(["-q", "tune", "--show", "--snapshot", path]) == 0
    assert "em1 rx queue 1 on CPU 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--show"], "tune needs hosts"),
        (["--apply", "--snapshot", "x"], "--snapshot says nothing"),
        (["--show", "-i", "x", "--dry-run"], "--dry-run says nothing"),
        (["--restore", "-i", "x", "--cpus", "one"], "--cpus says nothing"),
        (["--show", "-i", "x", "--output", "y"], "--output says nothing"),
        (["--show", "-i", "x", "--cpus", "few"], "--cpus few"),
        (["--show", "--snapshot", "/nowhere"], "/nowhere"),
    ],
)
def test_bad_usage(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tune", *words]) == 2
    assert message in capsys.readouterr().err
