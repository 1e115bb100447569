# SPDX-License-Identifier: GPL-2.0-only
"""The harness notices what it must: programs that are broken on purpose, on both targets."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsdeploy import run
from fsdeploy.lab import guest, initramfs, qemu
from tests.kernel.conftest import Kernels
from tests.kernel.programs import HERE, options

# In the order they run: the one that ends the guest stands before one that is not reached.
PROGRAMS = (
    "crashes",
    "fails",
    "hangs",
    "leaves",
    "lonely",
    "silent",
    "skips",
    "panics",
    "unreached",
)

pytestmark = [pytest.mark.guest, pytest.mark.build]


@pytest.fixture(
    scope="module",
    params=[pytest.param("el6", marks=pytest.mark.el6), "lts61"],
)
def kernel(request: pytest.FixtureRequest, kernels: Kernels) -> Path:
    target: str = request.param
    return kernels.image(target, "stock")


@pytest.fixture(scope="module")
def result(kernel: Path, tmp_path_factory: pytest.TempPathFactory) -> guest.GuestResult:
    folder = tmp_path_factory.mktemp("harness")
    programs = []
    for name in PROGRAMS:
        source = HERE / "harness" / f"{name}.c"
        guest.compile_program(source, folder / "programs" / name, include=[HERE])
        seconds = options(source).seconds
        programs.append(guest.Program(name, folder / "programs" / name, seconds))
    return guest.run_guest(guest.Guest(kernel, tuple(programs)), folder / "run")


def test_every_program_of_the_folder_is_run() -> None:
    assert sorted(PROGRAMS) == sorted(path.stem for path in (HERE / "harness").glob("*.c"))


def test_each_way_to_fail_is_noticed(result: guest.GuestResult) -> None:
    program = result.program("fails")
    assert program.test is not None
    assert program.test.subtests is not None
    failed = {test.name for test in program.test.subtests.tests if not test.ok}
    assert failed == {
        "a_check_fails",
        "a_child_fails_a_check",
        "checks_nothing",
        "dies",
        "ends_early",
        "hangs",
    }
    by_name = {test.name: test for test in program.test.subtests.tests}
    assert by_name["passes"].passed
    assert by_name["skips"].skipped
    assert by_name["skips"].reason == "nothing to do"
    assert any("1 + 1 is 2, 3 is 3" in line for line in by_name["a_check_fails"].diagnostics)
    assert any("checked nothing" in line for line in by_name["checks_nothing"].diagnostics)
    assert any("took too long" in line for line in by_name["hangs"].diagnostics)
    assert any(": state S in " in line for line in by_name["hangs"].diagnostics)


@pytest.mark.parametrize(
    ("name", "failure"),
    [
        ("crashes", "crashes: error signal 11"),
        ("crashes", "crashes: 2 tests were planned, 1 reported"),
        ("hangs", "hangs: timeout"),
        ("silent", "silent: reported no test"),
        ("panics", "panics: the guest ended before its result"),
        ("unreached", "unreached: the guest ended before its result"),
    ],
)
def test_a_program_that_breaks_fails_by_name(
    name: str, failure: str, result: guest.GuestResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(qemu.TIME_FACTOR, raising=False)
    assert any(
        line.startswith(failure.split(" 3 s")[0]) for line in result.program(name).failures()
    )


@pytest.mark.parametrize("name", ["leaves", "lonely"])
def test_what_a_program_leaves_is_ended(name: str, result: guest.GuestResult) -> None:
    assert result.program(name).failures() == ()


def test_a_program_that_only_skips_is_skipped(result: guest.GuestResult) -> None:
    assert result.program("skips").skipped


def test_a_panic_is_the_problem_of_who_ran(result: guest.GuestResult) -> None:
    assert result.program("panics").problems
    assert all(not one.problems for one in result.programs if one.name != "panics")
    assert any("did not write its last line" in problem.line for problem in result.problems)


def test_a_hung_guest_is_ended_in_time(
    kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(qemu.TIME_FACTOR, "0.05")
    (tmp_path / "sleeps.c").write_text(
        "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n"
    )
    guest.compile_program(tmp_path / "sleeps.c", tmp_path / "sleeps")
    sleeps = initramfs.File((tmp_path / "sleeps").read_bytes(), 0o755)
    hung = guest.Guest(kernel, (), files={"/init": sleeps})
    result = guest.run_guest(hung, tmp_path / "run")
    assert any("did not end within 9 s" in line for line in result.failures())
    assert result.log == tmp_path / "run" / "console.log"


def test_an_interrupted_run_leaves_no_machine(
    kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(BaseException):
        pass

    processes: list[run.Process] = []
    original = qemu.start

    def start(machine: qemu.Machine) -> run.Process:
        process = original(machine)
        processes.append(process)
        return process

    def interrupt(*_: object) -> None:
        raise Interrupted

    monkeypatch.setattr(qemu, "start", start)
    monkeypatch.setattr(qemu, "wait_end", interrupt)
    with pytest.raises(Interrupted):
        guest.run_guest(guest.Guest(kernel, ()), tmp_path / "run")
    (process,) = processes
    assert process.returncode is not None
