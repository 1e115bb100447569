# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from fsdeploy.errors import FsdeployError
from fsdeploy.lab import guest, initramfs, qemu
from fsdeploy.lab.guest import Guest, Problem, Program, read_console

GOOD = """\
Linux version 2.6.32-431.el6.fs1.01234567.x86_64
[    0.000000] Command line: console=ttyS0
[    0.841190] ktap: # kernel 2.6.32-431.el6.fs1.01234567.x86_64
[    0.856016] ktap: KTAP version 1
[    0.856341] ktap: 1..2
[    0.857263] ktap: # program files
[    0.884371] ktap:   KTAP version 1
[    0.884545] ktap:   1..2
[    0.884600] virtio_net: something harmless
[    0.907920] ktap:   ok 1 - opens
[    0.907930] ktap:   ok 2 - closes
[    0.909795] ktap: ok 1 - files
[    0.909800] ktap: # program pipes
[    0.909810] ktap:   KTAP version 1
[    0.909820] ktap:   1..1
[    0.909830] ktap:   ok 1 - empty # SKIP no pipes
[    0.909840] ktap: ok 2 - pipes # SKIP
[    0.909888] ktap: # end of guest
[    0.917136] Restarting system.
"""
NAMES = ("files", "pipes")


def with_line(after: str, line: str) -> str:
    """The good console with a line of the kernel's after another."""
    lines = GOOD.splitlines()
    (at,) = [number for number, text in enumerate(lines) if text.endswith(after)]
    return "\n".join((*lines[: at + 1], f"[    0.9] {line}", *lines[at + 1 :]))


def test_a_good_console_is_a_good_result() -> None:
    release, programs, problems = read_console(GOOD.replace("\n", "\r\n"), NAMES)
    assert release == "2.6.32-431.el6.fs1.01234567.x86_64"
    assert problems == ()
    files, pipes = programs
    assert (files.failures(), files.skipped) == ((), False)
    assert (pipes.failures(), pipes.skipped) == ((), True)
    assert files.test is not None
    assert files.test.subtests is not None
    assert [test.name for test in files.test.subtests.tests] == ["opens", "closes"]


@pytest.mark.parametrize("lines", range(1, GOOD.count("\n") - 1))
def test_a_console_cut_off_anywhere_fails(lines: int) -> None:
    cut = "\n".join(GOOD.splitlines()[:lines])
    _, programs, problems = read_console(cut, NAMES)
    assert any("did not write its last line" in problem.line for problem in problems)
    if "ktap: ok 1 - files" not in cut:
        assert "files: the guest ended before its result" in programs[0].failures()


@pytest.mark.parametrize(
    "line",
    [
        "BUG: unable to handle kernel NULL pointer dereference at 0000000000000010",
        "BUG: spinlock lockup on CPU#1, server/301, ffff880001234567",
        "BUG: soft lockup - CPU#0 stuck for 67s! [server:301]",
        "BUG: sleeping function called from invalid context at mm/slab.c:3069",
        "kernel BUG at fs/inode.c:1328!",
        "Oops: 0000 [#1] SMP",
        "general protection fault: 0000 [#1] SMP",
        "Kernel panic - not syncing: Fatal exception",
        "WARNING: at lib/list_debug.c:26 __list_add+0x6d/0xa0() (Not tainted)",
        "WARNING: CPU: 0 PID: 301 at net/ipv4/af_inet.c:154 inet_sock_destruct",
        "WARNING: possible circular locking dependency detected",
        "[ INFO: possible recursive locking detected ]",
        "[ INFO: inconsistent lock state ]",
        "INFO: possible circular locking dependency detected",
        "INFO: suspicious RCU usage.",
        "INFO: task server:301 blocked for more than 120 seconds.",
        "INFO: rcu_sched_state detected stalls on CPUs/tasks: { 1 }",
        "rcu: INFO: rcu_preempt self-detected stall on CPU",
        "INFO: trying to register non-static key.",
        "BUG: KASAN: use-after-free in sock_poll+0x12/0x40",
        "slab error in verify_redzone_free(): cache `dentry': double free detected",
        "Slab corruption: filp start=ffff88001e5c0680, len=240",
        "list_del corruption. prev->next should be ffff88001e5c0680",
        "refcount_t: underflow; use-after-free.",
        "ODEBUG: free active (active state 0) object type: timer_list",
        "VFS: Busy inodes after unmount of ext4. Self-destruct in 5 seconds.",
        "unregister_netdevice: waiting for lo to become free. Usage count = 1",
        "Attempt to release alive inet socket ffff88001e5c0680",
        "Bad page state in process 'server'  pfn:1e5c0",
    ],
)
def test_what_the_kernel_complains_about_fails_the_program_that_ran(line: str) -> None:
    _, programs, problems = read_console(with_line("ktap:   ok 1 - opens", line), NAMES)
    assert problems == ()
    assert programs[0].failures() == (f"files: kernel: {line}",)
    assert programs[1].failures() == ()


