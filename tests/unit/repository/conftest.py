"""A key of RSA, and small packages, made once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.keys import Keyring, keyring, small_package


@dataclass(frozen=True)
class Made:
    """Keys by their names, and packages that nobody signed."""

    keys: Keyring
    fleet: str
    other: str
    small: Path
    newer: Path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder = tmp_path_factory.mktemp("packages")
    with keyring() as keys:
        yield Made(
            keys,
            keys.make("fleet"),
            keys.make("other"),
            small_package(folder),
            small_package(folder, version="2"),
        )
