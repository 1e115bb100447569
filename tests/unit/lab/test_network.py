# SPDX-License-Identifier: GPL-2.0-only

import io
import random
import socket
import tarfile
import threading
from pathlib import Path

import pytest
import yaml

from fsdeploy import run
from fsdeploy.errors import FsdeployError
from fsdeploy.fleet.inventory import parse_inventory
from fsdeploy.lab import network

HOSTS = (
    network.Reach("lab1", 20001, "ssh-rsa AAAA"),
    network.Reach("lab2", 20002, "ssh-rsa BBBB"),
)


def test_port_is_free_and_not_taken() -> None:
    port = network.choose_port(
        taken=range(20000, 29990), free=lambda port: port % 2 == 0, source=random.Random(1)
    )
    assert 29990 <= port < 30000
    assert port % 2 == 0


def test_no_free_port_is_an_error() -> None:
    with pytest.raises(FsdeployError, match="no free port"):
        network.choose_port(free=lambda _: False)


def test_a_port_somebody_listens_on_is_not_free() -> None:
    with socket.socket() as server:
        server.bind((network.LOOPBACK, 0))
        server.listen()
        assert not network.is_free(server.getsockname()[1])


@pytest.mark.parametrize(
    ("greeting", "answers"), [(b"SSH-2.0-x\r\n", True), (b"", False), (b"220 mail\r\n", False)]
)
def test_only_an_ssh_greeting_is_an_answer(greeting: bytes, answers: bool) -> None:
    with socket.create_server((network.LOOPBACK, 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(greeting)

        thread = threading.Thread(target=serve)
        thread.start()
        assert network.answers_ssh(server.getsockname()[1]) is answers
        thread.join()


def test_nobody_listening_is_no_answer() -> None:
    with socket.create_server((network.LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
    assert not network.answers_ssh(port)


def test_ssh_understands_the_config(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    folder.mkdir()
    config = folder / "ssh_config"
    config.write_text(network.ssh_config_text(HOSTS, folder))
    answer = run.run(["ssh", "-G", "-F", config, "lab2"]).output.splitlines()
    for line in (
        "hostname 127.0.0.1",
        "port 20002",
        "user root",
        "hostkeyalias lab2",
        "stricthostkeychecking true",
        f"identityfile {folder}/id_rsa",
        f"userknownhostsfile {folder}/known_hosts",
    ):
        assert line in answer


def test_keys_are_known_by_name() -> None:
    assert network.known_hosts_text(HOSTS).splitlines() == [
        "lab1 ssh-rsa AAAA",
        "lab2 ssh-rsa BBBB",
    ]


def test_inventory_is_one_that_the_fleet_reads(tmp_path: Path) -> None:
    config = tmp_path / "ssh_config"
    config.touch()
    text = network.inventory_text(HOSTS, config)
    inventory = parse_inventory(text, tmp_path / "inventory.yml")
    assert inventory.names == ("lab1", "lab2")
    assert inventory.ssh_config == config
    assert list(yaml.safe_load(text)) == ["fleet"]


def test_seed_is_owned_by_root_and_keeps_secrets() -> None:
    files = network.seed_files("lab7", "ssh-rsa USER", b"PRIVATE", "ssh-rsa HOST")
    with tarfile.open(fileobj=io.BytesIO(network.seed_archive(files))) as archive:
        entries = {entry.name: entry for entry in archive}
        assert {entry.uid for entry in entries.values()} == {0}
        assert entries["etc/ssh/ssh_host_rsa_key"].mode == 0o600
        assert entries["root/.ssh/authorized_keys"].mode == 0o600
        assert entries["etc/sysconfig/network"].mode == 0o644
        names = archive.extractfile("etc/sysconfig/network")
        assert names is not None
        assert b"HOSTNAME=lab7\n" in names.read()


def test_seed_is_a_whole_number_of_sectors() -> None:
    assert len(network.seed_archive({"a": b"x"})) % 512 == 0


def test_addresses_of_cards_differ() -> None:
    assert network.mac_address(1) == "52:54:00:f5:00:01"
    assert len({network.mac_address(number) for number in range(1, 201)}) == 200


def test_key_is_made_once(tmp_path: Path) -> None:
    first = network.make_key(tmp_path / "key", "a comment")
    assert first.startswith("ssh-rsa ")
    assert network.make_key(tmp_path / "key", "another") == first


def test_ssh_words_keep_the_command_apart() -> None:
    words = network.ssh_words(Path("/x/ssh_config"), "lab1", ["ls", "-l"])
    assert words == ("ssh", "-F", "/x/ssh_config", "lab1", "--", "ls", "-l")
    assert network.ssh_words(Path("c"), "lab1") == ("ssh", "-F", "c", "lab1")
