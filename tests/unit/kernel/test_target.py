# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

from pathlib import Path

import pytest

from fsdeploy.errors import FsdeployError
from fsdeploy.kernel import target as targets

from .conftest import TargetMaker


def test_unknown_target_names_the_known_ones() -> None:
    with pytest.raises(FsdeployError) as caught:
        targets.load("el5")
    assert caught.value.message == "there is no target el5"
    assert "el6, lts61" in caught.value.hint


def test_every_shipped_target_loads() -> None:
    assert [target.name for target in targets.load_all()] == list(targets.names())


@pytest.mark.parametrize(
    ("version", "release", "fits"),
    [
        ("2.6.32", "431.el6", True),
        ("2.6.32", "431.29.2.el6", True),
        ("2.6.32", "431.1.2.el6", True),
        ("2.6.32", "504.el6", False),
        ("2.6.32", "4310.el6", False),
        ("2.6.32", "431.el7", False),
        ("2.6.32", "", False),
        ("3.10.0", "431.el6", False),
    ],
)
def test_el6_is_for_the_releases_of_one_kernel(version: str, release: str, fits: bool) -> None:
    assert targets.load("el6").accepts(version, release) is fits


@pytest.mark.parametrize(
    ("version", "fits"),
    [("6.1.100", True), ("6.10.1", False), ("6.2.1", False), ("6.1.0-rc3", False)],
)
def test_lts61_is_for_every_stable_version(version: str, fits: bool) -> None:
    assert targets.load("lts61").accepts(version, "") is fits


def test_the_fragment_with_the_base_comes_first(make_target: TargetMaker) -> None:
    chosen = make_target().choose(["overlay", "small", "overlay"])
    assert [fragment.name for fragment in chosen] == ["small", "overlay"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["large"], "fake has no fragment large"),
        (["overlay"], "nothing for overlay to be laid over"),
    ],
)
def test_fragments_that_make_no_configuration_are_refused(
    make_target: TargetMaker, names: list[str], message: str
) -> None:
    with pytest.raises(FsdeployError, match=message):
        make_target().choose(names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('base = "allnoconfig"', "has base everything"),
        ('title = "A fake"', "lacks title"),
        ("revision = 1", "target.toml: "),
    ],
)
def test_a_target_that_is_written_wrongly_is_named(
    make_target: TargetMaker, tmp_path: Path, change: str, message: str
) -> None:
    make_target()
    path = tmp_path / "kernel-config/fake/target.toml"
    wrong = {'base = "allnoconfig"': 'base = "everything"', "revision = 1": "revision ="}
    path.write_text(path.read_text().replace(change, wrong.get(change, "")))
    with pytest.raises(FsdeployError, match=message):
        targets.read(path.parent, tmp_path)
