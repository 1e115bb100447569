"""Services for hosts of an inventory, and what is remembered of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fsdeploy import cli, paths
from fsdeploy.errors import ExitCode, FsdeployError
from fsdeploy.fleet import services, unserve
from fsdeploy.fleet.ansible import HostResult
from fsdeploy.fleet.journal import Journal
from fsdeploy.repository.publish import PublishRequest, publish
from fsdeploy.services.plan import Choice, Level, Plan, Workload
from fsdeploy.tuning.settings import Outcome
from fsdeploy.verify.report import Expectation
from tests.keys import keyring, manifest_of, small_package
from tests.unit.fleet.folders import Plays
from tests.unit.services.host_side import KMOD, Machine, choice_of, host_side


class Fleet(Plays[Machine]):
    """Hosts with nginx."""

    def play_on(
        self, host: str, name: str, variables: Mapping[str, Any], check: bool
    ) -> HostResult:
        machine, changed, problem = self.machines[host], False, ""
        data: dict[str, Any] = {}
        if name == "services_collect":
            data["host"] = host_side.collect(machine.host)
        elif name == "services":
            plan = json.loads((Path(variables["services_plans"]) / f"{host}.json").read_text())
            for item in plan["packages"] if not check else ():
                copied = f"/var/lib/fsdeploy/packages/{Path(item['file']).name}"
                machine.put(copied, Path(item["file"]).read_text())
            data["results"], changed = host_side.apply_plan(
                machine.host, plan, "/var/lib/fsdeploy/packages", check
            )
            problem = host_side.stuck(data["results"])
        else:
            level = variables["services_level"]
            data["results"], changed = host_side.restore(machine.host, level, check)
            problem = host_side.left(data["results"])
        return HostResult(not problem, True, problem, changed, {"host_services": data})


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    hosts = {name: Machine(tmp_path / "hosts" / name, ("nginx",)) for name in "abc"}
    made = Fleet(hosts)
    monkeypatch.setattr(services, "run_on_alive", made.play)
    monkeypatch.setattr(unserve, "run_on_alive", made.play)
    return made


@pytest.fixture
def request_(tmp_path: Path) -> services.ServicesRequest:
    path = tmp_path / "hosts.yml"
    path.write_text("fleet: {hosts: {a: {}, b: {}, c: {}}}\n")
    return services.ServicesRequest(path, choice_of(tmp_path), at_once=2)


def test_applied_twice(fleet: Fleet, request_: services.ServicesRequest) -> None:
    first = services.apply(request_)
    assert first.exit_code is ExitCode.OK
    assert all(host.changed for host in first.hosts)
    assert "accept_mutex off" in first.hosts[0].proposals[0]
    # Two at a time.
    assert [hosts for name, _, hosts in fleet.plays if name == "services"] == [("a", "b"), ("c",)]
    second = services.apply(request_)
    assert not any(host.changed for host in second.hosts)
    assert second.hosts[0].count(Outcome.CHANGED) == 0


def test_a_dry_run_changes_nothing_and_prints_commands(
    fleet: Fleet, request_: services.ServicesRequest
) -> None:
    before = fleet.machines["a"].tree()
    report = services.apply(replace(request_, dry_run=True))
    assert report.prospect
    assert fleet.machines["a"].tree() == before
    assert fleet.plays[-1] == ("services", True, ("a", "b", "c"))
    (command,) = report.commands
    assert "services_plans" in command
    assert services.expected_services("a") == {}


def test_hosts_after_one_that_failed_are_left_alone(
    fleet: Fleet, request_: services.ServicesRequest
) -> None:
    fleet.machines["b"].breaks.add("nginx")
    before = fleet.machines["c"].tree()
    report = services.apply(request_)
    assert report.exit_code is ExitCode.CHECK_FAILED
    a, b, c = report.hosts
    assert a.ok
    assert "taken back" in b.reason
    assert c.reason == "left alone, because b failed"
    assert fleet.machines["c"].tree() == before
    assert services.expected_services("a")
    assert services.expected_services("b") == {}


def test_a_host_without_a_plan_is_told(fleet: Fleet, request_: services.ServicesRequest) -> None:
    fleet.silent.add("b")
    report = services.apply(replace(request_, choice=Choice()))
    assert report.exit_code is ExitCode.UNREACHABLE
    a, b, _ = report.hosts
    assert "has no Fastsocket module; --module-rpm" in a.reason
    assert (b.reached, b.reason) == (False, "Connection refused")
    assert [name for name, _, _ in fleet.plays] == ["services_collect"]


def test_what_verify_expects(fleet: Fleet, request_: services.ServicesRequest) -> None:
    fleet.machines["b"].stop("nginx")
    services.apply(request_)
    expected = services.expected_services("a")
    assert expected["module"] == "fastsocket"
    assert expected["services"] == {"nginx": True}
    assert expected["service_files"] == ["/etc/sysconfig/nginx"]
    # One that was off may be off.
    assert services.expected_services("b")["services"] == {"nginx": False}
    services.forget_applied("a", Level.SERVICE)
    assert set(services.expected_services("a")) == {"module", "values", "module_files"}
    services.forget_applied("a", Level.MODULE)
    assert services.expected_services("a") == {}


def test_a_damaged_memory(fleet: Fleet, request_: services.ServicesRequest) -> None:
    services.apply(request_)
    assert fleet.plays
    (path,) = (paths.state_dir() / "services" / "applied").glob("a.json")
    for text in ("{", "[]"):
        path.write_text(text)
        with pytest.raises(FsdeployError, match=r"a\.json is damaged"):
            services.expected_services("a")


def test_not_while_a_rollout_runs(fleet: Fleet, request_: services.ServicesRequest) -> None:
    with Journal() as journal, journal.lock():
        with pytest.raises(FsdeployError, match="a rollout is running"):
            services.apply(request_)
        assert services.apply(replace(request_, dry_run=True)).exit_code is ExitCode.OK
    assert {check for name, check, _ in fleet.plays if name == "services"} == {True}


def test_what_the_host_module_took_back(
    fleet: Fleet, request_: services.ServicesRequest, tmp_path: Path
) -> None:
    services.apply(request_)
    records = {
        name: json.loads(machine.get(host_side.before_of("module")))
        for name, machine in fleet.machines.items()
    }
    module = unserve._Services(Level.MODULE)
    fleet.silent.add("b")
    tried = module.with_ansible(object(), records, tmp_path / "x.log")  # type: ignore[arg-type]
    back = tried["a"].back
    assert back
    # In use is no failure.
    assert "stays: fastsocket, in use by nginx" in back.reason
    assert back.expectation == Expectation(
        services={
            "values": {},
            "gone": [
                "/etc/modprobe.d/fsdeploy-fastsocket.conf",
                "/etc/sysconfig/modules/fsdeploy-fastsocket.modules",
            ],
            "unloaded": "fastsocket",
        }
    )
    # Where it could not work a shell tries.
    assert (tried["b"].back, tried["b"].final) == (None, False)
    service = unserve._Services(Level.SERVICE)
    record = json.loads(fleet.machines["a"].get(host_side.before_of("service")))
    tried = service.with_ansible(object(), {"a": record}, tmp_path / "x.log")  # type: ignore[arg-type]
    back = tried["a"].back
    assert back
    assert back.expectation == Expectation(services={"plain": ["nginx"], "running": ["nginx"]})


def test_a_service_that_does_not_come_back_is_the_hosts_last_word(
    fleet: Fleet,
    request_: services.ServicesRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    services.apply(request_)
    machine = fleet.machines["a"]
    record = json.loads(machine.get(host_side.before_of("service")))
    # It stops and that is all.
    monkeypatch.setattr(machine, "start", lambda _name, **_: None)
    service = unserve._Services(Level.SERVICE)
    tried = service.with_ansible(object(), {"a": record}, tmp_path / "x.log")  # type: ignore[arg-type]
    assert tried["a"].back is None
    assert tried["a"].final
    assert "nginx: it was restarted and is not running" in tried["a"].problem


def test_the_command(
    fleet: Fleet, request_: services.ServicesRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    # Packages of the test are none that rpm reads: the hosts have them already.
    for machine in fleet.machines.values():
        machine.packages += [KMOD, "libfsocket-1-1.x86_64"]
        machine._change(KMOD, there=True)
        machine.put(host_side.LIBRARY, "")
    words = ["-q", "services", "-i", str(request_.inventory), "--workload", str(Workload.PROXY)]
    assert cli.main([*words, "--diff"]) == 0
    said = capsys.readouterr().out
    assert "a file /etc/sysconfig/nginx\n  - \n  + [ ! -r /usr/lib64/libfsocket.so ]" in said
    assert "a service nginx\n  - without libfsocket\n  + under libfsocket" in said
    assert "a: to be edited by you: nginx.conf: accept_mutex off;" in said
    assert cli.main([*words, "--apply", "--json", "--parameter", "enable_fast_epoll=0"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["exit_code"] == 0
    (epoll,) = [
        item for item in report["hosts"][0]["items"] if item["target"].endswith("fast_epoll")
    ]
    assert (epoll["wanted"], epoll["after"]) == ("0", "0")
    assert cli.main([*words, "--apply", "--parameter", "enable_fast_epoll=0"]) == 0
    assert "nginx under libfsocket" in capsys.readouterr().out


def test_a_package_that_is_not_what_was_built(tmp_path: Path) -> None:
    library = small_package(tmp_path, "libfsocket")
    manifest_of(library)
    assert services.read_package(library).name == "libfsocket"
    library.write_bytes(small_package(tmp_path / "other", "other").read_bytes())
    with pytest.raises(FsdeployError, match="is not what was built"):
        services.read_package(library)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--diff", "--dry-run"], "--dry-run says nothing"),
        (["--apply", "--at-once", "0"], "--at-once 0"),
        (["--apply", "--module-rpm", "/nowhere"], "there is no package /nowhere"),
        (["--apply", "--library", __file__], "is not a whole RPM"),
        (["--apply", "--parameter", "x=1"], "--parameter x=1"),
        (["--apply", "--key", __file__], "--key is for packages"),
    ],
)
def test_bad_usage(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["services", "-i", "/nowhere/hosts.yml", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_package_that_must_be_signed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with keyring() as keys:
        name = keys.make("fleet")
        unsigned = small_package(tmp_path, "libfsocket", arch="x86_64")
        published = publish(PublishRequest((unsigned,), name, tmp_path / "repository", keys.home))
    signed, key = published.path_of(published.added[0]), published.public_key
    assert services.read_package(unsigned).key == ""
    for package in (services.read_package(signed), services.read_package(signed, key)):
        assert package.key == key.read_text()
        (item,) = Plan(packages=((Level.SERVICE, package),)).as_dict()["packages"]
        assert item["key"] == package.key
    words = ["services", "-i", "/nowhere/hosts.yml", "--apply", "--key", str(key)]
    assert cli.main([*words, "--library", str(unsigned)]) == 2
    assert f"must be signed with the key {name}" in capsys.readouterr().err


def test_rollback_of_services_names_no_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["rollback", "-i", "/nowhere", "--level", "service", "--to", "2.6"]
    assert cli.main(words) == 2
    assert "--level service leaves kernels alone" in capsys.readouterr().err
