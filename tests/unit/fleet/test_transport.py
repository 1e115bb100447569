"""The ssh_config of a session and what is read from hosts."""

from __future__ import annotations

from pathlib import Path

from fsdeploy.fleet.inventory import Inventory, parse_inventory
from fsdeploy.fleet.transport import Pulse, Ssh, parse_pulse, reason_of, ssh_config_text

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
    assert "HostKeyAlgorithms +ssh-rsa" in text
    assert "PubkeyAcceptedAlgorithms +ssh-rsa" in text
    assert text.index("Host a") < text.index("Host *")


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
