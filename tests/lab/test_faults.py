# SPDX-License-Identifier: GPL-2.0-only
"""What goes wrong in a rollout, done to lab hosts: each fault ends as docs/fleet.md says.

A host is made to fail by a driver (fault/fault.c) that its own start scripts load once the kernel
of the rollout runs: before its network is up, with the file systems mounted.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from fsdeploy import demo, run
from fsdeploy.errors import ExitCode
from fsdeploy.fleet import rollout as fleet_rollout
from fsdeploy.fleet.drive import FleetDriver
from fsdeploy.fleet.driver import StepResult
from fsdeploy.fleet.journal import HostRecord, Journal
from fsdeploy.fleet.package import KernelPackage, read_package
from fsdeploy.fleet.plan import Policy
from fsdeploy.fleet.rollback import RollbackRequest, rollback_kernel
from fsdeploy.fleet.states import State
from fsdeploy.fleet.verify import VerifyRequest, verify_hosts
from fsdeploy.kernel import build
from fsdeploy.lab import machine, qemu
from fsdeploy.lab import state as state_of_lab
from fsdeploy.verify.report import CheckResult, Expectation, Outcome

pytestmark = [pytest.mark.lab, pytest.mark.build]

FSDEPLOY = (sys.executable, "-m", "fsdeploy")
SOURCE = Path(__file__).parent / "fault" / "fault.c"
# Where a CentOS host loads drivers at boot.
STARTERS = "/etc/sysconfig/modules"
GRUB = b"GNU GRUB  version 0.97"
PACKAGES = "/var/lib/fsdeploy/packages"  # where a host gets packages
RECORD = "/var/lib/fsdeploy/boot-entry.json"  # there from the arming to the promotion
LINK = "net0"  # QEMU's name for a host's network
# As an operator gives the command of a machine's BMC: a reset, or on when it is off.
POWER = shlex.join([*FSDEPLOY, "lab", "power", "{host}"])
SWITCH = shlex.join(["sh", "-c", f"{POWER} reset || {POWER} on"])
TRIAL_SECONDS = 75  # for a host to come back from a trial boot, before scaling


@dataclass(frozen=True)
class Kernels:
    """Those of one target: what hosts begin with, what is rolled out, and the demo's bad one."""

    stock: build.Build
    patched: build.Build
    broken: build.Build


@pytest.fixture(scope="module", autouse=True)
def asked(pytestconfig: pytest.Config) -> None:
    """The option is unknown when pytest starts elsewhere."""
    if not pytestconfig.getoption("--faults", default=False):
        pytest.skip("faults are brought to lab hosts by: pytest tests/lab --faults")


@pytest.fixture(scope="module", params=["lts61", pytest.param("el6", marks=pytest.mark.el6)])
def kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    """What is done to hosts of one target is done to those of the other."""
    target: str = request.param
    stock: build.Build = request.getfixturevalue(f"stock_{target}")
    patched = build.build_kernel(build.request(target, fragments=("lab",)))
    # It panics at the mount of its root.
    fragment = tmp_path_factory.mktemp("fragment") / "no-disk-driver.config"
    fragment.write_text(demo.BROKEN)
    broken = build.build_kernel(build.request(target, fragments=("lab", str(fragment))))
    return Kernels(stock, patched, broken)


