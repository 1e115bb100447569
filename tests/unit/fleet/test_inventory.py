"""Inventories: hosts, ranges, variables, and what is said about a file that is not one."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsdeploy import paths
from fsdeploy.errors import FsdeployError
from fsdeploy.fleet.inventory import Inventory, load_inventory, parse_inventory

HERE = Path("/etc/fleet.yml")


def parse(text: str) -> Inventory:
    return parse_inventory(text, HERE)


def test_hosts_groups_and_variables() -> None:
    inventory = parse(
        """
fleet:
  hosts:
    web1:
      ansible_host: 10.0.0.1
  children:
    proxies:
      hosts:
        proxy1:
        web1:
      vars: {role: proxy}
  vars: {ansible_user: root}
"""
    )
    assert inventory.names == ("web1", "proxy1")
    web, proxy = inventory.hosts
    assert web.address == "10.0.0.1"
    assert proxy.address == "proxy1"
    assert proxy.variables == {"ansible_user": "root", "role": "proxy"}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("web[1:3]", ("web1", "web2", "web3")),
        ("web[08:10].example", ("web08.example", "web09.example", "web10.example")),
        ("r[1:2]h[1:2]", ("r1h1", "r1h2", "r2h1", "r2h2")),
    ],
)
def test_ranges(text: str, names: tuple[str, ...]) -> None:
    assert parse(f"fleet: {{hosts: {{'{text}': }}}}").names == names


def test_limit_takes_names_and_patterns() -> None:
    inventory = parse("fleet: {hosts: {web1: , web2: , db1: }}")
    assert inventory.limited(["db1,web*"]).names == ("web1", "web2", "db1")
    assert inventory.limited(["web2"]).names == ("web2",)
    assert inventory.limited([]).names == inventory.names


@pytest.mark.parametrize(
    ("limit", "left"),
    [(["!web2"], ["web1", "db1"]), (["web*", "!web1"], ["web2"]), (["!web*,web1"], [])],
)
def test_hosts_are_left_out(limit: list[str], left: list[str]) -> None:
    inventory = parse("fleet: {hosts: {web1: , web2: , db1: }}")
    if left:
        assert list(inventory.limited(limit).names) == left
    else:
        with pytest.raises(FsdeployError, match="leaves no host"):
            inventory.limited(limit)


def test_an_unknown_host_gets_the_nearest() -> None:
    inventory = parse("fleet: {hosts: {web1: , db1: }}")
    with pytest.raises(FsdeployError) as caught:
        inventory.limited(["wbe1"])
    assert caught.value.hint == "did you mean web1?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[fleet]\nweb1\nweb2\n", "not YAML"),
        ("just a text", "no group at its top"),
        ("", "no group at its top"),
        ("fleet: {hosts: [web1]}", "a mapping was expected"),
        ("fleet: {host: {web1: }}", "unknown key 'host'"),
        ("fleet: {hosts: }", "names no host"),
        (
            "fleet: {hosts: {a: {fsdeploy_ssh_config: x}, b: {fsdeploy_ssh_config: y}}}",
            "differs between hosts",
        ),
        ("fleet: {hosts: {a: {fsdeploy_ssh_config: /nowhere/x}}}", "which is not there"),
    ],
)
def test_odd_inventories_are_named(text: str, message: str) -> None:
    with pytest.raises(FsdeployError, match=message) as caught:
        parse(text)
    assert str(HERE) in caught.value.message


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FsdeployError, match="there is no inventory") as caught:
        load_inventory(tmp_path / "none.yml")
    assert "inventory/example.yml" in caught.value.hint
    with pytest.raises(FsdeployError, match="cannot read"):
        load_inventory(tmp_path)


def test_the_ssh_config_is_found_beside_the_inventory(tmp_path: Path) -> None:
    (tmp_path / "ssh_config").touch()
    path = tmp_path / "inventory.yml"
    path.write_text("fleet: {hosts: {a: }, vars: {fsdeploy_ssh_config: ssh_config}}")
    assert load_inventory(path).ssh_config == tmp_path / "ssh_config"


def test_the_example_is_one() -> None:
    inventory = load_inventory(paths.data_root() / "playbooks" / "inventory" / "example.yml")
    assert len(inventory.hosts) == 6