@pytest.mark.parametrize(
    "line",
    [
        "debug: unmapping init memory",
        "Lock dependency validator: Copyright (c) 2006 Red Hat, Inc., Ingo Molnar",
        "... MAX_LOCKDEP_SUBCLASSES:  8",
        "audit: initializing netlink socket (disabled)",
        "DEBUG: a word in capitals",
        "NMI watchdog disabled (cpu0): hardware events not enabled",
        "kmemleak is off",
        "ODEBUG: 8 of 8 active objects replaced",
        "SysRq : Show State",
        "tsc: Marking TSC unstable due to clocksource watchdog",
        "rcu: Hierarchical RCU implementation.",
        "Slab cache merging is off",
        "rcu: RCU lockdep checking is enabled.",
    ],
)
def test_ordinary_messages_are_no_problem(line: str) -> None:
    _, programs, problems = read_console(with_line("ktap:   ok 1 - opens", line), NAMES)
    assert problems == ()
    assert [program.failures() for program in programs] == [(), ()]


def test_a_problem_outside_of_programs_is_the_guests() -> None:
    for after in ("console=ttyS0", "# end of guest"):
        _, programs, problems = read_console(with_line(after, "WARNING: at mm/slab.c:1"), NAMES)
        assert [problem.line for problem in problems] == ["WARNING: at mm/slab.c:1"]
        assert [program.failures() for program in programs] == [(), ()]


def test_a_problem_carries_what_follows_it() -> None:
    text = with_line("ktap:   ok 1 - opens", "BUG: bad\nCall Trace:\n  BUG: the same again")
    _, programs, _ = read_console(text, NAMES)
    assert programs[0].problems == (Problem("BUG: bad", ("Call Trace:", "  BUG: the same again")),)


def test_a_program_cut_off_tells_how_far_it_came() -> None:
    cut = GOOD[: GOOD.index("ktap:   ok 2 - closes")]
    _, programs, problems = read_console(cut.replace("ok 1 - opens", "not ok 1 - opens"), NAMES)
    assert programs[0].test is None
    assert any("opens: not ok" in problem.line for problem in problems)


def test_a_program_that_reports_nothing_failed() -> None:
    silent = dedent(
        """\
        ktap: KTAP version 1
        ktap: 1..1
        ktap: # program files
        ktap: ok 1 - files
        ktap: # end of guest"""
    )
    _, (files,), _ = read_console(silent, ("files",))
    assert files.failures() == ("files: reported no test",)


def test_a_skipped_program_with_a_problem_is_not_skipped() -> None:
    _, programs, _ = read_console(with_line("# program pipes", "Oops: 0000 [#1]"), NAMES)
    assert not programs[1].skipped
    assert programs[1].failures() == ("pipes: kernel: Oops: 0000 [#1]",)


def test_what_is_in_a_guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(qemu.TIME_FACTOR, "2")
    (tmp_path / "program").write_bytes(b"elf")
    (tmp_path / "init").write_bytes(b"init")
    entries = guest.contents(
        Guest(
            kernel=tmp_path / "bzImage",
            programs=(Program("one", tmp_path / "program", 10),),
            environment={"GUEST_TARGET": "el6"},
            files={"/lib/x.ko": initramfs.File(b"ko")},
        ),
        tmp_path / "init",
    )
    assert entries["/init"] == initramfs.File(b"init", 0o755)
    assert entries["/programs/one"] == initramfs.File(b"elf", 0o755)
    assert entries["/lib/x.ko"] == initramfs.File(b"ko")
    assert entries["/etc/programs"] == initramfs.File(b"20 one\n")
    environment = entries["/etc/environment"]
    assert isinstance(environment, initramfs.File)
    assert {"GUEST_TARGET=el6", "FSDEPLOY_TIME_FACTOR=2"} <= set(environment.data.decode().split())


def test_a_guest_writes_to_overlays_of_its_disks(tmp_path: Path) -> None:
    disks = (tmp_path / "one.raw", tmp_path / "two.raw")
    machine = guest._machine(Guest(tmp_path / "bzImage", (), disks=disks), tmp_path)
    assert [drive.path.name for drive in machine.drives] == ["disk0.qcow2", "disk1.qcow2"]
    assert {drive.format for drive in machine.drives} == {"qcow2"}


def test_a_missing_kernel_is_said_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(FsdeployError, match="no kernel image"):
        guest.run_guest(Guest(tmp_path / "none", ()), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.guest
def test_a_kernel_that_is_none_fails_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "bzImage").write_bytes(b"MZ" + b"\0" * 4000)
    result = guest.run_guest(Guest(tmp_path / "bzImage", ()), tmp_path / "run")
    assert any(line.startswith("QEMU ended with code") for line in result.failures())
    assert any("did not write its last line" in line for line in result.failures())