@pytest.fixture(scope="module")
def driver(kernels: Kernels, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """fault.ko, built against what the devel package of the kernel holds."""
    folder = tmp_path_factory.mktemp("fault")
    devel = kernels.patched.devel_rpm
    with (folder / "devel.cpio").open("wb") as out:
        assert run.wait(run.start(["rpm2cpio", devel], stdout=out), 60) == 0
    with (folder / "devel.cpio").open("rb") as archive:
        words = ["cpio", "-idm", "--quiet"]
        assert run.wait(run.start(words, cwd=folder, stdin=archive), 60) == 0
    (folder / "fault.c").write_bytes(SOURCE.read_bytes())
    (folder / "Makefile").write_text("obj-m := fault.o\n")
    tree = folder / "usr" / "src" / "kernels" / kernels.patched.release
    run.run(["make", "-C", tree, f"M={folder}", "modules"])
    return (folder / "fault.ko").read_bytes()


@pytest.fixture(scope="module")
def three(lab_home: Path, kernels: Kernels) -> Iterator[machine.Lab]:
    """Three hosts on the stock kernel, for all faults one after the other."""
    assert lab_home.is_dir()
    with machine.lab([kernels.stock.kernel_rpm], hosts=3) as up:
        yield up


@pytest.fixture
def lab(three: machine.Lab) -> Iterator[machine.Lab]:
    """The three hosts; what makes one fail is taken away afterwards."""
    yield three
    for record in three.hosts:
        machine.power(record.name, "on")
        set_link(record, up=True)
        machine.wait_for_ssh(record.name)
        three.command(f"rm -rf {STARTERS} /root/fault.ko {PACKAGES}", record.name)


def put_on(lab: machine.Lab, names: Sequence[str], release: str) -> None:
    """Hosts that an earlier test left on another kernel go back to this one."""
    moved = [name for name in names if running(lab, name) != release]
    if moved:
        back = rollback_kernel(RollbackRequest(lab.inventory, limit=tuple(moved), to=release))
        assert back.exit_code is ExitCode.OK, back.hosts
        for name in moved:
            lab.command("rpm -e $(rpm -q kernel-fastsocket)", name)


def running(lab: machine.Lab, name: str) -> str:
    return lab.command("uname -r", name)


def record_of(lab: machine.Lab, name: str) -> state_of_lab.HostRecord:
    return next(record for record in lab.hosts if record.name == name)


def set_link(record: state_of_lab.HostRecord, *, up: bool) -> None:
    """Plug a host's network in, or out."""
    qemu.execute(record.qmp, "set_link", {"name": LINK, "up": up})


def boots_of(lab: machine.Lab, name: str) -> int:
    return record_of(lab, name).serial.read_bytes().count(GRUB)


def at_boot(lab: machine.Lab, name: str, script: str, order: str = "50-fault") -> None:
    """Let a host run something at each boot, where its drivers are loaded."""
    path = f"{STARTERS}/{order}.modules"
    text = shlex.quote(f"#!/bin/sh\n{script}\nexit 0\n")
    lab.command(
        f"mkdir -p {STARTERS} && printf %s {text} >{path} && chmod 755 {path} && sync", name
    )


def plant(lab: machine.Lab, name: str, driver: bytes, how: str, release: str) -> None:
    """Make a host load the driver when it runs that kernel."""
    text = base64.b64encode(driver).decode()
    lab.command(f"echo {text} | base64 -d >/root/fault.ko", name)
    at_boot(lab, name, f'[ "$(uname -r)" = {release} ] && insmod /root/fault.ko how={how}')


def says(lab: machine.Lab, name: str, words: str) -> Callable[[], bool]:
    """Whether a host has said that on its console after this call."""
    serial = record_of(lab, name).serial
    before = serial.read_bytes().count(words.encode())
    return lambda: serial.read_bytes().count(words.encode()) > before


def banner(release: str) -> str:
    """The first thing that a kernel says."""
    return f"Linux version {release} "


def until(condition: Callable[[], bool], seconds: float = 240) -> None:
    """Wait for something that a host does."""
    deadline = time.monotonic() + qemu.scaled(seconds)
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def are_as_before(lab: machine.Lab, release: str, *names: str) -> None:
    """The hosts run their old kernel by default, nothing of the rollout is on them."""
    for name in names:
        assert running(lab, name) == release
        assert "kernel-fastsocket" not in lab.command("rpm -qa", name)
    for host in verify_hosts(VerifyRequest(lab.inventory, release, names)).hosts:
        assert host.ok, [check for check in host.checks if check.outcome is Outcome.FAILED]


class Command:
    """A `fsdeploy rollout` in a process of its own."""

    def __init__(self, process: run.Process, out: Path, before: int) -> None:
        self.process = process
        self._out = out
        self._before = before

    def wait_for(self, name: str, state: State) -> None:
        """Until the journal has a host there, or further on its way."""
        way = list(State)

        def arrived() -> bool:
            record = self._record(name)
            return record is not None and way.index(record.state) >= way.index(state)

        self.wait_until(arrived)

    def _record(self, name: str) -> HostRecord | None:
        with Journal.to_read() as book:
            record = book.latest_of(name)
        return record if record and record.rollout > self._before else None

    def wait_until(self, condition: Callable[[], bool], seconds: float = 240) -> None:
        deadline = time.monotonic() + qemu.scaled(seconds)
        while not condition():
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.05)

    @property
    def output(self) -> str:
        return self._out.read_text(errors="replace")

    def report(self) -> tuple[int, dict[str, Any]]:
        """Its exit code and what `--json` gave, at its end."""
        code = run.wait(self.process, qemu.scaled(600))
        assert code is not None, self.output
        document: dict[str, Any] = json.loads(self.output[self.output.rindex("\n{\n") :])
        return code, document


