# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdeploy import run
from fsdeploy.lab.initramfs import Device, Directory, Entry, File, Symlink, archive

NAMES = st.text("abcXYZ019._- ü", min_size=1, max_size=12).filter(lambda n: n not in {".", ".."})
FILES = st.dictionaries(
    st.lists(NAMES, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts)),
    st.builds(File, st.binary(max_size=50), st.sampled_from([0o600, 0o644, 0o755])),
    max_size=6,
)


def listed(archived: bytes, tmp_path: Path) -> dict[str, list[str]]:
    """What cpio reads: path to the words of `ls -l` before it."""
    path = tmp_path / "archive"
    path.write_bytes(archived)
    with path.open("rb") as stream:
        lines = run.run(["cpio", "--quiet", "-itvn"], stdin=stream).output.splitlines()
    return {line.split("1970 ")[1]: line.split() for line in lines}


def unpacked(archived: bytes) -> dict[str, tuple[int, bytes]]:
    """An independent reading of the format: path to mode and data."""
    found: dict[str, tuple[int, bytes]] = {}
    at = 0
    while True:
        assert archived[at : at + 6] == b"070701"
        fields = [int(archived[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archived[at + 110 : at + 110 + name_size - 1].decode()
        at = (at + 110 + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            assert at == len(archived)
            return found
        found[name] = (mode, archived[at : at + size])
        at = (at + size + 3) // 4 * 4


def test_cpio_reads_every_kind_of_entry(tmp_path: Path) -> None:
    entries: dict[str, Entry] = {
        "/init": File(b"#!/bin/sh\n", 0o755),
        "/proc": Directory(),
        "/bin/sh": Symlink("/bin/busybox"),
        "/dev/console": Device(5, 1),
        "/dev/vda": Device(254, 0, block=True),
    }
    seen = listed(archive(entries), tmp_path)
    assert seen["init"][0] == "-rwxr-xr-x"
    assert seen["init"][2:5] == ["0", "0", "10"]
    assert seen["proc"][0] == "drwxr-xr-x"
    assert seen["bin"][0] == seen["dev"][0] == "drwxr-xr-x"
    assert seen["bin/sh -> /bin/busybox"][0].startswith("l")
    assert seen["dev/console"][0] == "crw-------"
    assert seen["dev/console"][4:6] == ["5,", "1"]
    assert seen["dev/vda"][0] == "brw-------"


@given(FILES)
def test_what_goes_in_comes_out(files: dict[str, File]) -> None:
    try:
        out = unpacked(archive(files))
    except ValueError:
        # A file in the way of another's folder, the one thing these names can get wrong.
        assert any(path.startswith(other + "/") for path in files for other in files)
        return
    for path, file in files.items():
        assert out[path[1:]] == (0o100000 | file.mode, file.data)


def test_the_same_entries_give_the_same_bytes() -> None:
    one: dict[str, Entry] = {"/a/b": File(b"1"), "/c": Directory()}
    other = dict(reversed(one.items()))
    assert archive(one) == archive(other)


def test_a_folder_comes_before_what_is_in_it() -> None:
    names = list(unpacked(archive({"/z/y/x": File(b""), "/a": File(b"")})))
    assert names == ["a", "z", "z/y", "z/y/x"]


@pytest.mark.parametrize("path", ["init", "/", "/a/", "//a", "/a/../b", "/a//b", "/a\0b", ""])
def test_a_path_that_is_no_plain_absolute_one_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="not an absolute path"):
        archive({path: File(b"")})


def test_an_entry_below_a_file_is_refused() -> None:
    with pytest.raises(ValueError, match="is no folder"):
        archive({"/a": File(b""), "/a/b": File(b"")})
