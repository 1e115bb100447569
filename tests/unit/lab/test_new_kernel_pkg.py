# SPDX-License-Identifier: GPL-2.0-only
"""The lab's new-kernel-pkg edits grub.conf the way CentOS's does."""

from pathlib import Path

import pytest

from fsdeploy import run
from fsdeploy.lab import image

SCRIPT = image.HOSTFILES / "root/usr/sbin/new-kernel-pkg"
HEAD = "# a comment\ndefault={default}\ntimeout=1\n{more}hiddenmenu\n"


def entry(version: str, args: str = "ro root=/dev/vda1 quiet", root: str = "(hd0,0)") -> str:
    return f"title CentOS ({version})\n\troot {root}\n\tkernel /boot/vmlinuz-{version} {args}\n"


class Host:
    """A folder that stands for a host's root."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("boot/grub", "etc/sysconfig"):
            (root / folder).mkdir(parents=True)
        (root / "etc/redhat-release").write_text("CentOS release 6.5 (Final)\n")
        (root / "etc/sysconfig/kernel").write_text(
            'UPDATEDEFAULT=yes\nDEFAULTKERNEL=kernel\nFIRST_ENTRY_ARGS="ro root=/dev/vda1"\n'
        )

    @property
    def conf(self) -> Path:
        return self.root / "boot/grub/grub.conf"

    def has(self, *versions: str, default: str = "0", more: str = "") -> None:
        self.conf.write_text(
            HEAD.format(default=default, more=more) + "".join(entry(name) for name in versions)
        )

    def call(self, *words: str, check: bool = True) -> run.Result:
        for version in words:
            if version[0].isdigit():
                (self.root / f"boot/vmlinuz-{version}").touch()
        return run.run(
            ["sh", SCRIPT, *words], env={"NEW_KERNEL_PKG_ROOT": str(self.root)}, check=check
        )

    def install(self, version: str, *words: str, package: str = "kernel-fastsocket") -> None:
        self.call("--package", package, "--mkinitrd", "--dracut", *words, "--install", version)

    def remove(self, version: str) -> None:
        self.call("--rminitrd", "--rmmoddep", "--remove", version)

    @property
    def default(self) -> str:
        return self.line("default")

    def line(self, name: str) -> str:
        lines = self.conf.read_text().splitlines()
        return next((line for line in lines if line.startswith(name)), "")

    @property
    def titles(self) -> list[str]:
        lines = self.conf.read_text().splitlines()
        return [line.removeprefix("title ") for line in lines if line.startswith("title")]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_new_entry_is_above_the_others_and_default_stays_the_same_kernel(host: Host) -> None:
    host.has("1", "2", default="1")
    host.install("3")
    assert host.titles == ["CentOS (3)", "CentOS (1)", "CentOS (2)"]
    assert host.default == "default=2"


def test_new_entry_copies_root_and_arguments_of_the_default_entry(host: Host) -> None:
    host.conf.write_text(
        HEAD.format(default="1", more="") + entry("1") + entry("2", "ro root=LABEL=x", "(hd1,2)")
    )
    host.install("3")
    assert entry("3", "ro root=LABEL=x", "(hd1,2)") in host.conf.read_text()


def test_nothing_else_changes(host: Host) -> None:
    host.has("1", "2", default="1")
    before = host.conf.read_text()
    host.install("3")
    host.remove("3")
    assert host.conf.read_text() == before


def test_the_package_that_defaultkernel_names_becomes_the_default(host: Host) -> None:
    host.has("1", default="0")
    host.install("2", package="kernel")
    assert host.default == "default=0"
    assert host.titles[0] == "CentOS (2)"


def test_first_entry_takes_its_arguments_from_sysconfig(host: Host) -> None:
    host.has()
    host.install("1")
    assert host.conf.read_text().endswith(entry("1", "ro root=/dev/vda1"))
    assert host.default == "default=0"


def test_initrd_is_named_when_there_is_one(host: Host) -> None:
    host.has("1")
    (host.root / "boot/initramfs-2.img").touch()
    host.install("2")
    assert "\tinitrd /boot/initramfs-2.img\n" in host.conf.read_text()


def test_fallback_keeps_its_kernels(host: Host) -> None:
    host.has("1", "2", default="0", more="fallback=1 0\n")
    host.install("3")
    assert host.line("fallback") == "fallback=2 1"
    host.remove("1")
    assert host.line("fallback") == "fallback=1"


def test_a_saved_default_is_left_alone(host: Host) -> None:
    host.has("1", "2", default="saved")
    host.install("3")
    assert host.default == "default=saved"
    host.remove("3")
    assert host.default == "default=saved"


def test_removing_the_default_makes_the_first_entry_the_default(host: Host) -> None:
    host.has("1", "2", "3", default="1")
    host.remove("2")
    assert host.titles == ["CentOS (1)", "CentOS (3)"]
    assert host.default == "default=0"


def test_numbers_above_nine_are_numbers(host: Host) -> None:
    host.has(*(str(number) for number in range(12)), default="10")
    host.remove("2")
    assert host.default == "default=9"
    host.install("2")
    assert host.default == "default=10"


def test_a_version_that_begins_like_another_is_not_removed(host: Host) -> None:
    host.has("1.10", "1.1", default="0")
    host.remove("1.1")
    assert host.titles == ["CentOS (1.10)"]


def test_a_missing_kernel_changes_nothing(host: Host) -> None:
    host.has("1")
    before = host.conf.read_text()
    answer = host.call("--install", "none", check=False)
    assert answer.returncode == 1
    assert "vmlinuz-none" in answer.output
    assert host.conf.read_text() == before


def test_usage_when_no_version_is_given(host: Host) -> None:
    host.has("1")
    assert host.call("--install", check=False).returncode == 1