def latest_rollout() -> int:
    with Journal.to_read() as book:
        record = book.latest()
    return record.number if record else 0


@contextlib.contextmanager
def rollout(folder: Path, *words: str | Path) -> Iterator[Command]:
    """A rollout that begins, or goes on with --resume."""
    before = latest_rollout() - ("--resume" in words)
    out = folder / "output"
    limit = ("--trial-timeout", f"{qemu.scaled(TRIAL_SECONDS):g}")
    with out.open("wb") as stream:
        argv = [*FSDEPLOY, "rollout", "--json", *limit, *words]
        with run.running(run.start(argv, stdout=stream)) as process:
            yield Command(process, out, before)


def one_wave(lab: machine.Lab, folder: Path, *names: str) -> Path:
    """An inventory whose hosts are of different classes: all of them are canaries, in one wave."""
    document = yaml.safe_load(lab.inventory.read_text())
    document["fleet"]["hosts"] = {name: {"fsdeploy_class": name} for name in names}
    path = folder / "hosts.yml"
    path.write_text(yaml.safe_dump(document))
    return path


def states_of(report: Mapping[str, Any]) -> dict[str, str]:
    return {host["host"]: host["state"] for host in report["hosts"]}


def reasons_of(report: Mapping[str, Any]) -> dict[str, str]:
    return {host["host"]: host["reason"] for host in report["hosts"]}


def test_one_host_panics_and_one_hangs_and_nobody_is_needed(
    lab: machine.Lab,
    kernels: Kernels,
    driver: bytes,
    tmp_path: Path,
) -> None:
    put_on(lab, lab.names, kernels.stock.release)
    plant(lab, "lab2", driver, "panic", kernels.patched.release)
    plant(lab, "lab3", driver, "hard", kernels.patched.release)
    with rollout(
        tmp_path,
        *("--inventory", lab.inventory, "--kernel", kernels.patched.kernel_rpm),
        *("--waves", "", "--soak", "0", "--budget", "2", "--power-command", SWITCH),
    ) as command:
        code, report = command.report()
    assert code == report["exit_code"] == ExitCode.CHECK_FAILED
    assert report["stopped"] == ""
    assert [wave["hosts"] for wave in report["waves"]] == [["lab1"], ["lab2", "lab3"]]
    assert states_of(report) == {
        "lab1": "promoted",
        "lab2": "rolled-back",
        "lab3": "rolled-back",
    }, command.output
    reasons = reasons_of(report)
    assert f"came back on {kernels.stock.release} by itself after" in reasons["lab2"]
    assert "after its power was switched" in reasons["lab3"]
    assert b"fault.ko was loaded" in record_of(lab, "lab2").serial.read_bytes()
    assert running(lab, "lab1") == kernels.patched.release
    are_as_before(lab, kernels.stock.release, "lab2", "lab3")


