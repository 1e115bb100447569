# SPDX-License-Identifier: GPL-2.0-only
"""Virtual machines under QEMU: the command line (pure) and the life of the process.

Always TCG: an accelerator that opens is not one that boots, and a lab that runs everywhere the
same is worth more than a fast one. Quick guests and lab hosts share this.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qemu.qmp import ExecuteError, QMPClient, QMPError

from fsdeploy import run
from fsdeploy.errors import FsdeployError

TOOL = "qemu-system-x86_64"

# "max" makes an old kernel fall back from the tsc to the hpet clock source.
DEFAULT_CPU = "Nehalem"

TIME_FACTOR = "FSDEPLOY_TIME_FACTOR"

# sun_path of a UNIX socket, less its terminating zero.
_LONGEST_SOCKET_PATH = 107

_POLL = 0.05  # seconds between two looks at a condition


@dataclass(frozen=True)
class Drive:
    """A virtio disk: vda, vdb… in the order given."""

    path: Path
    format: str = "qcow2"
    read_only: bool = False


@dataclass(frozen=True)
class Forward:
    """A TCP port on 127.0.0.1 that reaches a port of the guest."""

    host_port: int
    guest_port: int


@dataclass(frozen=True)
class UserNetwork:
    """QEMU's own network: no privilege, one queue, reached through forwards.

    `restricted`: the guest reaches nothing outside, forwards still work.
    """

    mac: str
    forwards: tuple[Forward, ...] = ()
    restricted: bool = True


@dataclass(frozen=True)
class TapNetwork:
    """A tap device that exists already; the only way to a virtio-net with several queues."""

    mac: str
    interface: str
    queues: int = 1


@dataclass(frozen=True)
class Cable:
    """Two cards with a cable between them, for a guest that talks to itself.

    They are of the kind whose Linux driver receives by NAPI and GRO in old kernels too.
    """

    macs: tuple[str, str]


@dataclass(frozen=True)
class Machine:
    """Everything that decides QEMU's command line.

    `serial` gets the console (appended to), `log` QEMU's own messages. Without `kernel` the first
    drive boots. `ends_on_reset`: a reset or a panic with `panic=` ends QEMU instead of booting
    again. The watchdog resets the machine when a guest that opened it stops feeding it.

    `pit`: the old timer chip, which firmware and boot loaders want. A kernel booted directly is
    better off without: it measures the TSC by that chip, on a busy machine as 52 or 98 MHz where
    2596 were right, and then all its clocks run 26 times too fast. Without, it takes the HPET.

    `translation_mib`: room for translated code; 0 is QEMU's own choice, a gigabyte.

    `parallel`: the virtual CPUs run at the same time. Otherwise they take turns, which is slower,
    but QEMU before 8.1 may translate code that another virtual CPU is writing and keep what it
    read: about one of 40 boots of a kernel that patches its code then dies.

    `counted`: time in the machine is instructions executed, one a nanosecond; it has one CPU, the
    date is the same each time, random numbers come from `seed`: it does the same each time.
    """

    name: str
    serial: Path
    log: Path
    memory_mib: int = 512
    cpus: int = 2
    cpu: str = DEFAULT_CPU
    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    drives: tuple[Drive, ...] = ()
    networks: tuple[UserNetwork | TapNetwork | Cable, ...] = ()
    watchdog: bool = False
    qmp: Path | None = None
    pid_file: Path | None = None
    ends_on_reset: bool = False
    pit: bool = True
    translation_mib: int = 0
    parallel: bool = True
    counted: bool = False
    seed: int = 1


def time_factor() -> float:
    """What every time limit of a guest is multiplied by: FSDEPLOY_TIME_FACTOR, 1 by default."""
    text = os.environ.get(TIME_FACTOR, "") or "1"
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not (math.isfinite(factor) and factor > 0):
        raise FsdeployError(
            f"{TIME_FACTOR}={text} is not a number above 0",
            hint=f"unset {TIME_FACTOR}, or give it a factor such as 2 on a slow machine",
        )
    return factor


def scaled(seconds: float) -> float:
    """A time limit for this machine, in seconds."""
    return seconds * time_factor()


def command_line(machine: Machine) -> tuple[str, ...]:
    """QEMU's argument list for a machine. Pure: looks at no file."""
    words = [
        TOOL,
        *("-name", _escaped(machine.name)),
        "-nodefaults",
        "-no-user-config",
        *("-display", "none"),
        *("-machine", f"pc,usb=off,pit={'on' if machine.pit else 'off'}"),
        *("-accel", _accelerator(machine)),
        *("-cpu", f"{machine.cpu},+rdrand" if machine.counted else machine.cpu),
        *("-smp", str(machine.cpus)),
        *("-m", f"{machine.memory_mib}M"),
        *_time(machine),
        *_entropy(machine),
        *("-chardev", f"file,id=console,path={_escaped(machine.serial)},append=on"),
        *("-serial", "chardev:console"),
    ]
    if machine.kernel:
        words += ["-kernel", str(machine.kernel)]
        if machine.initrd:
            words += ["-initrd", str(machine.initrd)]
        if machine.append:
            words += ["-append", machine.append]
    for number, drive in enumerate(machine.drives):
        words += ["-blockdev", _blockdev(f"drive{number}", drive)]
        # A kernel that is given boots, and QEMU has the first place for it.
        order = "" if machine.kernel else f",bootindex={number}"
        words += ["-device", f"virtio-blk-pci,drive=drive{number}{order}"]
    for number, network in enumerate(machine.networks):
        if isinstance(network, Cable):
            words += _cable(number, network)
        else:
            words += _network(f"net{number}", network)
    if machine.watchdog:
        words += ["-device", "i6300esb", "-action", "watchdog=reset"]
    if machine.qmp:
        words += ["-chardev", f"socket,id=qmp,path={_escaped(machine.qmp)},server=on,wait=off"]
        words += ["-mon", "chardev=qmp,mode=control"]
    if machine.pid_file:
        words += ["-pidfile", str(machine.pid_file)]
    if machine.ends_on_reset:
        words += ["-no-reboot"]
    return tuple(words)


