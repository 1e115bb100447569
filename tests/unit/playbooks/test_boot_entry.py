"""boot_entry on file systems of each kind, with our Python and with old ones where they are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fsdeploy.fleet import bootloader
from tests.unit.playbooks.host import (
    GRUB_CFG,
    GRUB_CONF,
    NEW,
    OLD,
    FakeHost,
    grubenv,
    old_pythons,
    run_module,
    stage2,
)

BootEntry = Callable[..., Mapping[str, Any]]

KINDS = ("redhat", "debian", "grub2")


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path / "root")


@pytest.fixture
def boot_entry(host: FakeHost) -> BootEntry:
    def call(state: str = "gathered", **arguments: Any) -> Mapping[str, Any]:
        return run_module("boot_entry", state=state, root=str(host.root), **arguments)

    return call


def make(host: FakeHost, kind: str) -> FakeHost:
    made: FakeHost = getattr(host, kind)()
    return made


def control_side(host: FakeHost) -> bootloader.BootState:
    def read(path: str) -> bytes | None:
        file = host.path(path)
        return file.read_bytes() if file.exists() else None

    return bootloader.read_boot(read)


@pytest.mark.parametrize("kind", KINDS)
def test_gathered_says_what_boots(host: FakeHost, boot_entry: BootEntry, kind: str) -> None:
    make(host, kind)
    before = host.tree()
    answer = boot_entry()
    boot = answer["boot"]
    assert not answer["changed"]
    assert boot["default_release"] == OLD
    assert boot["once_release"] == ""
    assert boot["traps"] == []
    assert [entry["release"] for entry in boot["entries"]] == [NEW, OLD]
    assert host.tree() == before


def test_kinds_are_told_apart(tmp_path: Path) -> None:
    kinds = {}
    for kind in KINDS:
        host = make(FakeHost(tmp_path / kind), kind)
        kinds[kind] = run_module("boot_entry", root=str(host.root))["boot"]["kind"]
    assert kinds == {
        "redhat": "grub-0.97-redhat",
        "debian": "grub-0.97-debian",
        "grub2": "grub-2",
    }


@pytest.mark.parametrize("kind", KINDS)
def test_armed_starts_once_and_keeps_the_default(
    host: FakeHost, boot_entry: BootEntry, kind: str
) -> None:
    make(host, kind)
    answer = boot_entry("armed", release=NEW, arguments=["panic=10", "quiet"])
    assert answer["changed"], answer
    assert answer["boot"]["once_release"] == NEW
    assert answer["boot"]["default_release"] == OLD
    trial, old = answer["boot"]["entries"]
    assert trial["arguments"][-2:] == ["quiet", "panic=10"]
    assert "panic=10" not in old["arguments"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_armed_is_known_until_it_is_taken_back(
    host: FakeHost, boot_entry: BootEntry, kind: str
) -> None:
    make(host, kind)
    assert boot_entry()["boot"]["tried_release"] == ""
    boot_entry("armed", release=NEW, arguments=[])
    assert boot_entry()["boot"]["tried_release"] == NEW
    boot_entry("disarmed")
    assert boot_entry()["boot"]["tried_release"] == ""
    boot_entry("armed", release=NEW, arguments=[])
    boot_entry("default", release=NEW)
    assert boot_entry()["boot"]["tried_release"] == ""


@pytest.mark.parametrize("kind", KINDS)
def test_armed_twice_changes_nothing(host: FakeHost, boot_entry: BootEntry, kind: str) -> None:
    make(host, kind)
    boot_entry("armed", release=NEW, arguments=["panic=10"])
    armed = host.tree()
    assert not boot_entry("armed", release=NEW, arguments=["panic=10"])["changed"]
    assert host.tree() == armed


@pytest.mark.parametrize("kind", KINDS)
def test_disarmed_restores_every_byte(host: FakeHost, boot_entry: BootEntry, kind: str) -> None:
    make(host, kind)
    before = host.tree()
    boot_entry("armed", release=NEW, arguments=["panic=10"])
    assert host.tree() != before
    assert boot_entry("disarmed")["changed"]
    assert host.tree() == before
    assert not boot_entry("disarmed")["changed"]


@pytest.mark.parametrize("kind", KINDS)
def test_default_is_set_and_the_trial_arguments_go(
    host: FakeHost, boot_entry: BootEntry, kind: str
) -> None:
    make(host, kind)
    boot_entry("armed", release=NEW, arguments=["panic=10"])
    answer = boot_entry("default", release=NEW)
    assert answer["changed"], answer
    assert answer["boot"]["default_release"] == NEW
    assert answer["boot"]["once_release"] == ""
    assert all("panic=10" not in entry["arguments"] for entry in answer["boot"]["entries"])
    assert not boot_entry("default", release=NEW)["changed"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("state", ["armed", "default"])
def test_check_mode_reports_and_writes_nothing(
    host: FakeHost, boot_entry: BootEntry, kind: str, state: str
) -> None:
    make(host, kind)
    before = host.tree()
    answer = boot_entry(state, release=NEW, _ansible_check_mode=True, _ansible_diff=True)
    assert answer["changed"]
    assert "diff" in answer
    assert host.tree() == before


@pytest.mark.parametrize("kind", KINDS)
def test_control_side_reads_the_same(host: FakeHost, boot_entry: BootEntry, kind: str) -> None:
    make(host, kind)
    for state, arguments in (
        ("gathered", {}),
        ("armed", {"release": NEW, "arguments": ["panic=10"]}),
        ("default", {"release": NEW}),
    ):
        boot = boot_entry(state, **arguments)["boot"]
        seen = control_side(host)
        assert seen.kind == boot["kind"]
        assert seen.config == boot["config"]
        assert (seen.default_release, seen.once_release) == (
            boot["default_release"],
            boot["once_release"],
        )
        assert [
            (entry.title, entry.release, entry.kernel, entry.initrd, list(entry.arguments))
            for entry in seen.entries
        ] == [
            (entry["title"], entry["release"], entry["kernel"], entry["initrd"], entry["arguments"])
            for entry in boot["entries"]
        ]


@pytest.mark.parametrize("kind", KINDS)
def test_disarmed_after_others_changed_the_file(
    host: FakeHost, boot_entry: BootEntry, kind: str
) -> None:
    """A package added an entry while the trial ran: only our own edits go."""
    make(host, kind)
    boot_entry("armed", release=NEW, arguments=["panic=10"])
    config = control_side(host).config
    text = host.get(config).decode().replace("quiet", "quiet audit=0")
    host.put(config, text)
    boot = boot_entry("disarmed")["boot"]
    assert boot["default_release"] == OLD
    assert boot["once_release"] == ""
    for entry in boot["entries"]:
        assert entry["arguments"][-2:] == ["quiet", "audit=0"]
    assert "fallback" not in host.get(config).decode()
    assert "savedefault" not in host.get(config).decode()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_with_the_python_of_old_hosts(host: FakeHost, kind: str) -> None:
    if not old_pythons():
        pytest.skip("this machine has no Python 2")
    make(host, kind)
    before = host.tree()
    for python in old_pythons():
        call = functools.partial(run_module, "boot_entry", python, root=str(host.root))
        assert call()["boot"]["default_release"] == OLD
        armed = call(state="armed", release=NEW, arguments=["panic=10"])
        assert armed["boot"]["once_release"] == NEW
        assert call(state="disarmed")["changed"]
        assert host.tree() == before
        assert call(state="default", release=NEW)["boot"]["default_release"] == NEW
        assert call(state="default", release=OLD)["boot"]["default_release"] == OLD
        assert host.tree() == before


# Red Hat's word


def test_the_word_in_stage2(host: FakeHost, boot_entry: BootEntry) -> None:
    host.redhat(word=0x01)
    before = host.get("/boot/grub/stage2")
    boot_entry("armed", release=NEW)
    assert host.word() == 0x10000 | 0 << 8 | 0x01
    after = host.get("/boot/grub/stage2")
    assert after[:0x20C] == before[:0x20C]
    assert after[0x210:] == before[0x210:]
    assert b"fallback=1\n" in host.get("/boot/grub/grub.conf")


def test_the_word_names_the_entry(host: FakeHost, boot_entry: BootEntry) -> None:
    host.redhat(GRUB_CONF.replace("default=1", "default=0"))
    boot_entry("armed", release=OLD)
    assert host.word() == 0x10100


def test_stage2_keeps_its_blocks(host: FakeHost, boot_entry: BootEntry) -> None:
    """GRUB knows it by its blocks: it is written in place, never replaced."""
    host.redhat()
    inode = host.path("/boot/grub/stage2").stat().st_ino
    boot_entry("armed", release=NEW)
    assert host.path("/boot/grub/stage2").stat().st_ino == inode


def test_a_word_that_nobody_recorded_is_cleared(host: FakeHost, boot_entry: BootEntry) -> None:
    host.redhat(word=0x10001)
    assert boot_entry()["boot"]["once_release"] == NEW
    assert boot_entry("disarmed")["changed"]
    assert host.word() == 0x01


def test_after_the_boot_the_default_is_set(host: FakeHost, boot_entry: BootEntry) -> None:
    """GRUB has cleared the word by then."""
    host.redhat()
    boot_entry("armed", release=NEW, arguments=["panic=10"])
    host.put("/boot/grub/stage2", stage2())
    text = GRUB_CONF.replace("default=1", "default=0")
    boot_entry("default", release=NEW)
    assert host.get("/boot/grub/grub.conf").decode() == text


def test_the_menu_lst_symlink_stays(host: FakeHost, boot_entry: BootEntry) -> None:
    host.redhat()
    boot_entry("default", release=NEW)
    assert host.path("/boot/grub/menu.lst").is_symlink()
    assert b"default=0\n" in host.get("/boot/grub/menu.lst")


def test_mode_is_kept(host: FakeHost, boot_entry: BootEntry) -> None:
    host.redhat()
    host.path("/boot/grub/grub.conf").chmod(0o640)
    boot_entry("default", release=NEW)
    assert host.path("/boot/grub/grub.conf").stat().st_mode & 0o777 == 0o640


# Debian's default file


def test_debian_default_file_and_savedefault(host: FakeHost, boot_entry: BootEntry) -> None:
    host.debian()
    boot_entry("armed", release=NEW)
    text = host.get("/boot/grub/menu.lst").decode()
    assert "default=saved\n" in text
    assert f"title CentOS ({NEW})\n\tsavedefault 1\n\troot" in text
    data = host.get("/boot/grub/default")
    assert data.startswith(b"0\n#\n")
    assert b"WARNING" in data


def test_debian_after_the_boot(host: FakeHost, boot_entry: BootEntry) -> None:
    """What GRUB 0.97-80 leaves in the file after `savedefault 1`, as seen under QEMU."""
    host.debian()
    boot_entry("armed", release=NEW)
    data = host.get("/boot/grub/default")
    host.put("/boot/grub/default", b"1\0" + b"\n" * 8 + data[10:])
    boot = boot_entry()["boot"]
    assert boot["default_release"] == OLD
    assert boot["once_release"] == ""
    boot = boot_entry("default", release=NEW)["boot"]
    assert boot["default_release"] == NEW
    assert host.get("/boot/grub/menu.lst").decode() == GRUB_CONF.replace("default=1", "default=0")
    assert not host.path("/boot/grub/default").exists()


def test_debian_that_saves_already(host: FakeHost, boot_entry: BootEntry) -> None:
    host.debian(GRUB_CONF.replace("default=1", "default saved"))
    host.put("/boot/grub/default", "1\n" + "#\n" * 10)
    assert boot_entry()["boot"]["default_release"] == OLD
    boot = boot_entry("default", release=NEW)["boot"]
    assert boot["default_release"] == NEW
    assert b"default saved\n" in host.get("/boot/grub/menu.lst")
    assert host.get("/boot/grub/default").startswith(b"0\n#")


# GRUB 2


def test_grub2_environment_keeps_its_size_and_blocks(host: FakeHost, boot_entry: BootEntry) -> None:
    host.grub2()
    inode = host.path("/boot/grub2/grubenv").stat().st_ino
    boot_entry("armed", release=NEW)
    data = host.get("/boot/grub2/grubenv")
    assert len(data) == 1024
    assert f"next_entry=gnulinux-{NEW}-advanced-1\n".encode() in data
    assert host.path("/boot/grub2/grubenv").stat().st_ino == inode


def test_grub2_other_variables_stay(host: FakeHost, boot_entry: BootEntry) -> None:
    host.grub2(saved_entry="1>0", kernelopts="root=/dev/sda2 ro")
    assert boot_entry()["boot"]["default_release"] == OLD
    boot_entry("default", release=NEW)
    assert b"kernelopts=root=/dev/sda2 ro\n" in host.get("/boot/grub2/grubenv")


def test_grub2_after_the_boot(host: FakeHost, boot_entry: BootEntry) -> None:
    host.grub2()
    boot_entry("armed", release=NEW, arguments=["panic=10"])
    env = bootloader.parse_grubenv(host.get("/boot/grub2/grubenv"))
    host.put("/boot/grub2/grubenv", grubenv(saved_entry=env["saved_entry"], next_entry=""))
    boot = boot_entry("disarmed")["boot"]
    assert boot["default_release"] == OLD
    assert host.get("/boot/grub2/grub.cfg").decode() == GRUB_CFG


# What is refused


def refusal(answer: Mapping[str, Any]) -> str:
    assert answer.get("failed"), answer
    return str(answer["msg"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda host: host.put("/proc/mounts", "/dev/sda1 /boot ext3 rw,data=journal 0 0\n"),
            "data=journal",
        ),
        (lambda host: host.put("/proc/mounts", "/dev/md0 /boot ext3 rw 0 0\n"), "RAID"),
        (lambda host: host.put("/proc/mounts", "/dev/sda1 /boot ext3 ro 0 0\n"), "read-only"),
        (lambda host: host.path("/sys/firmware/efi").mkdir(parents=True), "UEFI"),
        (
            lambda host: host.put("/boot/grub/grub.conf", GRUB_CONF.replace("default=1\n", "")),
            "no default line",
        ),
        (
            lambda host: host.put("/boot/grub/grub.conf", GRUB_CONF.replace("t=1\n", "t=7\n")),
            "the default entry 7 is not in",
        ),
        (lambda host: host.put("/boot/grub/stage2", b"x" * 4096), "is not a GRUB 0.97"),
        (lambda host: host.path("/boot/grub/stage2").unlink(), "stage2 is not"),
        (lambda host: host.put("/boot/grub2/grub.cfg", GRUB_CFG), "both in /boot"),
        (lambda host: host.path(f"/boot/vmlinuz-{NEW}").unlink(), "is missing or empty"),
        (lambda host: host.put(f"/boot/vmlinuz-{NEW}", b""), "is missing or empty"),
        (lambda host: host.path(f"/boot/initramfs-{NEW}.img").unlink(), "the initrd"),
        (lambda host: host.path(f"/boot/vmlinuz-{OLD}").unlink(), "is missing or empty"),
    ],
)
def test_traps_are_refused_and_nothing_is_written(
    host: FakeHost, boot_entry: BootEntry, change: Callable[[FakeHost], None], message: str
) -> None:
    host.redhat()
    change(host)
    before = host.tree()
    assert message in refusal(boot_entry("armed", release=NEW, arguments=["panic=10"]))
    assert host.tree() == before


def test_an_unknown_release_names_the_known(host: FakeHost, boot_entry: BootEntry) -> None:
    host.redhat()
    message = refusal(boot_entry("armed", release="3.10"))
    assert "has no entry for 3.10" in message
    assert OLD in message


def test_a_trial_of_the_default_is_refused(host: FakeHost, boot_entry: BootEntry) -> None:
    host.redhat()
    assert "is the default already" in refusal(boot_entry("armed", release=OLD))


def test_an_entry_past_255_is_refused(host: FakeHost, boot_entry: BootEntry) -> None:
    head, _, rest = GRUB_CONF.partition("title")
    spare = f"title spare\n\tkernel /vmlinuz-{OLD} ro\n"
    host.redhat(head.replace("default=1", "default=0") + spare * 256 + "title" + rest)
    assert "255 at most" in refusal(boot_entry("armed", release=NEW))


def test_an_empty_boot_is_no_known_loader(boot_entry: BootEntry) -> None:
    assert "no boot loader is known" in boot_entry()["boot"]["traps"][0]["message"]
    assert "no boot loader is known" in refusal(boot_entry("armed", release=NEW))


def test_grub2_without_a_saved_default_is_refused(host: FakeHost, boot_entry: BootEntry) -> None:
    host.grub2(GRUB_CFG.replace("saved_entry", "other"))
    assert "GRUB_DEFAULT=saved" in refusal(boot_entry("armed", release=NEW))


def test_grub2_on_lvm_is_refused(host: FakeHost, boot_entry: BootEntry) -> None:
    host.grub2()
    host.put("/proc/mounts", "/dev/mapper/vg-root / xfs rw 0 0\n")
    assert "cannot write" in refusal(boot_entry("armed", release=NEW))
