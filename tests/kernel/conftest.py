# SPDX-License-Identifier: GPL-2.0-only
"""Kernels and guests for the tests in here: each built and booted once a session."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    parser.addoption(
        "--module",
        action="append",
        default=[],
        metavar="TARGET-VARIANT=FILE.ko",
        help="with --kernel: a module of ours for that kernel",
    )

    parser.addoption(
        "--connections",
        default=1000,
        type=int,
        metavar="N",
        help="of each load on the servers of test_servers.py (%(default)s)",
    )

    parser.addoption(
        "--fuzz-seconds",
        type=float,
        default=0.0,
        help="let the programs that make random calls go on for so long",
    )

    parser.addoption(
        "--fuzz-seed",
        type=int,
        default=0,
        help="the seed of their random numbers; 0: one of the guest's choice",
    )


def _given(config: pytest.Config, option: str) -> list[tuple[str, Path]]:
    """Files named on the command line. The option is unknown when pytest starts elsewhere."""
    given: list[tuple[str, Path]] = []
    for word in config.getoption(option, default=[]) or []:
        name, _, path = word.partition("=")
        known = [f"{target}-{one}" for target, many in VARIANTS.items() for one in many]
        if name not in known or not path:
            raise pytest.UsageError(f"{option} {word}: give one of {', '.join(known)} and a path")
        given.append((name, Path(path)))
    return given


class Kernels:
    """Kernel images, and modules of ours for them, by target and variant."""

    def __init__(self, given: dict[str, Path], modules: Sequence[tuple[str, Path]]) -> None:
        self._given = given
        self._modules = {(name, path.stem): path for name, path in modules}
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

    def module(self, target: str, variant: str, name: str) -> Path:
        """A module of ours for an image; skips the test where an image was given without."""
        if self._given:
            if (f"{target}-{variant}", name) not in self._modules:
                pytest.skip(f"not given: --module {target}-{variant}=…/{name}.ko")
            return self._modules[f"{target}-{variant}", name]
        return _build(target, variant).module(name)

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

    def __init__(
        self,
        kernels: Kernels,
        folder: Callable[[str], Path],
        fuzz_seconds: float = 0.0,
        fuzz_seed: int = 0,
    ) -> None:
        self._kernels = kernels
        self._folder = folder
        self._fuzz_seconds = fuzz_seconds
        self._fuzz_seed = fuzz_seed
        self._results: dict[Boot, guest.GuestResult] = {}
        self._programs: dict[Path, Path] = {}

    def result(self, boot: Boot) -> guest.GuestResult:
        """How the guest ended."""
        if boot not in self._results:
            kernel = self._kernels.image(boot.target, boot.variant)
            mine = [case for case in cases() if case.boot == boot]
            modules = [
                self._kernels.module(boot.target, boot.variant, name) for name in boot.modules
            ]
            self._results[boot] = guest.run_guest(
                guest.Guest(
                    kernel=kernel,
                    modules=tuple(modules),
                    programs=tuple(self.program(case) for case in mine),
                    cpus=boot.cpus,
                    memory_mib=boot.memory * (2 if boot.debug else 1),
                    append=boot.append,
                    cable=boot.cable,
                    environment={
                        "GUEST_TARGET": boot.target,
                        "GUEST_PATCHED": str(int(boot.patched)),
                        "GUEST_DEBUG": str(int(boot.debug)),
                        "GUEST_FUZZ_SECONDS": f"{self._fuzz_seconds:g}",
                        "GUEST_FUZZ_SEED": str(self._fuzz_seed),
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
        return guest.Program(
            case.name, self._programs[case.source], case.seconds + self._fuzz_seconds
        )


@pytest.fixture(scope="session")
def kernels(pytestconfig: pytest.Config) -> Kernels:
    return Kernels(dict(_given(pytestconfig, "--kernel")), _given(pytestconfig, "--module"))


@pytest.fixture(scope="session")
def guests(
    kernels: Kernels, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Guests:
    root = tmp_path_factory.mktemp("guests")
    return Guests(
        kernels,
        lambda name: root / name,
        pytestconfig.getoption("--fuzz-seconds", default=0.0),
        pytestconfig.getoption("--fuzz-seed", default=0),
    )
