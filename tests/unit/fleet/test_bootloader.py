"""The control side of the boot loaders: words, files, and editing without a host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdeploy.errors import FsdeployError
from fsdeploy.fleet import bootloader
from fsdeploy.fleet.bootloader import Kind
from tests.unit.playbooks.host import GRUB_CONF, NEW, OLD, stage2


@given(old=st.integers(0, 0xFFFFFFFF), entry=st.integers(0, 255))
def test_the_word_comes_back(old: int, entry: int) -> None:
    word = bootloader.once_word(old, entry)
    assert bootloader.once_entry(word) == entry
    assert word & 0xFF == old & 0xFF
    assert word < 1 << 17


def test_the_word_has_no_room_for_more() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        bootloader.once_word(0, 256)
    assert bootloader.once_entry(0x0501) is None


def test_stage2_of_each_maker() -> None:
    assert bootloader.legacy_kind(stage2()) is Kind.REDHAT_LEGACY
    assert bootloader.legacy_kind(stage2("(hd0,0)/grub/grub.conf")) is Kind.REDHAT_LEGACY
    assert bootloader.legacy_kind(stage2("/boot/grub/menu.lst", debian=True)) is Kind.DEBIAN_LEGACY
    # Debian's GRUB pointed at another configuration is still Debian's.
    assert bootloader.legacy_kind(stage2(debian=True)) is Kind.DEBIAN_LEGACY
    assert bootloader.legacy_kind(stage2("/boot/grub/menu.lst")) is Kind.UNKNOWN
    assert bootloader.legacy_kind(b"") is Kind.UNKNOWN


def test_the_default_line_keeps_its_form() -> None:
    assert "default=0\n" in bootloader.with_default(GRUB_CONF, "0")
    assert bootloader.with_default("default   3 \ntitle x\n", "12") == "default   12 \ntitle x\n"
    with pytest.raises(FsdeployError, match="no default line"):
        bootloader.with_default("timeout=5\ntitle x\ndefault=0\n", "1")


def test_the_default_file() -> None:
    assert bootloader.parse_default_file(bootloader.default_file_text(12).encode()) == 12
    assert bootloader.parse_default_file(b"2\0\n\n\n#\n") == 2
    assert bootloader.parse_default_file(b"") is None


@given(
    st.dictionaries(st.from_regex(r"[a-z_]{1,12}", fullmatch=True), st.text("abc>0", max_size=9))
)
def test_the_environment_block_comes_back(values: dict[str, str]) -> None:
    block = bootloader.grubenv_block(values)
    assert len(block) == 1024
    assert bootloader.parse_grubenv(block) == values


def test_a_full_environment_block_is_refused() -> None:
    with pytest.raises(FsdeployError, match="full"):
        bootloader.grubenv_block({"a": "x" * 1024})


def test_a_host_without_a_known_loader() -> None:
    assert bootloader.read_boot(lambda _: None).kind is Kind.UNKNOWN


def test_an_entry_that_is_not_there() -> None:
    files = {"/boot/grub/grub.conf": GRUB_CONF.encode(), "/boot/grub/stage2": stage2()}
    state = bootloader.read_boot(files.get)
    assert state.releases == (NEW, OLD)
    with pytest.raises(FsdeployError, match=r"has no entry for 3\.10"):
        state.entry("3.10")
