"""What an installed wheel carries."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import pytest

from fsdeploy import run

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    folder = tmp_path_factory.mktemp("wheel")
    run.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--no-deps",
            "--no-build-isolation",
            "--wheel-dir",
            folder,
            ROOT,
        ]
    )
    (wheel,) = folder.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def tracked(folder: str) -> set[str]:
    listed = run.run(["git", "ls-files", "--", folder], cwd=ROOT).output.splitlines()
    return {name for name in listed if (ROOT / name).is_file()}


@pytest.mark.parametrize(
    "folder", ["patches", "kernel-config", "playbooks", "modules", "libfsocket"]
)
def test_the_wheel_carries_what_a_checkout_has_beside_the_package(
    carried: set[str], folder: str
) -> None:
    files = tracked(folder)
    assert files
    assert {f"fsdeploy/data/{name}" for name in files} <= carried


def test_the_wheel_carries_the_whole_package(carried: set[str]) -> None:
    files = tracked("fsdeploy")
    assert {name for name in files if name.endswith((".c", ".in", ".spec"))}
    assert files <= carried


def test_the_wheel_names_its_licence(carried: set[str]) -> None:
    assert any(name.endswith("/licenses/LICENSE") for name in carried)