def _accelerator(machine: Machine) -> str:
    size = f",tb-size={machine.translation_mib}" if machine.translation_mib else ""
    together = machine.parallel and not machine.counted
    return f"tcg,thread={'multi' if together else 'single'}{size}"


def _entropy(machine: Machine) -> list[str]:
    if machine.counted:
        # A device brings its numbers when the host has time; an instruction of the processor, not.
        return ["-seed", str(machine.seed)]
    # A guest without a source of entropy waits minutes for its first random number.
    return ["-object", "rng-builtin,id=entropy", "-device", "virtio-rng-pci,rng=entropy"]


def _time(machine: Machine) -> list[str]:
    if not machine.counted:
        return ["-rtc", "base=utc"]
    # An idle machine does not wait for its next timer, it goes on as if it had.
    return ["-icount", "shift=0,sleep=off", "-rtc", "base=2020-01-01,clock=vm"]


def _escaped(value: str | Path) -> str:
    # A comma ends a value of an option list; two stand for one.
    return str(value).replace(",", ",,")


def _blockdev(name: str, drive: Drive) -> str:
    read_only = "on" if drive.read_only else "off"
    return (
        f"driver={drive.format},node-name={name},read-only={read_only},discard=unmap,"
        f"file.driver=file,file.filename={_escaped(drive.path)}"
    )


def _cable(number: int, cable: Cable) -> list[str]:
    words: list[str] = []
    for end, mac in zip("ab", cable.macs, strict=True):
        name = f"net{number}{end}"
        words += ["-netdev", f"hubport,id={name},hubid={number}"]
        words += ["-device", f"e1000e,netdev={name},mac={mac},romfile="]
    return words


def _network(name: str, network: UserNetwork | TapNetwork) -> list[str]:
    device = f"virtio-net-pci,netdev={name},mac={network.mac},romfile="
    if isinstance(network, UserNetwork):
        restrict = "on" if network.restricted else "off"
        forwards = "".join(
            f",hostfwd=tcp:127.0.0.1:{forward.host_port}-:{forward.guest_port}"
            for forward in network.forwards
        )
        return ["-netdev", f"user,id={name},restrict={restrict}{forwards}", "-device", device]
    tap = f"tap,id={name},ifname={network.interface},script=no,downscript=no,vhost=off"
    if network.queues > 1:
        tap += f",queues={network.queues}"
        # One vector a queue and direction, one for the configuration, one for the control queue.
        device += f",mq=on,vectors={2 * network.queues + 2}"
    return ["-netdev", tap, "-device", device]


