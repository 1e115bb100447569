# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import json
from pathlib import Path

import pytest

from fsdeploy.kernel import manifest as manifests
from fsdeploy.kernel.manifest import Manifest

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
