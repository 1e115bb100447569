# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsdeploy.errors import FsdeployError
from fsdeploy.kernel import config
from fsdeploy.kernel import source as sources
from fsdeploy.kernel import target as targets
from fsdeploy.kernel.target import Fragment

from .conftest import DISTRIBUTION

names = st.from_regex(r"CONFIG_[A-Z0-9_]{1,8}", fullmatch=True)
values = st.sampled_from(["y", "m", "n", "17", "0x1000", '"text with = and #"', '""'])
configurations = st.dictionaries(names, values, max_size=12)


def fragment(folder: Path, text: str, name: str = "small", base: str = "allnoconfig") -> Fragment:
    path = folder / f"{name}.config"
    path.write_text(text)
    return Fragment(name, path, base)


@given(configurations)
def test_what_is_rendered_is_parsed_back(options: dict[str, str]) -> None:
    assert config.parse(config.render(options)) == options


@given(configurations, configurations)
def test_a_merge_has_the_values_of_the_override(over: dict[str, str], base: dict[str, str]) -> None:
    merged = config.merge(config.render(over), config.render(base))
    assert config.parse(merged) == {**base, **over}
    assert config.merge("", merged) == merged


@given(configurations, configurations)
def test_what_was_taken_out_is_gone(base: dict[str, str], options: dict[str, str]) -> None:
    left = config.parse(config.without(config.render(base), options))
    assert left == {name: value for name, value in base.items() if name not in options}


def test_a_merge_keeps_places_comments_and_first_lines() -> None:
    over = "CONFIG_NEW=y\nCONFIG_B=m\nCONFIG_B=y\n# a remark\n"
    base = "# top\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=1\nCONFIG_B=y\n"
    assert config.merge(over, base, "x86_64") == (
        "# x86_64\n# top\nCONFIG_A=y\nCONFIG_B=m\nCONFIG_C=1\nCONFIG_B=y\nCONFIG_NEW=y\n"
    )


def test_the_distribution_is_merged_layer_by_layer(tmp_path: Path) -> None:
    for name, text in DISTRIBUTION.items():
        (tmp_path / name).write_text(text)
    assert config.distribution_config(tmp_path) == (
        "# x86_64\nCONFIG_MODULES=y\nCONFIG_A=y\nCONFIG_B=y\nCONFIG_C=y\nCONFIG_RHEL=y\n"
        "# CONFIG_DEBUG is not set\nCONFIG_X86_64=y\nCONFIG_X86_64_RHEL=y\n"
    )


def test_a_layer_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FsdeployError, match="has no config-nodebug"):
        config.distribution_config(tmp_path)


def test_later_fragments_win(tmp_path: Path) -> None:
    first = fragment(tmp_path, "CONFIG_A=y\nCONFIG_B=y\n")
    second = fragment(tmp_path, "# CONFIG_B is not set\n", "overlay", "")
    assert config.requested((first, second)) == {
        "CONFIG_A": ("y", "small"),
        "CONFIG_B": ("n", "overlay"),
    }


@pytest.mark.parametrize(
    "line", ["CONFIG_A", "A=y", "# CONFIG_A is unset", "#CONFIG_A is not set x", "CONFIG_A = y"]
)
def test_a_line_that_means_nothing_is_an_error(tmp_path: Path, line: str) -> None:
    text = f"# why\nCONFIG_B=y\n{line}\n"
    if line.startswith("#CONFIG"):
        # A comment like any other.
        assert config.read_fragment(fragment(tmp_path, text)) == {"CONFIG_B": "y"}
        return
    with pytest.raises(FsdeployError, match=r"small.config:3: "):
        config.read_fragment(fragment(tmp_path, text))


def test_what_did_not_come_true_is_told() -> None:
    wanted = {
        "CONFIG_A": ("y", "small"),
        "CONFIG_B": ("y", "small"),
        "CONFIG_C": ("n", "overlay"),
        "CONFIG_D": ("n", "small"),
        "CONFIG_E": ("y", "small"),
        "CONFIG_HEX": ("0x1000", "small"),
        "CONFIG_TEXT": ('"a"', "small"),
    }
    result = config.parse('CONFIG_A=y\nCONFIG_B=m\nCONFIG_C=y\nCONFIG_HEX=4096\nCONFIG_TEXT="b"\n')
    assert [str(one) for one in config.mismatches(wanted, result)] == [
        "CONFIG_B=y (small) is m",
        "CONFIG_C=n (overlay) is y",
        "CONFIG_E=y (small) is not there",
        'CONFIG_TEXT="a" (small) is "b"',
    ]


@pytest.mark.parametrize("name", targets.names())
def test_the_shipped_fragments_are_configurations(name: str) -> None:
    for one in targets.load(name).fragments.values():
        config.read_fragment(one)


@pytest.mark.el6
def test_the_merge_of_the_real_files_is_what_merge_pl_makes(
    el6_source: sources.Source, tmp_path: Path
) -> None:
    folder = el6_source.distribution
    assert folder is not None
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    subprocess.run(
        ["make", "-s", "-f", "Makefile.config", "VERSION=2.6.32",
         "kernel-2.6.32-x86_64.config", "Makefile=Makefile.config"],
        cwd=_with_makefile(tmp_path), check=True, capture_output=True,
    )  # fmt: skip
    expected = (tmp_path / "kernel-2.6.32-x86_64.config").read_text()
    assert config.distribution_config(folder) == expected


def _with_makefile(folder: Path) -> Path:
    # Makefile.config has the kernel's Makefile among the sources of each file.
    (folder / "Makefile").touch()
    return folder
