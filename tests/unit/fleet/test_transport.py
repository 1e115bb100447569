"""The ssh_config of a session and what is read from hosts."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsdeploy import run
from fsdeploy.fleet.inventory import Host, Inventory, parse_inventory
from fsdeploy.fleet.transport import Answered, Pulse, Ssh, parse_pulse, reason_of, ssh_config_text

ID = "0fbf2e91-0e1b-4b6a-9d04-3b0e6b0c9a4e"


def inventory(text: str = "fleet: {hosts: {a: }}") -> Inventory:
    return parse_inventory(text, Path("/i.yml"))


def test_a_pulse_behind_a_banner() -> None:
    text = f"Welcome!\n{ID}\n2.6.32-431.el6.x86_64\n12.5 20.0\n"
    assert parse_pulse(text) == Pulse(ID, "2.6.32-431.el6.x86_64", 12.5)


def test_half_a_pulse_is_none() -> None:
    assert parse_pulse("") is None
    assert parse_pulse(f"{ID}\n2.6.32\n") is None
    assert parse_pulse("x\ny\nz\n") is None


def test_why_ssh_could_not() -> None:
    text = "warning\nssh: connect to host 127.0.0.1 port 9: Connection refused\r\n"
    assert reason_of(text) == "connect to host 127.0.0.1 port 9: Connection refused"
    assert reason_of("") == "no answer"


def test_the_inventory_becomes_ssh_keywords() -> None:
    text = ssh_config_text(
        inventory("fleet: {hosts: {a: {ansible_host: 10.0.0.1, ansible_port: 2222}}}"), Path("/c")
    )
    assert 'Host a\n  HostName "10.0.0.1"\n  Port "2222"\n' in text
    assert "ssh-rsa" not in text
    assert text.index("Host a") < text.index("Host *")


@pytest.mark.parametrize(("boot_id", "told"), [("this", True), ("another", False)])
def test_only_the_boot_that_is_named_is_ended(
    boot_id: str, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[str] = []

    def execute(_ssh: Ssh, _host: Host, command: str, **_: object) -> Answered:
        commands.append(command)
        return Answered(True, 0, "")

    monkeypatch.setattr(Ssh, "execute", execute)
    with Ssh(inventory()) as ssh:
        assert ssh.reboot(ssh.inventory.host("a"), boot_id).ok
    (command,) = commands
    # The same shell words, with a boot id of ours and without the end of this machine.
    (tmp_path / "boot_id").write_text("this\n")
    for real, ours in (
        ("/proc/sys/kernel/random/boot_id", f"{tmp_path}/boot_id"),
        ("sleep 1; PATH=/sbin:/usr/sbin:$PATH reboot", f"echo >{tmp_path}/told"),
        (" 2>&1 &", ""),
    ):
        assert real in command
        command = command.replace(real, ours)
    assert "reboot" not in command
    run.run(["sh", "-c", command])
    assert (tmp_path / "told").exists() == told


def test_a_host_that_is_not_there_is_not_reached() -> None:
    text = "fleet: {hosts: {a: {ansible_host: 127.0.0.1, ansible_port: 1}}}"
    with Ssh(inventory(text)) as ssh:
        host = ssh.inventory.host("a")
        answer = ssh.execute(host, "true")
        assert not answer.reached
        assert "refused" in answer.output
        assert ssh.pulse(host) is None
        folder = ssh.config.parent
    assert not folder.exists()
