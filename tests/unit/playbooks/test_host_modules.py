"""The other host modules, and what all of them must have."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from fsdeploy import paths
from tests.unit.playbooks.host import NEW, OLD, FakeHost, old_pythons, run_module

MODULES = sorted((paths.data_root() / "playbooks" / "library").glob("*.py"))


def constants(path: Path) -> dict[str, str]:
    """Texts that a module binds at its top."""
    return {
        target.id: node.value.value
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def argument_spec(path: Path) -> set[str]:
    """Names in the module's argument_spec."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.keyword)
            and node.arg == "argument_spec"
            and isinstance(node.value, ast.Dict)
        ):
            return {str(key.value) for key in node.value.keys if isinstance(key, ast.Constant)}
    raise AssertionError(f"{path} has no argument_spec")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_the_documentation_is_what_the_module_takes(path: Path) -> None:
    texts = constants(path)
    documented: dict[str, Any] = yaml.safe_load(texts["DOCUMENTATION"])
    assert documented["module"] == path.stem
    assert set(documented["options"]) == argument_spec(path)
    assert yaml.safe_load(texts["EXAMPLES"])
    assert yaml.safe_load(texts["RETURN"])


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    host = FakeHost(tmp_path / "root")
    host.put("/proc/sys/kernel/osrelease", f"{OLD}\n")
    host.put("/proc/sys/kernel/random/boot_id", "abc\n")
    host.put("/proc/modules", "e1000e 1 0 - Live 0x0\nmy_driver 1 0 - Live 0x0\n")
    host.put(f"/lib/modules/{OLD}/kernel/drivers/net/e1000e.ko", "")
    host.put(f"/lib/modules/{OLD}/extra/my-driver.ko", "")
    host.put(f"/lib/modules/{OLD}/weak-updates/unused.ko", "")
    host.put("/etc/centos-release", "CentOS release 6.5 (Final)\n")
    host.put("/etc/yum.conf", "[main]\ninstallonly_limit=5\n")
    host.put("/bin/rpm", "")
    for name in ("rx-0", "rx-1", "tx-0"):
        host.path(f"/sys/class/net/eth0/queues/{name}").mkdir(parents=True)
    host.path("/sys/class/net/eth0/device").mkdir()
    host.path("/sys/class/net/eth0/device/driver").symlink_to("../../drivers/igb")
    host.path("/sys/class/net/lo").mkdir()
    return host


def test_host_preflight_collects(host: FakeHost) -> None:
    before = host.tree()
    answer = run_module("host_preflight", root=str(host.root))
    assert not answer["changed"]
    seen = dict(answer["host"])
    assert seen.pop("boot_free") == seen.pop("root_free")
    assert seen.pop("python")
    assert seen.pop("machine")
    assert seen == {
        "boot_id": "abc",
        "distribution": "CentOS release 6.5 (Final)",
        "has_new_kernel_pkg": False,
        "installed": [NEW, OLD],
        "installonly_limit": 5,
        "interfaces": [{"driver": "igb", "name": "eth0", "rx_queues": 2, "tx_queues": 1}],
        "kmods": ["my_driver"],
        "rpm": "/bin/rpm",
        "running": OLD,
        "same_file_system": True,
    }
    assert host.tree() == before


def test_host_preflight_with_the_python_of_old_hosts(host: FakeHost) -> None:
    if not old_pythons():
        pytest.skip("this machine has no Python 2")
    wanted = dict(run_module("host_preflight", root=str(host.root))["host"], python="", root_free=0)
    for python in old_pythons():
        seen = run_module("host_preflight", python, root=str(host.root))["host"]
        same = dict(seen, python="", root_free=0, boot_free=wanted["boot_free"])
        assert same == wanted


@pytest.mark.parametrize("whole", [False, True], ids=["cut", "not-an-rpm"])
def test_a_damaged_package_is_refused_and_removed(tmp_path: Path, whole: bool) -> None:
    package = tmp_path / "kernel.rpm"
    package.write_bytes(b"half an RPM")
    sha256 = hashlib.sha256(b"half an RPM" if whole else b"a whole RPM").hexdigest()
    answer = run_module(
        "kernel_package",
        state="present",
        release="0.0.0-not.installed",
        file=str(package),
        sha256=sha256,
    )
    assert answer["failed"]
    assert "damaged" in answer["msg"]
    assert not package.exists()


def test_check_mode_installs_nothing(tmp_path: Path) -> None:
    package = tmp_path / "kernel.rpm"
    package.write_bytes(b"")
    answer = run_module(
        "kernel_package",
        state="present",
        release="0.0.0-not.installed",
        file=str(package),
        sha256="0",
        _ansible_check_mode=True,
    )
    assert answer["changed"]
    assert package.exists()


def test_a_kernel_that_is_not_there_needs_no_removal() -> None:
    answer = run_module("kernel_package", state="absent", release="0.0.0-not.installed")
    assert not answer["changed"]
    assert not answer["installed"]
