# SPDX-License-Identifier: GPL-2.0-only
"""Kernels for lab hosts, and a state folder of the tests' own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fsdeploy.kernel import build, source, target


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--faults",
        action="store_true",
        help="bring faults to lab hosts, too: a quarter of an hour",
    )


@pytest.fixture(scope="module")
def lab_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """XDG_STATE_HOME for the tests of a module: their hosts are not the user's."""
    home = tmp_path_factory.mktemp("lab")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(home))
        yield home


@pytest.fixture(scope="session")
def stock_lts61() -> build.Build:
    """The unpatched lts61 lab kernel, from the cache or built."""
    return build.build_kernel(build.request("lts61", fragments=("lab",), stock=True))


@pytest.fixture(scope="session")
def stock_el6() -> build.Build:
    """The same of CentOS 6.5; skipped where its source is not in the cache."""
    if source.find(target.load("el6")) is None:
        pytest.skip("no el6 source in the cache (fsdeploy source add PATH)")
    return build.build_kernel(build.request("el6", fragments=("lab",), stock=True))


@pytest.fixture(scope="session")
def patched_el6() -> build.Build:
    """The patched one, with the package of its module."""
    if source.find(target.load("el6")) is None:
        pytest.skip("no el6 source in the cache (fsdeploy source add PATH)")
    return build.build_kernel(build.request("el6", fragments=("lab",)))
