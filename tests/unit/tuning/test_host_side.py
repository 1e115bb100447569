"""Applying, keeping and restoring on the host's side, on hosts in a folder."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from fsdeploy import run
from fsdeploy.tuning.plan import parse_choice, plan_tuning
from fsdeploy.tuning.settings import is_same, setting_from
from tests.unit.tuning.host_side import Machine, document, host_files, host_side, names, snapshot

BEFORE = "/var/lib/fsdeploy/tuning/before.json"
PLAN = "/var/lib/fsdeploy/tuning/plan.json"
# irqbalance's process is the test's business, and not a file.
NO_FILES = ("/proc/99",)

Settings = list[dict[str, str]]


def plan_of(name: str, cpus: str = "all") -> Settings:
    return [item.as_dict() for item in plan_tuning(snapshot(name), parse_choice(cpus)).settings]


def machine_of(tmp_path: Path, name: str, *, systemd: bool = False) -> Machine:
    machine = Machine(tmp_path / "root", document(name), systemd=systemd)
    machine.on_command = machine.restart_irqbalance
    return machine


def outcomes(results: list[dict[str, str]]) -> dict[str, str]:
    return {result["target"]: result["outcome"] for result in results}


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("systemd", [False, True], ids=["sysv", "systemd"])
def test_there_and_back(tmp_path: Path, name: str, systemd: bool) -> None:
    machine = machine_of(tmp_path, name, systemd=systemd)
    before, cards = machine.tree(without=NO_FILES), dict(machine.cards.values)
    settings = plan_of(name)

    results, changed = host_side.apply_settings(machine.host, settings)
    assert changed
    assert len(results) == len(settings)
    for result in results:
        if result["outcome"] in (host_side.CHANGED, host_side.UNCHANGED):
            setting = setting_from({**result, "value": result["wanted"]})
            assert is_same(setting.kind, result["after"], setting.value), result
        else:
            assert result["outcome"] == host_side.CANNOT
            assert "error" in cards[result["target"]]

    # The same again is no change, to no file.
    applied = machine.tree()
    commands = len(machine.commands)
    again, changed = host_side.apply_settings(machine.host, settings)
    assert not changed, [item for item in again if item["outcome"] == host_side.CHANGED]
    assert machine.tree() == applied
    assert len(machine.commands) == commands

    results, changed = host_side.restore(machine.host)
    assert changed
    assert host_side.CANNOT not in outcomes(results).values() or any(
        "error" in fields for fields in cards.values()
    )
    assert machine.tree(without=NO_FILES) == before
    assert machine.cards.values == cards
    assert host_side.restore(machine.host) == ([], False)


def test_check_mode_says_the_same_and_changes_nothing(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, "two-nodes-24")
    before, cards = machine.tree(), dict(machine.cards.values)
    tried, changed = host_side.apply_settings(machine.host, plan_of("two-nodes-24"), check=True)
    assert changed
    assert (machine.tree(), machine.cards.values, machine.commands) == (before, cards, [])
    done, _ = host_side.apply_settings(machine.host, plan_of("two-nodes-24"))
    assert outcomes(tried) == outcomes(done)
    applied = machine.tree()
    back, changed = host_side.restore(machine.host, check=True)
    assert changed
    assert machine.tree() == applied
    assert host_side.CHANGED in outcomes(back).values()


def test_what_was_there_first_is_never_written_over(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, "two-nodes-24")
    before = machine.tree(without=NO_FILES)
    host_side.apply_settings(machine.host, plan_of("two-nodes-24"))
    remembered = json.loads(machine.get(BEFORE))["values"]
    host_side.apply_settings(machine.host, plan_of("two-nodes-24", "local"))
    assert json.loads(machine.get(BEFORE))["values"] == remembered
    host_side.restore(machine.host)
    assert machine.tree(without=NO_FILES) == before


def test_what_a_later_plan_leaves_out_is_put_back(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, "ixgbe-16")
    sending = "/sys/class/net/eth2/queues/tx-3/xps_cpus"
    settings = plan_of("ixgbe-16")
    host_side.apply_settings(machine.host, settings)
    assert machine.get(sending).strip() == "0800"
    less = [item for item in settings if "xps" not in item["target"]]
    results, changed = host_side.apply_settings(machine.host, less)
    assert changed
    assert outcomes(results)[sending] == host_side.CHANGED
    assert machine.get(sending).strip() == "0000"
    assert not any(sending in key for key in json.loads(machine.get(BEFORE))["values"])
    assert not host_side.apply_settings(machine.host, less)[1]


def test_irqbalance_is_freed_when_a_later_plan_leaves_it_out(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, "igb-8")
    before = machine.get("/etc/sysconfig/irqbalance")
    settings = plan_of("igb-8")
    host_side.apply_settings(machine.host, settings)
    less = [item for item in settings if item["kind"] != "irqbalance"]
    assert host_side.apply_settings(machine.host, less)[1]
    assert machine.get("/etc/sysconfig/irqbalance") == before
    assert "--banirq" not in machine.get("/proc/99/cmdline")
    assert not host_side.apply_settings(machine.host, less)[1]


class Stubborn(host_side.Host):  # type: ignore[misc]
    """A kernel that does not let some files be written, or takes and forgets it."""

    refusing: dict[str, int]
    deaf: str = ""

    def set_value(self, name: str, text: str) -> None:
        if name in self.refusing:
            raise OSError(self.refusing[name], os.strerror(self.refusing[name]))
        if name != self.deaf:
            super().set_value(name, text)


def test_an_interrupt_that_cannot_be_moved_is_a_result(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, "igb-8")
    host = Stubborn(str(machine.root), machine.cards, machine._ask)
    # eth0-TxRx-2 and -3: 64 is the link's.
    host.refusing, host.deaf = {"/proc/irq/67/smp_affinity": errno.EIO}, "/proc/irq/68/smp_affinity"
    results, _ = host_side.apply_settings(host, plan_of("igb-8"))
    by_target = {result["target"]: result for result in results}
    assert by_target["eth0-TxRx-2"]["outcome"] == host_side.CANNOT
    assert by_target["eth0-TxRx-2"]["reason"] == "Input/output error (EIO)"
    assert by_target["eth0-TxRx-3"]["outcome"] == host_side.CANNOT
    assert by_target["eth0-TxRx-3"]["reason"] == "it was written and kept its value"
    assert by_target["eth0-TxRx-4"]["outcome"] == host_side.CHANGED
    # What cannot be changed is no change the second time either.
    assert not host_side.apply_settings(host, plan_of("igb-8"))[1]
    # And needs nothing to be put back.
    results, _ = host_side.restore(host)
    assert host_side.CANNOT not in outcomes(results).values()


def test_a_driver_that_refuses_coalescing(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, "igb-8")
    machine.cards.refused.add("eth0")
    results, _ = host_side.apply_settings(machine.host, plan_of("igb-8"))
    (card,) = [result for result in results if result["kind"] == "coalesce"]
    assert (card["outcome"], card["reason"]) == (host_side.CANNOT, "Invalid argument (EINVAL)")
    assert card["after"] == card["before"] == "adaptive-rx=0 rx-usecs=3"


def test_a_driver_that_rounds(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, "igb-8")
    machine.cards.limits["eth0"] = 256
    results, _ = host_side.apply_settings(machine.host, plan_of("igb-8"))
    (card,) = [result for result in results if result["kind"] == "coalesce"]
    assert card["outcome"] == host_side.CHANGED
    assert card["after"] == "adaptive-rx=0 rx-usecs=256"
    again, changed = host_side.apply_settings(machine.host, plan_of("igb-8"))
    assert not changed
    assert outcomes(again)["eth0"] == host_side.UNCHANGED
    host_side.restore(machine.host)
    assert machine.cards.values["eth0"]["rx-usecs"] == 3


def test_an_interface_that_is_gone(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, "igb-8")
    settings = plan_of("igb-8")
    lines = machine.get("/proc/interrupts")
    machine.put("/proc/interrupts", lines.replace("eth0-TxRx-5", "other"))
    del machine.cards.values["eth0"]
    results, _ = host_side.apply_settings(machine.host, settings)
    assert outcomes(results)["eth0-TxRx-5"] == host_side.MISSING
    assert outcomes(results)["eth0"] == host_side.MISSING
    assert not host_side.apply_settings(machine.host, settings)[1]
    # It comes up: what the host runs then changes it, and remembers what was there.
    machine.put("/proc/interrupts", lines)
    results, changed = host_side.apply_settings(machine.host, settings, keep=False)
    assert changed
    assert machine.get("/proc/irq/70/smp_affinity").strip() == "20"
    host_side.restore(machine.host)
    assert machine.get("/proc/irq/70/smp_affinity").strip() == "ff"


def test_a_boot_gives_interrupts_other_numbers(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, "igb-8")
    host_side.apply_settings(machine.host, plan_of("igb-8"))
    text = machine.get("/proc/interrupts")
    for number in range(64, 73):
        text = text.replace(f"  {number}: ", f" 1{number}: ")
        old = machine.path(f"/proc/irq/{number}")
        old.rename(machine.path(f"/proc/irq/1{number}"))
        machine.put(f"/proc/irq/1{number}/smp_affinity", "ff\n")
    machine.put("/proc/interrupts", text)
    kept = json.loads(machine.get(PLAN))["settings"]
    _, changed = host_side.apply_settings(machine.host, kept, keep=False)
    assert changed
    # eth0-TxRx-7 is the last of nine.
    assert machine.get("/proc/irq/172/smp_affinity").strip() == "80"
    assert "--banirq=172" in machine.get("/etc/sysconfig/irqbalance")
    assert '--banirq=72"' not in machine.get("/etc/sysconfig/irqbalance")
    assert "--banirq=172" in machine.get("/proc/99/cmdline")


# irqbalance


def test_irqbalance_keeps_its_arguments_and_gets_bans(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, "igb-8")
    results, _ = host_side.apply_settings(machine.host, plan_of("igb-8"))
    # First, or it would move the interrupts back.
    assert results[0]["kind"] == "irqbalance"
    bans = " ".join(f"--banirq={number}" for number in range(65, 73))
    text = machine.get("/etc/sysconfig/irqbalance")
    assert f'\nIRQBALANCE_ARGS="--hintpolicy=exact {bans}"\n' in text
    assert machine.commands == [["/etc/init.d/irqbalance", "restart"]]
    assert machine.get("/proc/99/cmdline").count("--banirq=") == 8


def test_irqbalance_that_does_not_take_the_bans(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, "igb-8")
    machine.on_command = lambda: None
    results, _ = host_side.apply_settings(machine.host, plan_of("igb-8"))
    (told,) = [result for result in results if result["kind"] == "irqbalance"]
    assert told["outcome"] == host_side.CANNOT
    assert "does not have the bans" in told["reason"]


def test_irqbalance_that_is_off_stays_off(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, "igb-8")
    machine.path("/proc/99/cmdline").unlink()
    results, _ = host_side.apply_settings(machine.host, plan_of("igb-8"))
    assert machine.commands == []
    (told,) = [result for result in results if result["kind"] == "irqbalance"]
    assert told["outcome"] == host_side.CHANGED
    assert not host_side.apply_settings(machine.host, plan_of("igb-8"))[1]


def test_other_edits_of_a_file_stay(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, "igb-8")
    path = "/etc/sysconfig/irqbalance"
    host_side.apply_settings(machine.host, plan_of("igb-8"))
    machine.put(path, "# by hand\n" + machine.get(path))
    host_side.restore(machine.host)
    assert (
        machine.get(path)
        == "# by hand\n" + "#IRQBALANCE_ONESHOT=\n\nIRQBALANCE_ARGS=--hintpolicy=exact"
    )


def test_debians_old_name_for_the_arguments() -> None:
    assert host_side.ban_line("OPTIONS='--debug'\n", [5]) == 'OPTIONS="--debug --banirq=5"'
    assert host_side.ban_line("#OPTIONS=x\n", [5]) == 'IRQBALANCE_ARGS="--banirq=5"'


@pytest.mark.parametrize("text", ["", "a\n", "a", "#!/bin/sh\nexit 0\n", "#!/bin/sh"])
@pytest.mark.parametrize("after_first", [False, True])
def test_lines_of_ours_come_out_without_a_trace(text: str, after_first: bool) -> None:
    once = host_side.BLOCK.within(text, ["x", "y"], after_first)
    assert once != text
    assert "x\ny\n" in once
    assert host_side.BLOCK.within(once, ["x", "y"], after_first) == once
    assert host_side.BLOCK.without(once) == text
    if after_first and text.count("\n") > 1:
        assert once.startswith("#!/bin/sh\n# fsdeploy")


# What keeps it


def test_what_keeps_it_on_centos(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, "igb-8")
    host_side.apply_settings(machine.host, plan_of("igb-8"))
    script = machine.get("/etc/init.d/fsdeploy-tuning")
    assert "# chkconfig: 2345 12 88\n" in script
    for level in (2, 3, 4, 5):
        link = machine.path(f"/etc/rc{level}.d/S12fsdeploy-tuning")
        assert str(link.readlink()) == "../init.d/fsdeploy-tuning"
        assert os.access(link, os.X_OK)
    ifup = machine.get("/sbin/ifup-local")
    assert ifup.startswith("#!/bin/sh\n")
    assert "/usr/sbin/fsdeploy-tuning || :\n" in ifup
    program = machine.path("/usr/sbin/fsdeploy-tuning")
    assert stat.S_IMODE(program.stat().st_mode) == 0o755
    assert program.read_text().startswith("#!/")
    assert stat.S_IMODE(machine.path(BEFORE).stat().st_mode) == 0o600


def test_what_keeps_it_elsewhere(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, "igb-8", systemd=True)
    machine.path("/etc/NetworkManager/dispatcher.d").mkdir(parents=True)
    machine.path("/etc/network/if-up.d").mkdir(parents=True)
    before = machine.tree(without=NO_FILES)
    host_side.apply_settings(machine.host, plan_of("igb-8"))
    unit = "/etc/systemd/system/fsdeploy-tuning.service"
    assert "ExecStart=/usr/sbin/fsdeploy-tuning\n" in machine.get(unit)
    wants = "/etc/systemd/system/multi-user.target.wants/fsdeploy-tuning.service"
    assert str(machine.path(wants).readlink()) == unit
    assert "try-restart" in machine.get("/etc/udev/rules.d/90-fsdeploy-tuning.rules")
    for hook in (
        "NetworkManager/dispatcher.d/90-fsdeploy-tuning",
        "network/if-up.d/fsdeploy-tuning",
    ):
        assert os.access(machine.path(f"/etc/{hook}"), os.X_OK)
    assert not machine.path("/etc/init.d/fsdeploy-tuning").exists()
    assert ["systemctl", "daemon-reload"] in machine.commands
    assert ["systemctl", "--no-block", "start", "fsdeploy-tuning"] in machine.commands
    host_side.restore(machine.host)
    assert machine.tree(without=NO_FILES) == before


def test_an_ifup_local_of_the_users(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, "igb-8")
    machine.put("/sbin/ifup-local", "#!/bin/bash\necho $1\nexit 0\n")
    machine.path("/sbin/ifup-local").chmod(0o700)
    before = machine.tree(without=NO_FILES)
    host_side.apply_settings(machine.host, plan_of("igb-8"))
    lines = machine.get("/sbin/ifup-local").splitlines()
    # Before its exit, or ours would never run.
    assert lines.index("/usr/sbin/fsdeploy-tuning || :") < lines.index("exit 0")
    host_side.restore(machine.host)
    assert machine.tree(without=NO_FILES) == before


def test_an_ifup_local_that_is_no_script_is_left_alone(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, "igb-8")
    machine.put("/sbin/ifup-local", "\x7fELF\n")
    host_side.apply_settings(machine.host, plan_of("igb-8"))
    assert machine.get("/sbin/ifup-local") == "\x7fELF\n"


def test_what_cannot_be_put_back_stays_remembered(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, "igb-8")
    before = machine.tree(without=NO_FILES)
    host_side.apply_settings(machine.host, plan_of("igb-8"))
    host = Stubborn(str(machine.root), machine.cards, machine._ask)
    host.refusing = {"/proc/irq/67/smp_affinity": errno.EIO}
    results, _ = host_side.restore(host)
    assert outcomes(results)["eth0-TxRx-2"] == host_side.CANNOT
    assert list(json.loads(machine.get(BEFORE))["values"]) == ["interrupt eth0-TxRx-2"]
    # Nothing brings it back at the next boot.
    assert not machine.path(PLAN).exists()
    assert not machine.path("/usr/sbin/fsdeploy-tuning").exists()
    # With a kernel that lets it be, the rest is done.
    host_side.restore(machine.host)
    assert machine.tree(without=NO_FILES) == before


def test_a_damaged_record_stops_everything(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, "igb-8")
    machine.put(BEFORE, "{")
    before = machine.tree()
    with pytest.raises(host_side.Failed, match=r"before\.json is damaged"):
        host_side.apply_settings(machine.host, plan_of("igb-8"))
    with pytest.raises(host_side.Failed, match=r"before\.json is damaged"):
        host_side.restore(machine.host)
    assert machine.tree() == before


def test_the_program_is_these_files(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, "e1000-2")
    host_side.apply_settings(machine.host, plan_of("e1000-2"))
    program = machine.path("/usr/sbin/fsdeploy-tuning")
    _, _, written = program.read_text().partition("\n")
    files, ours = (Path(module.__file__).read_text() for module in (host_files, host_side))
    assert written.startswith(files)
    assert ours.endswith(written.removeprefix(files))
    # It stands alone: without Ansible, and without a plan on this machine there is nothing to do.
    ended = run.run([sys.executable, "-I", "-S", program], check=False)
    assert (ended.returncode, ended.output) == (0, "")


def test_another_machines_cards_and_services_are_left_alone(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, "igb-8")
    host = host_side.Host(str(machine.root))
    with pytest.raises(OSError, match="No such device"):
        host.ethtool.get("lo")
    assert host.run(["true"]) == 127


def test_kernels_answer_is_the_driver_of_this_machine() -> None:
    """The ioctl itself, asked of the loopback, which has no coalescing."""
    with pytest.raises(OSError, match=r".") as problem:
        host_side.Ethtool().get("lo")
    assert problem.value.errno == errno.EOPNOTSUPP
    with pytest.raises(OSError, match=r".") as problem:
        host_side.Ethtool().get("nosuch0")
    assert problem.value.errno == errno.ENODEV


def test_values(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, "e1000-2")
    settings: list[dict[str, Any]] = [
        {
            "kind": "value",
            "target": "/proc/sys/net/ipv4/ip_local_port_range",
            "value": "32768 61000",
        },
        {
            "kind": "mask",
            "target": "/sys/class/net/eth0/queues/rx-0/rps_cpus",
            "value": "00,00000000",
        },
        {"kind": "mask", "target": "/sys/nothing", "value": "1"},
    ]
    results, _ = host_side.apply_settings(machine.host, settings, check=True)
    assert [result["outcome"] for result in results] == [
        host_side.UNCHANGED,
        host_side.UNCHANGED,
        host_side.MISSING,
    ]


def test_a_virtio_card_is_where_its_pci_device_is(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, "e1000-2")
    where = "/sys/class/net/eth0/device/numa_node"
    assert where not in host_side.collect(machine.host)["files"]
    machine.put("/sys/devices/pci0000:00/numa_node", "1\n")
    assert host_side.collect(machine.host)["files"][where] == "1\n"


def test_an_irqbalance_without_a_configuration(tmp_path: Path) -> None:
    machine = machine_of(tmp_path, "igb-8")
    machine.path("/etc/sysconfig/irqbalance").unlink()
    assert host_side.find_irqbalance(machine.host)["config"] == "/etc/sysconfig/irqbalance"
    before = machine.tree(without=NO_FILES)
    host_side.apply_settings(machine.host, plan_of("igb-8"))
    assert "--banirq=65" in machine.get("/etc/sysconfig/irqbalance")
    host_side.restore(machine.host)
    assert machine.tree(without=NO_FILES) == before
