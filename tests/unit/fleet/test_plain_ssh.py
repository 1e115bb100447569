"""Setting the default with a shell only, on a file system in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from fsdeploy.errors import FsdeployError
from fsdeploy.fleet.inventory import Host
from fsdeploy.fleet.rollback import read_files, set_default_plainly
from fsdeploy.fleet.transport import Answered, Ssh
from tests.unit.fleet.folders import LocalShell
from tests.unit.playbooks.host import GRUB_CONF, NEW, OLD, FakeHost, stage2


class Shell(LocalShell):
    """With a /boot that can be full."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, ("/boot/",), before="\"' \n=")
        self.writes_fail = False

    def execute(
        self, host: Host, command: str, *, input_text: str | None = None, timeout: float = 60
    ) -> Answered:
        if self.writes_fail and "base64 -d" in command:
            return Answered(True, 1, "No space left on device")
        return super().execute(host, command, input_text=input_text, timeout=timeout)


HOST = Host("a")


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path / "root")


@pytest.fixture
def shell(host: FakeHost) -> Shell:
    return Shell(host.root)


def set_default(shell: Shell, release: str) -> None:
    set_default_plainly(cast(Ssh, shell), HOST, release)


def test_red_hat(host: FakeHost, shell: Shell) -> None:
    host.redhat(word=0x10005)
    before = host.get("/boot/grub/stage2")
    set_default(shell, NEW)
    assert host.get("/boot/grub/grub.conf").decode() == GRUB_CONF.replace("default=1", "default=0")
    assert host.path("/boot/grub/menu.lst").is_symlink()
    # The armed boot is gone, the saved entry and all other bytes stay.
    assert host.get("/boot/grub/stage2") == stage2(word=0x05)
    assert len(before) == len(host.get("/boot/grub/stage2"))
    set_default(shell, OLD)
    assert host.get("/boot/grub/grub.conf").decode() == GRUB_CONF


def test_debian_that_saves(host: FakeHost, shell: Shell) -> None:
    host.debian(GRUB_CONF.replace("default=1", "default saved"))
    host.put("/boot/grub/default", "1\n")
    set_default(shell, NEW)
    assert read_files(cast(Ssh, shell), HOST).default_release == NEW


def test_the_mode_of_the_file_is_kept(host: FakeHost, shell: Shell) -> None:
    host.redhat()
    host.path("/boot/grub/grub.conf").chmod(0o600)
    set_default(shell, NEW)
    assert host.path("/boot/grub/grub.conf").stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_written_is_told(host: FakeHost, shell: Shell) -> None:
    host.redhat()
    shell.writes_fail = True
    with pytest.raises(FsdeployError, match="could not be written: No space left"):
        set_default(shell, NEW)
    assert host.get("/boot/grub/grub.conf").decode() == GRUB_CONF


def test_an_unknown_loader_is_left_alone(shell: Shell) -> None:
    with pytest.raises(FsdeployError, match="not one that fsdeploy knows"):
        set_default(shell, NEW)
