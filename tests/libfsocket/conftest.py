# SPDX-License-Identifier: GPL-2.0-only
"""The library as it is packaged, a stand-in for its device, and programs to run with both."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from fsdeploy import paths
from fsdeploy.kernel import library
from fsdeploy.kernel.library import Library

HERE = Path(__file__).parent
SECONDS = 120  # after which a program hangs, however busy the machine


@pytest.fixture(scope="session")
def built() -> Library:
    return library.build_library()


def compile_c(source: Path, output: Path, *flags: str) -> Path:
    abi = paths.data_root() / "modules/fastsocket"
    command = ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-fno-builtin", f"-I{abi}"]
    subprocess.run([*command, *flags, "-o", output, source, "-ldl", "-lpthread"], check=True)
    return output


@pytest.fixture(scope="session")
def device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("device")
    return compile_c(HERE / "device.c", folder / "device.so", "-shared", "-fPIC")


@pytest.fixture(scope="session")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_c(HERE / "scenarios.c", tmp_path_factory.mktemp("scenarios") / "scenarios")


Runner = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def preloaded(built: Library, device: Path, tmp_path: Path) -> Runner:
    """Run a program with the library; with `fake` the device is there, as a stand-in."""

    def start(
        *words: str | Path, fake: bool = True, **settings: str
    ) -> subprocess.CompletedProcess[str]:
        libraries = [built.shared_object, *([device] if fake else [])]
        return subprocess.run(
            words,
            env={
                **os.environ,
                "DEVICE_LOG": str(tmp_path / "device.log"),
                "LD_PRELOAD": ":".join(map(str, libraries)),
                **settings,
            },
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    return start


@pytest.fixture
def calls(tmp_path: Path) -> Callable[[str], list[list[str]]]:
    """What reached the stand-in: the words after the thread's number, by pid, of one kind."""

    def read(kind: str) -> list[list[str]]:
        log = tmp_path / "device.log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [line.split() for line in lines if line.split()[2] == kind]

    return read
