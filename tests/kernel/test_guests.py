# SPDX-License-Identifier: GPL-2.0-only
"""Every guest program on every kernel: one test a program and kernel, one boot a kernel."""

from __future__ import annotations

import pytest

from fsdeploy.lab import guest
from tests.kernel.conftest import Guests, Kernels
from tests.kernel.programs import Boot, Case, boots, cases


def marked(boot: Boot) -> list[pytest.MarkDecorator]:
    marks = [pytest.mark.guest, pytest.mark.build]
    return [*marks, pytest.mark.el6] if boot.target == "el6" else marks


def judge(program: guest.ProgramResult, result: guest.GuestResult) -> None:
    """Fail with all that a program found wrong; skip if it had nothing to test."""
    if program.skipped:
        assert program.test is not None
        assert program.test.subtests is not None
        reasons = {test.reason for test in program.test.subtests.tests}
        pytest.skip("; ".join(sorted(reasons)))
    failures = program.failures()
    if failures:
        lines = [*failures, *map(str, program.problems)]
        if program.test is not None and program.test.subtests is not None:
            for path, test in program.test.subtests.walk():
                if test.failures():
                    lines += [f"{'/'.join(path)}:", *test.diagnostics]
        pytest.fail("\n".join([*lines, f"log: {result.log}"]), pytrace=False)


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=str(case), marks=marked(case.boot)) for case in cases()]
)
def test_program(case: Case, guests: Guests) -> None:
    result = guests.result(case.boot)
    judge(result.program(case.name), result)


@pytest.mark.parametrize(
    "boot", [pytest.param(boot, id=str(boot), marks=marked(boot)) for boot in boots()]
)
def test_guest_ends_as_agreed(boot: Boot, guests: Guests, kernels: Kernels) -> None:
    result = guests.result(boot)
    if result.problems:
        lines = [str(problem) for problem in result.problems]
        pytest.fail("\n".join([*lines, f"log: {result.log}"]), pytrace=False)
    assert result.release.startswith("2.6.32" if boot.target == "el6" else "6.1.")
    assert result.release == (kernels.release(boot.target, boot.variant) or result.release)
