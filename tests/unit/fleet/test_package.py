"""What is read from a kernel package on the control machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fsdeploy.errors import FsdeployError
from fsdeploy.fleet.package import is_patched, read_package, recorded_sha256, sha256_of


@pytest.mark.parametrize(
    ("release", "patched"),
    [
        ("2.6.32-431.el6.fs1.0123abcd.x86_64", True),
        ("6.1.192-fs1.0123abcd.x86_64", True),
        ("6.1.192-fs12.0123abcd.x86_64", True),
        ("6.1.192-stock.0123abcd.x86_64", False),
        ("2.6.32-431.el6.x86_64", False),
    ],
)
def test_our_kernels_are_known_by_their_release(release: str, patched: bool) -> None:
    assert is_patched(release) is patched


def test_a_package_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FsdeployError, match="there is no package"):
        read_package(tmp_path / "no.rpm")


def test_a_file_that_is_no_package(tmp_path: Path) -> None:
    path = tmp_path / "kernel.rpm"
    path.write_bytes(b"x" * 1000)
    with pytest.raises(FsdeployError, match="not a whole RPM"):
        read_package(path)


def test_a_package_that_is_not_what_was_built(tmp_path: Path) -> None:
    path = tmp_path / "kernel.rpm"
    path.write_bytes(b"x" * 1000)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"outputs": {"kernel.rpm": {"sha256": sha256_of(path)}}}))
    assert recorded_sha256(path) == sha256_of(path)
    path.write_bytes(b"x" * 999)
    with pytest.raises(FsdeployError, match="is not what was built"):
        read_package(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"outputs": []}', '{"outputs": {"o.rpm": 1}}'])
def test_a_manifest_that_says_nothing_about_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    assert recorded_sha256(tmp_path / "kernel.rpm") is None