def make_overlay(image: Path, overlay: Path) -> None:
    """A disk that begins as a raw image does and takes what is written, in place of an old one."""
    run.require("qemu-img")
    run.run([*("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw"), *("-b", image, overlay)])


def start(machine: Machine, *, outlive: bool = False) -> run.Process:
    """Start a machine; end it with `run.end` or, by another process, with `execute(…, "quit")`.

    Returns at once; with a QMP socket call `wait_ready` to know that QEMU took the command line.
    Raises FsdeployError when QEMU is missing or the socket's path is too long for the system.
    """
    run.require(TOOL)
    if machine.qmp and len(os.fsencode(machine.qmp)) > _LONGEST_SOCKET_PATH:
        raise FsdeployError(
            f"the path of a socket is limited to {_LONGEST_SOCKET_PATH} bytes: {machine.qmp}",
            hint="use a shorter state folder (XDG_STATE_HOME)",
        )
    for path in (machine.serial, machine.log):
        path.parent.mkdir(parents=True, exist_ok=True)
    with machine.log.open("ab") as log:
        return run.start(command_line(machine), stdout=log, outlive=outlive)


@contextlib.contextmanager
def running(machine: Machine) -> Iterator[run.Process]:
    """A machine for the length of a block; QEMU is ended on any way out."""
    with run.running(start(machine)) as process:
        yield process


def wait_end(process: run.Process, seconds: float) -> int | None:
    """QEMU's exit code once it ends by itself, None when the (unscaled) time is over."""
    return run.wait(process, scaled(seconds))


def wait_ready(machine: Machine, process: run.Process | None = None, seconds: float = 20) -> None:
    """Wait until QEMU answers on its QMP socket.

    Raises FsdeployError with QEMU's own message when it ended instead (a port in use, a missing
    image), or when it does not answer in time.
    """
    if machine.qmp is None:
        raise ValueError("the machine has no QMP socket")
    deadline = time.monotonic() + scaled(seconds)
    while True:
        if is_answering(machine.qmp):
            return
        if process is not None and process.poll() is not None:
            raise FsdeployError(
                f"QEMU ended with code {process.returncode} at the start of {machine.name}:\n"
                + last_lines(machine.log),
                log=machine.log,
            )
        if time.monotonic() > deadline:
            raise FsdeployError(
                f"QEMU does not answer on {machine.qmp} after {scaled(seconds):g} s",
                log=machine.log,
            )
        time.sleep(_POLL)


def last_lines(path: Path, count: int = 5) -> str:
    """The end of a log, for a message; empty when there is none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-count:])


def is_answering(qmp: Path) -> bool:
    """Whether a machine listens on this QMP socket."""
    try:
        execute(qmp, "query-status")
    except FsdeployError:
        return False
    return True


def execute(
    qmp: Path, command: str, arguments: Mapping[str, object] | None = None, seconds: float = 10
) -> Any:
    """Run one QMP command on a machine, started by whatever process, and return its answer.

    `quit` ends QEMU, `system_powerdown` presses the button, `system_reset` resets. Raises
    FsdeployError when nobody answers or QEMU refuses.
    """
    try:
        return asyncio.run(
            asyncio.wait_for(_execute(qmp, command, arguments), timeout=scaled(seconds))
        )
    except ExecuteError as refusal:
        raise FsdeployError(f"QEMU refused {command}: {refusal}") from refusal
    except (QMPError, OSError, EOFError, TimeoutError) as reason:
        raise FsdeployError(f"no answer from QEMU on {qmp}: {reason}") from reason


async def _execute(qmp: Path, command: str, arguments: Mapping[str, object] | None) -> Any:
    client = QMPClient("fsdeploy")
    await client.connect(str(qmp))
    try:
        return await client.execute(command, dict(arguments) if arguments else None)
    finally:
        # After "quit" the other side may be gone before we are.
        with contextlib.suppress(QMPError, OSError, EOFError):
            await client.disconnect()
