"""A real SSH server that offers what OpenSSH 5.3 offered, over every way that leads to a host."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdeploy import paths, run
from fsdeploy.errors import Unreachable
from fsdeploy.fleet import endpoints
from fsdeploy.fleet.ansible import HostResult, by_hand, run_playbook
from fsdeploy.fleet.endpoints import Endpoint
from fsdeploy.fleet.inventory import Inventory, parse_inventory
from fsdeploy.fleet.transport import Ssh, explained, ssh_config_text
from fsdeploy.fleet.verify import VerifyReport, VerifyRequest, verify_hosts

PING = """
- name: Greet
  hosts: all
  gather_facts: false
  tasks:
    - name: Greet
      ansible.builtin.ping:
"""
NAMES_IT = r"set fsdeploy_old_ssh: true for it in the inventory \(docs/fleet.md\)"


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    endpoints.require_server()
    folder = tmp_path_factory.mktemp("sshd")
    endpoints.make_key(folder / "key")
    with endpoints.serving(
        "a", folder, folder / "key", options=endpoints.OLD_SERVER, program=[taciturn(folder)]
    ) as server:
        yield server


def taciturn(folder: Path) -> Path:
    """The SSH server without a word of the protocol that 5.3 did not have yet (RFC 8308).

    Today's server announces all signatures that it knows, even when it was told to accept ssh-rsa
    only, and a client believes that. Nobody asks it any more once it waits for another question.
    """
    program = run.find("sshd")
    assert program
    # The linker may have put other strings on its last letters.
    old, new = b"\0ext-info-c\0", b"\0xxx-info-c\0"
    data = Path(program).read_bytes()
    assert old in data
    copy = folder / "sshd"
    copy.write_bytes(data.replace(old, new))
    copy.chmod(0o755)
    return copy


def inventory(old: Endpoint, folder: Path, *, option: bool) -> Inventory:
    path = folder / "hosts.yml"
    path.write_text(
        f"fleet:\n  hosts: {{a: }}\n  vars:\n    fsdeploy_ssh_config: {old.ssh_config}\n"
        f"    ansible_python_interpreter: {sys.executable}\n"
        + ("    fsdeploy_old_ssh: true\n" if option else "")
    )
    return parse_inventory(path.read_text(), path)


def ping(hosts: Inventory, folder: Path, monkeypatch: pytest.MonkeyPatch) -> HostResult:
    shutil.copytree(paths.data_root() / "playbooks", folder / "playbooks")
    (folder / "playbooks/ping.yml").write_text(PING)
    monkeypatch.setattr(paths, "data_root", lambda: folder)
    with Ssh(hosts) as ssh:
        return run_playbook("ping", ssh, ["a"], log=folder / "log")["a"]


def verified(hosts: Inventory, folder: Path, monkeypatch: pytest.MonkeyPatch) -> VerifyReport:
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    return verify_hosts(VerifyRequest(hosts.path))


def test_a_command(old: Endpoint, tmp_path: Path) -> None:
    with Ssh(inventory(old, tmp_path, option=True)) as ssh:
        assert ssh.require(ssh.inventory.host("a"), "echo $((6 * 7))") == "42\n"
    with (
        Ssh(inventory(old, tmp_path, option=False)) as ssh,
        pytest.raises(Unreachable, match=rf"Their offer: ssh-rsa; an old SSH server: {NAMES_IT}"),
    ):
        ssh.require(ssh.inventory.host("a"), "true")


def test_a_playbook(old: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = ping(inventory(old, tmp_path, option=True), tmp_path, monkeypatch)
    assert (result.ok, result.data["ping"]["ping"]) == (True, "pong")


def test_a_playbook_without_it(
    old: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = ping(inventory(old, tmp_path, option=False), tmp_path, monkeypatch)
    assert not result.reached
    assert "an old SSH server: set fsdeploy_old_ssh: true" in result.message


def test_the_checks(old: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = verified(inventory(old, tmp_path, option=True), tmp_path, monkeypatch)
    (host,) = report.hosts
    assert host.reached
    assert host.checks


def test_the_checks_without_it(
    old: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = verified(inventory(old, tmp_path, option=False), tmp_path, monkeypatch)
    (host,) = report.hosts
    assert report.exit_code == 3
    assert "an old SSH server: set fsdeploy_old_ssh: true" in host.message


def test_only_the_hosts_that_need_it_get_it() -> None:
    text = "fleet: {hosts: {new: , old: {fsdeploy_old_ssh: true}, odd: {fsdeploy_old_ssh: false}}}"
    hosts = parse_inventory(text, Path("/i.yml"))
    config = ssh_config_text(hosts, Path("/c"))
    assert config.count("+ssh-rsa") == 2
    old = 'Host old\n  HostKeyAlgorithms "+ssh-rsa"\n  PubkeyAcceptedAlgorithms "+ssh-rsa"\n\n'
    assert old in config
    assert "ssh-rsa" not in by_hand("arm", hosts, ["new", "odd"], {})
    assert (
        "--ssh-common-args '-o HostKeyAlgorithms=+ssh-rsa -o PubkeyAcceptedAlgorithms=+ssh-rsa'"
    ) in by_hand("arm", hosts, ["new", "old"], {})


def test_a_server_with_nothing_in_common() -> None:
    text = (
        "Unable to negotiate with 127.0.0.1 port 1: no matching cipher found. Their offer: arcfour"
    )
    assert explained(text).endswith(
        "; allow a cipher of these in the ssh_config that fsdeploy_ssh_config names (docs/fleet.md)"
    )
    assert explained("Connection refused") == "Connection refused"


def test_the_server_refuses_what_is_new(old: Endpoint) -> None:
    """The server of these tests is as old as they say: or they would prove nothing."""
    answer = run.run(
        ["ssh", "-F", old.ssh_config, "-o", "HostKeyAlgorithms=rsa-sha2-512", "a"], check=False
    )
    assert "Their offer: ssh-rsa" in answer.output
    answer = run.run(
        ["ssh", "-F", old.ssh_config, "-o", "HostKeyAlgorithms=+ssh-rsa", "a"], check=False
    )
    assert "Permission denied (publickey)" in answer.output
