# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest

from fsdeploy.errors import FsdeployError
from fsdeploy.kernel import manifest as manifests
from fsdeploy.kernel.identify import file_digest
from fsdeploy.kernel.manifest import Manifest, copy_out, recorded_sha256, require_as_built
from tests.keys import manifest_of

EXAMPLE = Manifest(
    build_id="0123",
    release="6.1.100-fs1.0123.x86_64",
    target="fake",
    stock=False,
    source={"name": "6.1.100"},
    patches=({"name": "0001-a.patch", "sha256": "ab"},),
    configuration={"base": "allnoconfig"},
    tools={"gcc": "gcc 12"},
    kabi={"state": "not applicable"},
    durations={"compile": 3.0},
    outputs={"vmlinux": {"sha256": "cd", "bytes": 3}},
)


def test_a_manifest_is_read_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    manifests.save(EXAMPLE, path)
    assert manifests.load(path) == EXAMPLE


def test_the_copy_in_the_package_has_no_durations() -> None:
    assert EXAMPLE.packaged().durations == {}


@pytest.mark.parametrize("keep", [0, 1, 100, -3])
def test_a_half_written_one_is_none(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(EXAMPLE.dump()[:keep])
    with pytest.raises(manifests.BadManifest):
        manifests.load(path)


@pytest.mark.parametrize(
    "change",
    [{"format": 2}, {"build_id": 7}, {"patches": {}}, {"extra": 1}, {"outputs": None}],
)
def test_one_of_another_form_is_none(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**json.loads(EXAMPLE.dump()), **change}))
    with pytest.raises(manifests.BadManifest):
        manifests.load(path)


def test_none_is_none(tmp_path: Path) -> None:
    with pytest.raises(manifests.BadManifest):
        manifests.load(tmp_path / "manifest.json")


def build(folder: Path, *names: str) -> list[Path]:
    """A build's packages, as far as a manifest goes."""
    folder.mkdir(parents=True)
    packages = [folder / name for name in names]
    for package in packages:
        package.write_text(f"{folder}{package}")
    manifest_of(*packages)
    return packages


def test_builds_that_share_a_folder_keep_their_manifests(tmp_path: Path) -> None:
    shared = tmp_path / "rpms"
    copies = []
    for names in (["kernel-1.rpm", "kernel-devel-1.rpm"], ["kernel-2.rpm"], ["library-1.rpm"]):
        packages = build(tmp_path / names[0], *names)
        *copied, beside = copy_out(packages, packages[0].parent / "manifest.json", shared)
        assert [path.name for path in copied] == names
        assert beside.name == names[0].replace(".rpm", ".manifest.json")
        copies += copied
    assert len(list(shared.iterdir())) == 7
    for path in copies:
        assert recorded_sha256(path) == {require_as_built(path)} == {file_digest(path)}
        path.write_text("cut")
        with pytest.raises(FsdeployError, match=f"{path} is not what was built: its sha256 is"):
            require_as_built(path)


def test_a_copy_that_was_cut_off_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (package,) = build(tmp_path / "build", "kernel-1.rpm")
    whole = shutil.copy2

    def cut(source: Path, folder: Path) -> Path:
        if source != package:
            return Path(whole(source, folder))
        (folder / source.name).write_bytes(source.read_bytes()[:-1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copy2", cut)
    with pytest.raises(OSError, match="No space left"):
        copy_out([package], package.parent / "manifest.json", tmp_path / "rpms")
    with pytest.raises(FsdeployError, match="is not what was built"):
        require_as_built(tmp_path / "rpms" / package.name)


def test_a_copy_of_a_build_s_folder_has_its_manifest(tmp_path: Path) -> None:
    (package,) = build(tmp_path / "build", "kernel-1.rpm")
    package.write_text("changed")
    with pytest.raises(FsdeployError, match="is not what was built"):
        require_as_built(package)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"outputs": []}', '{"outputs": {"o.rpm": 1}}'])
def test_a_manifest_that_says_nothing_about_a_package(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kernel.rpm"
    path.write_text("anything")
    (tmp_path / "manifest.json").write_text(text)
    assert recorded_sha256(path) == set()
    assert require_as_built(path) == file_digest(path)
