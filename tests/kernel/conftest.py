# SPDX-License-Identifier: GPL-2.0-only
"""Kernels and guests for the tests in here: each built and booted once a session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fsdeploy.kernel import build, source, target
from fsdeploy.kernel.build import Build
from fsdeploy.lab import guest
from tests.kernel.programs import HERE, VARIANTS, Boot, Case, cases


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kernel",
        action="append",
        default=[],
        metavar="TARGET-VARIANT=BZIMAGE",
        help="take this kernel image instead of building one (el6-patched=…/bzImage); others skip",
    )


def _given(config: pytest.Config) -> dict[str, Path]:
    """Kernels named on the command line. The option is unknown when pytest starts elsewhere."""
    given: dict[str, Path] = {}
    for word in config.getoption("--kernel", default=[]) or []:
        name, _, path = word.partition("=")
        known = [f"{target}-{one}" for target, many in VARIANTS.items() for one in many]
        if name not in known or not path:
            raise pytest.UsageError(f"--kernel {word}: give one of {', '.join(known)} and a path")
        given[name] = Path(path)
    return given


class Kernels:
    """Kernel images by target and variant."""

    def __init__(self, given: dict[str, Path]) -> None:
        self._given = given
        self._releases: dict[str, str] = {}

    def image(self, target: str, variant: str) -> Path:
        """The image, built now or reused; skips the test where there is nothing to build from."""
        name = f"{target}-{variant}"
        if name in self._given:
            return self._given[name]
        if self._given:
            pytest.skip(f"not given: --kernel {name}=BZIMAGE")
        built = _build(target, variant)
        self._releases[name] = built.release
        return built.image

    def release(self, target: str, variant: str) -> str:
        """What uname -r must say in a kernel that was built; empty for a given one."""
        return self._releases.get(f"{target}-{variant}", "")


def _build(target_name: str, variant: str) -> Build:
    wanted = target.load(target_name)
    if not wanted.source_package and source.find(wanted) is None:
        pytest.skip(f"no {target_name} source in the cache: fsdeploy source add PATH")
    names = ("lab", "debug") if variant.endswith("-debug") else ("lab",)
    request = build.BuildRequest(
        target=wanted,
        source=source.resolve(wanted),
        stock=variant.startswith("stock"),
        fragments=wanted.choose(names),
    )
    return build.build_kernel(request)


class Guests:
    """Guests by what was booted; all programs of a guest run in one boot, at the first question."""

    def __init__(self, kernels: Kernels, folder: Callable[[str], Path]) -> None:
        self._kernels = kernels
        self._folder = folder
        self._results: dict[Boot, guest.GuestResult] = {}
        self._programs: dict[Path, Path] = {}

    def result(self, boot: Boot) -> guest.GuestResult:
        """How the guest ended."""
        if boot not in self._results:
            kernel = self._kernels.image(boot.target, boot.variant)
            mine = [case for case in cases() if case.boot == boot]
            self._results[boot] = guest.run_guest(
                guest.Guest(
                    kernel=kernel,
                    programs=tuple(self.program(case) for case in mine),
                    cpus=boot.cpus,
                    memory_mib=boot.memory * (2 if boot.debug else 1),
                    append=boot.append,
                    environment={
                        "GUEST_TARGET": boot.target,
                        "GUEST_PATCHED": str(int(boot.patched)),
                        "GUEST_DEBUG": str(int(boot.debug)),
                    },
                ),
                self._folder(str(boot).replace("/", "_")),
            )
        return self._results[boot]

    def program(self, case: Case) -> guest.Program:
        """The compiled program of a case."""
        if case.source not in self._programs:
            folder = self._folder("programs")
            binary = folder / case.source.parent.name / case.name
            guest.compile_program(case.source, binary, include=[HERE])
            self._programs[case.source] = binary
        return guest.Program(case.name, self._programs[case.source], case.seconds)


@pytest.fixture(scope="session")
def kernels(pytestconfig: pytest.Config) -> Kernels:
    return Kernels(_given(pytestconfig))


@pytest.fixture(scope="session")
def guests(kernels: Kernels, tmp_path_factory: pytest.TempPathFactory) -> Guests:
    root = tmp_path_factory.mktemp("guests")
    return Guests(kernels, lambda name: root / name)