def test_hangs_that_a_host_notices_by_itself(
    lab: machine.Lab,
    kernels: Kernels,
    driver: bytes,
    tmp_path: Path,
) -> None:
    """By the arguments of the trial entry; by a watchdog card that a service feeds."""
    put_on(lab, ["lab2", "lab3"], kernels.stock.release)
    plant(lab, "lab2", driver, "soft", kernels.patched.release)
    at_boot(lab, "lab3", "(while echo; do sleep 2; done >/dev/watchdog) &", "10-watchdog")
    plant(lab, "lab3", driver, "hard", kernels.patched.release)
    hosts = one_wave(lab, tmp_path, "lab2", "lab3")
    with rollout(
        tmp_path,
        *("--inventory", hosts, "--kernel", kernels.patched.kernel_rpm),
        *("--waves", "", "--soak", "0", "--trial-timeout", f"{qemu.scaled(2 * TRIAL_SECONDS):g}"),
    ) as command:
        _, report = command.report()
    assert states_of(report) == {"lab2": "rolled-back", "lab3": "rolled-back"}, command.output
    for reason in reasons_of(report).values():
        assert f"came back on {kernels.stock.release} by itself after" in reason
    assert b"soft lockup - CPU" in record_of(lab, "lab2").serial.read_bytes()
    are_as_before(lab, kernels.stock.release, "lab2", "lab3")


def rollout_here(
    monkeypatch: pytest.MonkeyPatch, faulty: type[FleetDriver], hosts: Path, kernel: Path
) -> dict[str, Any]:
    """A rollout in this process, by a driver that brings a fault to real hosts at a given step."""
    monkeypatch.setattr(fleet_rollout, "FleetDriver", faulty)
    request = fleet_rollout.RolloutRequest(
        hosts,
        kernel,
        trial_timeout=qemu.scaled(TRIAL_SECONDS),
        policy=Policy(shares=(), soak=0, budget=3),
    )
    return fleet_rollout.rollout(request).as_dict()


