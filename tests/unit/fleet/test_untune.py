"""Taking tuning back with a shell only, on a host in a folder."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import cast

import pytest

from fsdeploy.errors import FsdeployError
from fsdeploy.fleet.inventory import Host
from fsdeploy.fleet.plainly import parse_record, read_record, without_block
from fsdeploy.fleet.transport import Ssh
from fsdeploy.fleet.untune import restore_plainly, restore_script
from tests.unit.fleet.folders import LocalShell
from tests.unit.tuning.host_side import Machine, document, host_side, names
from tests.unit.tuning.test_host_side import NO_FILES, plan_of

HOST = Host("a")
BEFORE = "/var/lib/fsdeploy/tuning/before.json"


def ethtool_says(fields: dict[str, int]) -> str:
    """What `ethtool -c` prints."""
    switches = {name: "on" if fields[name] else "off" for name in ("adaptive-rx", "adaptive-tx")}
    return "\n".join(
        [
            "Coalesce parameters for eth0:",
            f"Adaptive RX: {switches['adaptive-rx']}  TX: {switches['adaptive-tx']}",
            *(f"{name}:\t{number}" for name, number in fields.items() if name not in switches),
            "",
        ]
    )


class Shell(LocalShell):
    """With the programs that cards and irqbalance are asked by."""

    def __init__(self, machine: Machine) -> None:
        places = ("/proc/", "/sys/", "/etc/", "/var/lib/", "/usr/sbin/f", "/sbin/ifup")
        super().__init__(machine.root, places)
        for name in ("ethtool", "pidof", "systemctl"):
            self.tool(name, f'[ "$1" != -c ] || cat "{self.tools}/$2"')
        for card in machine.made_of["ethtool"]:
            with contextlib.suppress(OSError):
                (self.tools / card).write_text(ethtool_says(machine.cards.get(card)))


def tuned(tmp_path: Path, name: str, *, systemd: bool = False) -> Machine:
    machine = Machine(tmp_path / "root", document(name), systemd=systemd)
    machine.on_command = machine.restart_irqbalance
    return machine


@pytest.mark.parametrize("name", names())
def test_a_shell_puts_back_what_the_module_applied(tmp_path: Path, name: str) -> None:
    machine = tuned(tmp_path, name)
    before = machine.tree(without=NO_FILES)
    host_side.apply_settings(machine.host, plan_of(name))
    assert machine.tree(without=NO_FILES) != before
    shell = Shell(machine)
    record = read_record(cast(Ssh, shell), HOST, BEFORE)
    assert record
    restore_plainly(cast(Ssh, shell), HOST, record)
    assert machine.tree(without=NO_FILES) == before
    assert read_record(cast(Ssh, shell), HOST, BEFORE) is None
    said = shell.log.read_text()
    for card, fields in machine.made_of["ethtool"].items():
        # What was refused or down was never remembered.
        if "error" not in fields and any(item["target"] == card for item in plan_of(name)):
            assert machine.cards.get(card) != fields
            switch = "on" if fields["adaptive-rx"] else "off"
            wanted = f"ethtool -C {card} adaptive-rx {switch} rx-usecs {fields['rx-usecs']}\n"
            assert wanted in said
    assert ("pidof irqbalance" in said) == bool(machine.made_of["irqbalance"]["program"])


def test_a_value_that_cannot_be_put_back_is_told_and_stays_remembered(tmp_path: Path) -> None:
    machine = tuned(tmp_path, "igb-8")
    host_side.apply_settings(machine.host, plan_of("igb-8"))
    # A file that cannot be written, even by root.
    path = machine.path("/proc/sys/net/core/somaxconn")
    path.unlink()
    path.mkdir()
    shell = Shell(machine)
    record = json.loads(machine.get(BEFORE))
    with pytest.raises(FsdeployError, match="somaxconn could not be put back to 128"):
        restore_plainly(cast(Ssh, shell), HOST, record)
    assert machine.path(BEFORE).exists()


def test_other_edits_stay(tmp_path: Path) -> None:
    machine = tuned(tmp_path, "igb-8")
    path = "/etc/sysconfig/irqbalance"
    was = machine.get(path)
    host_side.apply_settings(machine.host, plan_of("igb-8"))
    machine.put(path, "# by hand\n" + machine.get(path))
    restore_plainly(cast(Ssh, Shell(machine)), HOST, json.loads(machine.get(BEFORE)))
    assert machine.get(path) == "# by hand\n" + was


@pytest.mark.parametrize("text", ["", "a\n", "a", "#!/bin/sh\nexit 0\n"])
@pytest.mark.parametrize("after_first", [False, True])
def test_both_sides_take_the_same_lines_out(text: str, after_first: bool) -> None:
    once = host_side.BLOCK.within(text, ["x"], after_first)
    assert without_block(once.encode(), "tuning") == text.encode()
    assert without_block(text.encode(), "tuning") == text.encode()


def test_an_interface_that_is_gone_has_nothing_to_put_back() -> None:
    record = {"values": {"interrupt eth9-TxRx-0": "ff"}, "files": {}, "folders": []}
    assert "smp_affinity" not in restore_script(record, "CPU0\n 5: 0  PCI-MSI-edge  eth0\n", {}, {})
    script = restore_script(record, "CPU0\n 5: 0  PCI-MSI-edge  eth9-TxRx-0\n", {}, {})
    assert "value /proc/irq/5/smp_affinity ff" in script


def test_a_card_that_refused_is_not_asked_again(tmp_path: Path) -> None:
    machine = tuned(tmp_path, "igb-8")
    machine.cards.refused = set(machine.made_of["ethtool"])
    host_side.apply_settings(machine.host, plan_of("igb-8"))
    record = json.loads(machine.get(BEFORE))
    shell = Shell(machine)
    left = restore_plainly(cast(Ssh, shell), HOST, record)
    assert any(item["kind"] == "coalesce" for item in left)
    assert "ethtool -c" in shell.log.read_text()
    assert "ethtool -C" not in shell.log.read_text()


def test_a_card_without_ethtool_cannot_be_put_back(tmp_path: Path) -> None:
    machine = tuned(tmp_path, "igb-8")
    host_side.apply_settings(machine.host, plan_of("igb-8"))
    shell = Shell(machine)
    (tmp_path / "tools" / "ethtool").write_text("#!/bin/sh\nexit 127\n")
    with pytest.raises(FsdeployError, match="the coalescing of eth0 could not be put back"):
        restore_plainly(cast(Ssh, shell), HOST, json.loads(machine.get(BEFORE)))


def test_a_damaged_record() -> None:
    for text in ("", "{}", "[]", '{"values": 3, "files": {}, "folders": []}'):
        with pytest.raises(FsdeployError, match="damaged"):
            parse_record(text, "before.json on a")
