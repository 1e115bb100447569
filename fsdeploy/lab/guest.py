# SPDX-License-Identifier: GPL-2.0-only
"""A quick guest: a kernel and an initramfs of static test programs, seconds.

The first program (guestfiles/init.c) runs the others and reports in KTAP on the console, which is
the log. A guest that does not end with the agreed line failed, and so did every program it did not
come to.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fsdeploy import run
from fsdeploy.errors import FsdeployError
from fsdeploy.lab import initramfs, ktap, qemu

COMPILER = "musl-gcc"

# musl, because Debian's glibc refuses to run on 2.6.32. The headers of the kernel's interface are
# the system's, looked at last.
_COMPILER_OPTIONS = (
    "-static",
    "-std=gnu11",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-pthread",
    *("-idirafter", "/usr/include"),
    *("-idirafter", "/usr/include/x86_64-linux-gnu"),
)

_INIT = Path(__file__).parent / "guestfiles" / "init.c"
_MARKER = "ktap: "
_LAST_LINE = "# end of guest"

# An oops ends the guest: what runs after it proves nothing. The limits of the kernel's own
# watchdogs are far above what a busy machine needs and far below that of a program. The check of
# the timer counts interrupts in a given time: it panics on a machine too busy to deliver them. The
# TSC cannot be measured well on such a machine, so time is the HPET's.
#
# One CPU boots and init starts the others. While the kernel lays out the PCI devices, QEMU before
# 8.1 changes its map of the machine under the CPUs that run: one that is just about to speak to its
# interrupt controller or to the HPET may reach another device, and the boot hangs. Nor is code
# patched for the one CPU and back.
_ARGUMENTS = (
    "console=ttyS0",
    "ignore_loglevel",
    "printk.devkmsg=on",
    "log_buf_len=4M",
    "panic=1",
    "oops=panic",
    "watchdog_thresh=60",
    "no_timer_check",
    "clocksource=hpet",
    # The time stamp counter of a guest on a busy machine looks bad, and Linux 6.1 may warn of that.
    "tsc=nowatchdog",
    "rcupdate.rcu_cpu_stall_timeout=60",
    "maxcpus=1",
    "noreplace-smp",
)

# A machine that counts instructions has only its processor's random numbers.
_COUNTED_ARGUMENTS = ("random.trust_cpu=on",)

_CABLE = qemu.Cable(("52:54:00:00:00:01", "52:54:00:00:00:02"))

_BOOT_LIMIT = 90.0  # seconds to the first program, and for the way out
_PROGRAM_MARGIN = 30.0  # seconds to end what a program left behind

# What a kernel says when something is wrong with it.
_PROBLEM = re.compile(
    r"""
      \bBUG\b[: ] | ^kernel\ BUG | \bBUG:
    | ^WARNING: | ^-+\[\ cut\ here
    | \bOops: | general\ protection\ fault | double\ fault: | divide\ error: | stack\ segment:
    | [Uu]nable\ to\ handle\ kernel | Kernel\ panic
    | ^\[?\ ?INFO:\ (?:possible|inconsistent|suspicious|trying|lockdep|rcu|task|NMI|HARDIRQ|SOFTIRQ)
    | \[\ INFO: | suspicious\ rcu | possible\ recursive\ locking
    | KASAN: | UBSAN: | KCSAN: | kmemleak: | ODEBUG:\ (?!\d+\ of|selftest)
    | [Ss]lab\ (?:corruption|error) | ^slab\ error | Object\ (?:padding|already)
    | list_(?:add|del)\ corruption | refcount_t:\ | [Bb]ad\ page\ (?:state|map)
    | scheduling\ while\ atomic | sleeping\ function\ called | held\ lock\ freed
    | Busy\ inodes\ after | [Aa]ttempt\ to\ release | soft\ lockup | hard\ LOCKUP
    | rcu.*(?:detected\ stall|self-detected|stalls\ on)
    | page\ allocation\ failure | Out\ of\ memory | blocked\ for\ more\ than
    | still\ has\ locks\ held | idr_remove\ called | neighbour\ leakage
    | unregister_netdevice:\ waiting
    """,
    re.VERBOSE,
)
_AFTER_PROBLEM = 30  # lines of the log kept with a problem: registers and the way there

_STAMP = re.compile(r"^(?:<\d+>)?(?:\[\s*\d+\.\d+\](?:\[\s*[TC]\d+\])? )?")


@dataclass(frozen=True)
class Program:
    """A static program for a guest. `seconds` is its time limit, before scaling."""

    name: str
    binary: Path
    seconds: float = 60


@dataclass(frozen=True)
class Guest:
    """What to boot and what to run in it.

    `modules` are kernel modules, loaded in this order before the first program. `environment` is
    given to every program, `files` are put into the root file system by absolute path, `append`
    goes to the kernel's command line after our own arguments. `cable`: it has eth0 and eth1,
    connected to each other. `disks` are raw images, vda, vdb… in the guest: what it writes to them
    is not kept. `cpu`, `counted` and `seed` are the machine's.
    """

    kernel: Path
    programs: tuple[Program, ...]
    cpus: int = 2
    memory_mib: int = 512
    append: str = ""
    modules: tuple[Path, ...] = ()
    cable: bool = False
    disks: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, initramfs.Entry] = field(default_factory=dict)
    cpu: str = qemu.DEFAULT_CPU
    counted: bool = False
    seed: int = 1


@dataclass(frozen=True)
class Problem:
    """Something the kernel complained about, with the lines that follow it."""

    line: str
    context: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join((self.line, *(f"    {line}" for line in self.context)))


@dataclass(frozen=True)
class ProgramResult:
    """How a program did. `test` is None when the guest did not come to its result."""

    name: str
    test: ktap.Test | None = None
    problems: tuple[Problem, ...] = ()

    @property
    def skipped(self) -> bool:
        """Every test of the program had nothing to test here."""
        return self.test is not None and self.test.skipped and not self.problems

    def failures(self) -> tuple[str, ...]:
        """One line for each thing that is wrong."""
        problems = tuple(f"{self.name}: kernel: {problem.line}" for problem in self.problems)
        if self.test is None:
            return (*problems, f"{self.name}: the guest ended before its result")
        if not self.test.skipped and (self.test.subtests is None or not self.test.subtests.tests):
            return (*problems, *self.test.failures(), f"{self.name}: reported no test")
        return (*problems, *self.test.failures())


@dataclass(frozen=True)
class GuestResult:
    """A guest's end. `problems` are those outside of any program's time, and the guest's own."""

    release: str
    programs: tuple[ProgramResult, ...]
    problems: tuple[Problem, ...]
    log: Path
    seconds: float

    def program(self, name: str) -> ProgramResult:
        """The result of a program; one that was not in the guest is a KeyError."""
        for result in self.programs:
            if result.name == name:
                return result
        raise KeyError(name)

    def failures(self) -> tuple[str, ...]:
        """One line for each thing that is wrong, whosever it is."""
        lines = [problem.line for problem in self.problems]
        for result in self.programs:
            lines += result.failures()
        return tuple(lines)


def compile_program(source: Path, binary: Path, *, include: Sequence[Path] = ()) -> None:
    """Compile one C file to a static program that runs on every kernel we know.

    Raises CommandFailed with the compiler's words.
    """
    folders = [word for folder in include for word in ("-I", str(folder))]
    binary.parent.mkdir(parents=True, exist_ok=True)
    run.run([COMPILER, *_COMPILER_OPTIONS, *folders, "-o", binary, source])


def run_guest(guest: Guest, folder: Path) -> GuestResult:
    """Boot the guest, run its programs, and read what they said.

    Everything it needs and leaves is in `folder`: console.log, qemu.log, initramfs. What goes wrong
    in the guest is in the result; FsdeployError is for what keeps it from starting.
    """
    run.require(COMPILER, qemu.TOOL)
    if not guest.kernel.is_file():
        raise FsdeployError(f"no kernel image at {guest.kernel}")
    folder.mkdir(parents=True, exist_ok=True)
    compile_program(_INIT, folder / "init")
    (folder / "initramfs").write_bytes(initramfs.archive(contents(guest, folder / "init")))
    machine = _machine(guest, folder)
    for disk, drive in zip(guest.disks, machine.drives, strict=True):
        qemu.make_overlay(disk, drive.path)
    machine.serial.unlink(missing_ok=True)
    machine.log.unlink(missing_ok=True)
    limit = 2 * _BOOT_LIMIT + sum(one.seconds + _PROGRAM_MARGIN for one in guest.programs)
    began = time.monotonic()
    with qemu.running(machine) as process:
        code = qemu.wait_end(process, limit)
    seconds = time.monotonic() - began
    console = machine.serial.read_bytes() if machine.serial.exists() else b""
    release, programs, problems = read_console(
        console.decode("utf-8", "replace"), [program.name for program in guest.programs]
    )
    if code is None:
        problems += (Problem(f"the guest did not end within {qemu.scaled(limit):g} s"),)
    elif code:
        said = qemu.last_lines(machine.log)
        problems += (Problem(f"QEMU ended with code {code}", tuple(said.splitlines())),)
    return GuestResult(release, programs, problems, machine.serial, seconds)


def contents(guest: Guest, init: Path) -> dict[str, initramfs.Entry]:
    """The root file system of a guest, by path."""
    programs = "".join(
        f"{max(1, round(qemu.scaled(program.seconds)))} {program.name}\n"
        for program in guest.programs
    )
    environment = {
        "PATH": "/programs",
        "HOME": "/tmp",
        qemu.TIME_FACTOR: f"{qemu.time_factor():g}",
        **guest.environment,
    }
    entries: dict[str, initramfs.Entry] = {
        "/init": initramfs.File(init.read_bytes(), 0o755),
        # The kernel opens the console for the first program before that can mount anything.
        "/dev/console": initramfs.Device(5, 1),
        "/dev/kmsg": initramfs.Device(1, 11),
        "/dev/null": initramfs.Device(1, 3, 0o666),
        "/etc/programs": initramfs.File(programs.encode()),
        "/etc/environment": initramfs.File(
            "".join(f"{name}={value}\n" for name, value in environment.items()).encode()
        ),
        "/tmp": initramfs.Directory(0o1777),
    }
    if guest.modules:
        names = "".join(f"{path.name}\n" for path in guest.modules)
        entries["/etc/modules"] = initramfs.File(names.encode())
    for path in guest.modules:
        entries[f"/modules/{path.name}"] = initramfs.File(path.read_bytes())
    for program in guest.programs:
        entries[f"/programs/{program.name}"] = initramfs.File(program.binary.read_bytes(), 0o755)
    return {**entries, **guest.files}


def _machine(guest: Guest, folder: Path) -> qemu.Machine:
    return qemu.Machine(
        name=f"guest {guest.kernel.name}",
        serial=folder / "console.log",
        log=folder / "qemu.log",
        memory_mib=guest.memory_mib,
        cpus=guest.cpus,
        cpu=guest.cpu,
        counted=guest.counted,
        seed=guest.seed,
        kernel=guest.kernel,
        initrd=folder / "initramfs",
        append=" ".join(
            (*_ARGUMENTS, *(_COUNTED_ARGUMENTS if guest.counted else ()), guest.append)
        ).strip(),
        drives=tuple(
            qemu.Drive(folder / f"disk{number}.qcow2") for number in range(len(guest.disks))
        ),
        networks=(_CABLE,) if guest.cable else (),
        ends_on_reset=True,
        pit=False,
    )


def read_console(
    text: str, names: Sequence[str]
) -> tuple[str, tuple[ProgramResult, ...], tuple[Problem, ...]]:
    """Release, results and the guest's own problems from what its console said. Pure."""
    reported: list[str] = []
    release = ""
    current = ""  # the program that is running
    problems: dict[str, list[Problem]] = {}
    messages = [_STAMP.sub("", line.rstrip("\r")) for line in text.split("\n")]
    skip_to = 0
    for number, message in enumerate(messages):
        if message.startswith(_MARKER):
            line = message.removeprefix(_MARKER)
            reported.append(line)
            if line.startswith("# program "):
                current = line.removeprefix("# program ")
            elif line.startswith("# kernel "):
                release = line.removeprefix("# kernel ")
            elif line == _LAST_LINE:
                current = ""
        elif number >= skip_to and _PROBLEM.search(message):
            context = _context(messages[number + 1 : number + 1 + _AFTER_PROBLEM])
            skip_to = number + 1 + len(context)
            problems.setdefault(current, []).append(Problem(message, context))
    report = ktap.parse(reported)
    tests = {test.name: test for test in report.tests}
    results = tuple(
        ProgramResult(name, tests.get(name), tuple(problems.pop(name, ()))) for name in names
    )
    own = [problem for found in problems.values() for problem in found]
    own += [Problem(f"the report: {problem}") for problem in report.problems]
    if not reported or reported[-1] != _LAST_LINE:
        last = [message for message in messages if message][-5:]
        own.append(Problem("the guest did not write its last line; the log ends:", tuple(last)))
    if report.problems or not reported or reported[-1] != _LAST_LINE:
        # A program whose report was cut off has its tests in an orphan of the report.
        own += [
            Problem(line)
            for test in report.tests
            if test.name not in names
            for line in test.failures()
        ]
    return release, results, tuple(own)


def _context(messages: Sequence[str]) -> tuple[str, ...]:
    """What belongs to a problem: up to the next line that is the guest's own."""
    kept: list[str] = []
    for message in messages:
        if message.startswith(_MARKER):
            break
        kept.append(message)
    return tuple(kept)