def test_another_kernel_comes_up_than_the_one_that_was_armed(
    lab: machine.Lab,
    kernels: Kernels,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put_on(lab, ["lab2"], kernels.stock.release)
    image = kernels.patched.image

    class Swapping(FleetDriver):
        def arm(self, hosts: Sequence[str]) -> Mapping[str, StepResult]:
            results = super().arm(hosts)
            run.run(
                ["scp", "-F", lab.ssh_config, image, f"lab2:/boot/vmlinuz-{kernels.broken.release}"]
            )
            lab.command("sync", "lab2")
            return results

    hosts = one_wave(lab, tmp_path, "lab2")
    report = rollout_here(monkeypatch, Swapping, hosts, kernels.broken.kernel_rpm)
    assert states_of(report) == {"lab2": "rolled-back"}
    wanted = f"it came up with {kernels.patched.release}, wanted is {kernels.broken.release}"
    assert reasons_of(report)["lab2"] == wanted
    are_as_before(lab, kernels.stock.release, "lab2")


def fill_boot(lab: machine.Lab, name: str) -> None:
    """Give a host a /boot of its own with half a MiB left."""
    lab.command(
        "size=$(( $(du -sk /boot | cut -f1) + 512 )); cp -a /boot /root/boot;"
        " mount -t tmpfs -o size=${size}k tmpfs /boot && cp -a /root/boot/. /boot",
        name,
    )


def test_a_full_boot_and_a_damaged_package_change_nothing(
    lab: machine.Lab,
    kernels: Kernels,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    put_on(lab, ["lab2", "lab3"], kernels.stock.release)

    class Filling(FleetDriver):
        def stage(self, hosts: Sequence[str]) -> Mapping[str, StepResult]:
            assert list(hosts) == ["lab3"]
            fill_boot(lab, "lab3")
            return super().stage(hosts)

    hosts = one_wave(lab, tmp_path, "lab2", "lab3")
    fill_boot(lab, "lab2")
    look = "find /boot -type f | sort | xargs md5sum"
    files = lab.command(look, "lab3")
    try:
        report = rollout_here(monkeypatch, Filling, hosts, kernels.patched.kernel_rpm)
        assert lab.command(look, "lab3") == files
    finally:
        for name in ("lab2", "lab3"):
            lab.command("umount /boot; rm -rf /root/boot", name)
    assert states_of(report) == {"lab2": "refused", "lab3": "rolled-back"}
    assert "/boot has 0 MiB free" in reasons_of(report)["lab2"]
    assert "not installed" in reasons_of(report)["lab3"]
    assert "/boot" in reasons_of(report)["lab3"]

    copy = tmp_path / kernels.patched.kernel_rpm.name

    def damaged_after(path: Path, key: Path | None = None) -> KernelPackage:
        package = replace(read_package(path, key), path=copy)
        whole = path.read_bytes()
        middle = len(whole) // 2
        copy.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        return package

    monkeypatch.setattr(fleet_rollout, "read_package", damaged_after)
    report = rollout_here(monkeypatch, FleetDriver, hosts, kernels.patched.kernel_rpm)
    assert states_of(report) == {"lab2": "rolled-back", "lab3": "rolled-back"}
    for name, reason in reasons_of(report).items():
        assert "arrived damaged" in reason
        assert lab.command(f"ls {PACKAGES}", name) == ""
    are_as_before(lab, kernels.stock.release, "lab2", "lab3")


def test_the_power_is_cut_in_the_trial(
    lab: machine.Lab, kernels: Kernels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the kernel starts and back at once, during the checks, and one that stays off."""
    put_on(lab, lab.names, kernels.stock.release)
    early, checked, dark = lab.names

    class Cutting(FleetDriver):
        def reboot(self, boots: Mapping[str, str]) -> Mapping[str, StepResult]:
            assert set(boots) == set(lab.names)
            first = banner(kernels.patched.release)
            begun = {name: says(lab, name, first) for name in (early, dark)}
            results = super().reboot(boots)
            for name, has_begun in begun.items():
                until(has_begun)
                machine.power(name, "off")
            machine.power(early, "on")
            return results

        def verify(
            self, expectations: Mapping[str, Expectation]
        ) -> Mapping[str, Sequence[CheckResult] | None]:
            assert list(expectations) == [checked]
            machine.power(checked, "off")
            found = super().verify(expectations)
            machine.power(checked, "on")
            return found

    hosts = one_wave(lab, tmp_path, *lab.names)
    report = rollout_here(monkeypatch, Cutting, hosts, kernels.patched.kernel_rpm)
    reasons = reasons_of(report)
    assert states_of(report) == {early: "rolled-back", checked: "rolled-back", dark: "lost"}, report
    assert report["exit_code"] == ExitCode.UNREACHABLE
    assert f"came back on {kernels.stock.release} by itself after" in reasons[early]
    assert reasons[checked] == "the host stopped to answer on the trial kernel"
    assert "did not come back within" in reasons[dark]
    assert "--power-command 'COMMAND {host}' that does the switching" in reasons[dark]
    are_as_before(lab, kernels.stock.release, early, checked)

    with rollout(tmp_path, "--resume", "--power-command", SWITCH) as command:
        code, report = command.report()
    assert code == ExitCode.CHECK_FAILED
    assert states_of(report)[dark] == "rolled-back", command.output
    assert reasons_of(report)[dark].endswith(
        f"came back on {kernels.stock.release} after its power was switched"
    )
    are_as_before(lab, kernels.stock.release, dark)


def test_a_host_whose_power_is_cut_is_switched_on_by_the_rollout(
    lab: machine.Lab, kernels: Kernels, tmp_path: Path
) -> None:
    put_on(lab, ["lab3"], kernels.stock.release)
    begun = says(lab, "lab3", banner(kernels.patched.release))
    with rollout(
        tmp_path,
        *("--inventory", lab.inventory, "--kernel", kernels.patched.kernel_rpm),
        *("--limit", "lab3", "--soak", "0", "--power-command", SWITCH),
    ) as command:
        command.wait_until(begun)
        machine.power("lab3", "off")
        code, report = command.report()
    assert (code, states_of(report)) == (ExitCode.CHECK_FAILED, {"lab3": "rolled-back"})
    assert "after its power was switched" in reasons_of(report)["lab3"]
    are_as_before(lab, kernels.stock.release, "lab3")


def test_ssh_is_cut_in_the_middle_of_plays(
    lab: machine.Lab, kernels: Kernels, tmp_path: Path
) -> None:
    """While the package is installed, when the trial is armed, when the kernel is promoted."""
    release = kernels.patched.release
    put_on(lab, lab.names, kernels.stock.release)
    boots = {name: boots_of(lab, name) for name in lab.names}
    # A host says on its console that the step has touched it; then its network is plugged out.
    signs = {
        "lab1": f"[ -e /lib/modules/{release} ]",
        "lab2": f"[ -e {RECORD} ]",
        "lab3": f"! [ -e {RECORD} ]",
    }
    touched = "a step has touched this host"
    watch = {
        name: f"(until {sign}; do sleep 0.1; done; echo {touched} >/dev/ttyS0)"
        " </dev/null >/dev/null 2>&1 &"
        for name, sign in signs.items()
    }
    for name in ("lab1", "lab2"):
        lab.command(watch[name], name)
    at_boot(lab, "lab3", f"if [ $(uname -r) = {release} ]; then {watch['lab3']} fi")
    has_touched = {name: says(lab, name, touched) for name in lab.names}
    hosts = one_wave(lab, tmp_path, *lab.names)
    with rollout(
        tmp_path,
        *("--inventory", hosts, "--kernel", kernels.patched.kernel_rpm),
        *("--waves", "", "--soak", "0", "--budget", "3"),
    ) as command:
        for record in lab.hosts:
            command.wait_until(has_touched[record.name])
            set_link(record, up=False)
        code, report = command.report()
    assert code == ExitCode.UNREACHABLE, command.output
    states, reasons = states_of(report), reasons_of(report)
    # The answer of a step that was done may have been lost, or have come just before.
    assert states["lab1"] in ("preflight", "staged"), report
    assert states["lab2"] in ("staged", "armed"), report
    assert states["lab3"] == "verified", report
    for name in lab.names:
        assert "answer" in reasons[name], report

    for record in lab.hosts:
        set_link(record, up=True)
        machine.wait_for_ssh(record.name)
    installed = "rpm -q --qf '%{INSTALLTIME} ' kernel-fastsocket"
    times = {name: lab.command(installed, name) for name in lab.names}
    with rollout(tmp_path, "--resume") as command:
        code, report = command.report()
    assert code == ExitCode.OK, command.output
    assert states_of(report) == dict.fromkeys(lab.names, "promoted")
    for name in lab.names:
        assert running(lab, name) == release
        assert boots_of(lab, name) == boots[name] + 1
        assert lab.command(installed, name) == times[name]
    expected = VerifyRequest(lab.inventory, release, lab.names)
    assert verify_hosts(expected).exit_code is ExitCode.OK


def test_a_control_process_killed_in_every_state_is_taken_up_again(
    lab: machine.Lab, kernels: Kernels, tmp_path: Path
) -> None:
    put_on(lab, ["lab3"], kernels.stock.release)
    boots = boots_of(lab, "lab3")
    first = (
        *("--inventory", lab.inventory, "--kernel", kernels.patched.kernel_rpm),
        *("--limit", "lab3", "--soak", "0"),
    )
    words: tuple[str | Path, ...] = first
    for state in (State.PREFLIGHT, State.STAGED, State.ARMED, State.TRIAL, State.VERIFIED):
        with rollout(tmp_path, *words) as command:
            command.wait_for("lab3", state)
            os.kill(command.process.pid, signal.SIGKILL)
            assert run.wait(command.process, 30) == -signal.SIGKILL
        words = ("--resume",)
    with rollout(tmp_path, *words) as command:
        code, report = command.report()
    assert (code, states_of(report)) == (ExitCode.OK, {"lab3": "promoted"}), command.output
    assert running(lab, "lab3") == kernels.patched.release
    assert boots_of(lab, "lab3") == boots + 1
    assert lab.command("rpm -q kernel-fastsocket | wc -l", "lab3") == "1"
    with Journal.to_read() as book:
        story = [event.state for event in book.events(latest_rollout(), "lab3")]
    way = [State.PREFLIGHT, State.STAGED, State.ARMED, State.TRIAL, State.VERIFIED, State.PROMOTED]
    assert [state for state in dict.fromkeys(story) if state in way] == way
