# SPDX-License-Identifier: GPL-2.0-only
"""Lab hosts: made, started, switched off and on, and taken away.

A host is a QEMU process that outlives the command which started it, a disk of its own over the
image, and a small second disk with its name and keys. Everything is below one folder, and
whatever a killed command left there is found and ended by the next.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fsdeploy import paths, run, ui
from fsdeploy.errors import CheckFailed, FsdeployError
from fsdeploy.lab import image, network, qemu, state
from fsdeploy.lab.state import HostRecord

_MOST_HOSTS = 200
_PORT_TRIES = 5
_POLL = 0.2

# After a reset each byte that the new kernel's decompressor writes over the old kernel is slow for
# as long as QEMU has translated code of the old one. A boot fills this several times over, so that
# little of it is left: a reset costs 6 s of CPU instead of 10 to 16, a first boot no more.
_TRANSLATION_MIB = 64

# A host that will not come: the kernel's last words, and GRUB's.
_HOPELESS = re.compile(r"^.*(?:Kernel panic - not syncing|Error \d+: ).*$", re.MULTILINE)


@dataclass(frozen=True)
class LabRequest:
    """Which hosts are wanted. Without kernels new hosts are like those there are.

    Raises FsdeployError for numbers that no machine could have.
    """

    hosts: int = 1
    kernels: tuple[Path, ...] = ()
    grub_rpm: Path | None = None
    cpus: int = 2
    memory_mib: int = 512
    disk_mib: int = 3072

    def __post_init__(self) -> None:
        for option, value, least, most in (
            ("--hosts", self.hosts, 1, _MOST_HOSTS),
            ("--cpus", self.cpus, 1, 64),
            ("--memory", self.memory_mib, 128, 1 << 20),
        ):
            if not least <= value <= most:
                raise FsdeployError(f"{option} {value}: between {least} and {most} are possible")


@dataclass(frozen=True)
class Lab:
    """All hosts of the lab and the files that lead to them."""

    hosts: tuple[HostRecord, ...]
    inventory: Path
    ssh_config: Path

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all hosts, in order."""
        return tuple(record.name for record in self.hosts)

    def command(self, text: str, host: str = "", *, timeout: float = 60) -> str:
        """Output of a shell command on a host, the first by default.

        Raises CommandFailed when it ends with another code than 0, or SSH fails.
        """
        words = network.ssh_words(self.ssh_config, host or self.names[0], [text])
        return run.run(words, timeout=qemu.scaled(timeout)).output.strip()


@dataclass(frozen=True)
class HostStatus:
    """What can be seen of a host from outside: `power` is on or off."""

    record: HostRecord
    power: str
    answers: bool


def host_name(number: int) -> str:
    """The name of a host: lab1, lab2 and so on."""
    return f"lab{number}"


def lab_up(request: LabRequest) -> Lab:
    """Bring up hosts lab1 to labN and wait until each answers on SSH.

    Hosts that run already are left alone, one that is off is started with its disk as it was.
    When something goes wrong, or the command is interrupted, the hosts that this call made are
    taken away again. Raises FsdeployError when a host has other settings than the wanted ones.
    """
    run.require(qemu.TOOL, "qemu-img", "ssh", "ssh-keygen")
    log = paths.log_dir() / f"lab-up-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.log"
    with state.locked():
        _sweep()
        known = {record.name: record for record in state.load()}
        disk = _image(request, tuple(known.values()), log)
        wanted = [host_name(number) for number in range(1, request.hosts + 1)]
        for name in wanted:
            if name in known:
                _require_same(known[name], disk, request)
        fresh = [name for name in wanted if name not in known]
        asleep = [
            known[name] for name in wanted if name in known and not state.is_running(known[name])
        ]
        try:
            for name in fresh:
                known[name] = _make(name, disk, request, known.values())
            started = [*(known[name] for name in fresh), *asleep]
            if started:
                with ui.step(f"Starting {', '.join(record.name for record in started)}"):
                    said = {record.name: _size(record.serial) for record in started}
                    for record in started:
                        known[record.name] = _start(known[record.name], known)
                    _wait_for_ssh([known[record.name] for record in started], said)
        except BaseException as problem:
            kept = _keep_consoles(fresh)
            if isinstance(problem, FsdeployError) and problem.log in kept:
                problem.log = kept[problem.log]
            _remove(fresh)
            raise
        for name in fresh:
            known[name] = dataclasses.replace(known[name], phase=state.READY)
        return _publish(known.values())


def lab_down(names: Sequence[str] = ()) -> tuple[str, ...]:
    """End hosts (all without names) and delete their disks; returns the names that are gone.

    Their disks go with them, so nothing is shut down first.
    """
    with state.locked():
        # What a killed `lab up` left half made is there like any other.
        there = [record.name for record in state.load()]
        for name in names:
            if name not in there:
                raise _unknown(name, there)
        gone = tuple(name for name in there if not names or name in names)
        _remove(gone)
        return gone


@contextlib.contextmanager
def lab(kernels: Sequence[Path], *, hosts: int = 1, keep: bool = False) -> Iterator[Lab]:
    """Hosts for the length of a block; with `keep` they stay after a good end of it."""
    up = lab_up(LabRequest(hosts=hosts, kernels=tuple(kernels)))
    try:
        yield up
    except BaseException:
        lab_down(up.names)
        raise
    if not keep:
        lab_down(up.names)


def lab_status() -> tuple[HostStatus, ...]:
    """All hosts as they are now. Changes nothing."""
    return tuple(
        HostStatus(
            record=record,
            power="on" if (running := state.is_running(record)) else "off",
            answers=running and network.answers_ssh(record.port),
        )
        for record in state.load()
    )


def lab_files() -> Lab:
    """The lab as it is, for commands that use it. Raises FsdeployError when there is none."""
    hosts = state.load()
    if not hosts:
        raise FsdeployError("there is no lab host", hint="fsdeploy lab up")
    folder = state.lab_folder()
    return Lab(hosts, folder / "inventory.yml", folder / "ssh_config")


def find_host(name: str) -> HostRecord:
    """The host of that name, FsdeployError when there is none."""
    hosts = state.load()
    for record in hosts:
        if record.name == name:
            return record
    raise _unknown(name, [record.name for record in hosts])


def power(name: str, action: str) -> None:
    """Cut a host's power (`off`), give it back (`on`), or press the reset button (`reset`).

    Nothing is shut down: what the host had not written to its disk is lost, as with a real one.
    """
    with state.locked():
        record = find_host(name)
        running = state.is_running(record)
        if action == "off":
            _stop(record)
        elif action == "on":
            if not running:
                known = {host.name: host for host in state.load()}
                known[name] = _start(record, known)
                _publish(known.values())
        elif action == "reset":
            if not running:
                raise FsdeployError(f"{name} is off", hint=f"fsdeploy lab power {name} on")
            qemu.execute(record.qmp, "system_reset")
        else:
            raise FsdeployError(f"{action}: off, on or reset was expected")


def wait_for_ssh(name: str, seconds: float = 120) -> None:
    """Wait until a host answers on SSH; CheckFailed when it does not in time."""
    record = find_host(name)
    _wait_for_ssh([record], {name: _size(record.serial)}, seconds)


def _unknown(name: str, there: Sequence[str]) -> FsdeployError:
    return FsdeployError(
        f"there is no lab host {name!r}",
        hint=f"there is: {', '.join(there)}" if there else "fsdeploy lab up",
    )


def _image(request: LabRequest, known: Sequence[HostRecord], log: Path) -> image.Image:
    if request.kernels:
        return image.ensure(
            image.ImageRequest(
                kernels=tuple(image.read_kernel_package(path) for path in request.kernels),
                grub_rpm=request.grub_rpm,
                disk_mib=request.disk_mib,
            ),
            log=log,
        )
    if not known:
        raise FsdeployError(
            "the first lab host needs a kernel to start with",
            hint="--kernel RPM; `fsdeploy build-kernel --stock --fragment lab` builds one",
        )
    first = known[0]
    return image.Image(first.image, Path(first.disk), first.kernels, first.boot_loader)


def _require_same(record: HostRecord, disk: image.Image, request: LabRequest) -> None:
    differences = [
        what
        for what, there, wanted in (
            ("image", record.image, disk.key),
            ("--cpus", record.cpus, request.cpus),
            ("--memory", record.memory_mib, request.memory_mib),
        )
        if there != wanted
    ]
    if differences:
        raise FsdeployError(
            f"{record.name} is there with other settings: {', '.join(differences)}",
            hint=f"fsdeploy lab down {record.name}",
        )


def _make(
    name: str, disk: image.Image, request: LabRequest, known: Iterable[HostRecord]
) -> HostRecord:
    """The files of a new host. It is remembered before the first file is there."""
    number = int(name.removeprefix("lab"))
    record = HostRecord(
        name=name,
        phase=state.STARTING,
        image=disk.key,
        disk=str(disk.disk),
        kernels=disk.kernels,
        boot_loader=disk.boot_loader,
        cpus=request.cpus,
        memory_mib=request.memory_mib,
        port=network.choose_port([other.port for other in known]),
        mac=network.mac_address(number),
        host_key="",
    )
    others = [other for other in state.load() if other.name != name]
    state.save((*others, record))
    folder = record.folder
    folder.mkdir(parents=True, exist_ok=True)
    user_key = network.make_key(state.lab_folder() / "id_rsa", "fsdeploy-lab")
    key = folder / "host_key"
    public = network.make_key(key, name)
    seed = network.seed_archive(network.seed_files(name, user_key, key.read_bytes(), public))
    (folder / "seed.tar").write_bytes(seed)
    qemu.make_overlay(disk.disk, folder / "disk.qcow2")
    record = dataclasses.replace(record, host_key=public)
    state.save((*others, record))
    return record


def machine_of(record: HostRecord) -> qemu.Machine:
    """QEMU's view of a host."""
    folder = record.folder
    return qemu.Machine(
        name=record.name,
        serial=record.serial,
        log=folder / "qemu.log",
        memory_mib=record.memory_mib,
        cpus=record.cpus,
        drives=(
            qemu.Drive(folder / "disk.qcow2"),
            qemu.Drive(folder / "seed.tar", format="raw", read_only=True),
        ),
        networks=(
            qemu.UserNetwork(
                mac=record.mac,
                forwards=(qemu.Forward(record.port, network.GUEST_SSH_PORT),),
            ),
        ),
        watchdog=True,
        translation_mib=_TRANSLATION_MIB,
        # A host is here to boot whatever kernel it is given, not to be fast.
        parallel=False,
        qmp=record.qmp,
        pid_file=record.pid_file,
    )


def _start(record: HostRecord, known: dict[str, HostRecord]) -> HostRecord:
    """Start a host's QEMU; on another port when the chosen one was taken meanwhile."""
    if not Path(record.disk).is_file():
        raise FsdeployError(
            f"the image of {record.name} is gone from the cache: {record.disk}",
            hint=f"fsdeploy lab down {record.name}, then lab up again",
        )
    for last in (*[False] * (_PORT_TRIES - 1), True):
        machine = machine_of(record)
        record.qmp.unlink(missing_ok=True)
        process = qemu.start(machine, outlive=True)
        try:
            qemu.wait_ready(machine, process)
        except FsdeployError:
            run.end(process)
            if last or network.is_free(record.port):
                raise
            record = dataclasses.replace(
                record, port=network.choose_port([other.port for other in known.values()])
            )
            known[record.name] = record
            state.save(tuple(known.values()))
            continue
        break
    return record


def _wait_for_ssh(
    records: Sequence[HostRecord], said: Mapping[str, int], seconds: float = 0
) -> None:
    """Wait for hosts; `said` is how much of each console is of earlier boots and no news."""
    # Hosts share this machine's cores: several take longer than one.
    limit = qemu.scaled(seconds or 90 + 30 * len(records))
    deadline = time.monotonic() + limit
    waiting = list(records)
    while waiting:
        for record in tuple(waiting):
            if network.answers_ssh(record.port):
                waiting.remove(record)
                continue
            last_words = _HOPELESS.search(_said_since(record.serial, said[record.name]))
            if last_words or not state.is_running(record) or time.monotonic() > deadline:
                what = (
                    f"stopped: {last_words[0].strip()}"
                    if last_words
                    else "does not answer on SSH"
                    if state.is_running(record)
                    else "switched itself off"
                )
                raise CheckFailed(
                    f"{record.name} {what}\n{qemu.last_lines(record.serial)}".rstrip(),
                    hint="the console log tells what the host did",
                    log=record.serial,
                )
        if waiting:
            time.sleep(_POLL)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _said_since(path: Path, offset: int) -> str:
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            return stream.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _publish(hosts: Iterable[HostRecord]) -> Lab:
    """Write what leads to the hosts: record, ssh_config, known hosts, inventory."""
    records = tuple(sorted(hosts, key=lambda record: int(record.name.removeprefix("lab"))))
    folder = state.lab_folder()
    state.save(records)
    reach = [network.Reach(record.name, record.port, record.host_key) for record in records]
    ssh_config = folder / "ssh_config"
    state.write(folder / "known_hosts", network.known_hosts_text(reach))
    state.write(ssh_config, network.ssh_config_text(reach, folder))
    state.write(folder / "inventory.yml", network.inventory_text(reach, ssh_config))
    return Lab(records, folder / "inventory.yml", ssh_config)


def _stop(record: HostRecord) -> None:
    """End a host's QEMU: by its own way, then by signals."""
    if not state.processes_of(record.pid_file):
        return
    with contextlib.suppress(FsdeployError):
        qemu.execute(record.qmp, "quit", seconds=5)
    if not state.wait_gone(record.pid_file, qemu.scaled(5)):
        for pid in state.processes_of(record.pid_file):
            state.end_process(pid, record.pid_file)


def _remove(names: Sequence[str]) -> None:
    """Take hosts away. A host stays remembered until its process and files are gone."""
    left = list(state.load())
    for record in tuple(left):
        if record.name in names:
            _stop(record)
            shutil.rmtree(record.folder, ignore_errors=True)
            left.remove(record)
            state.save(tuple(left))
    if left:
        _publish(left)
    else:
        for name in ("hosts.json", "ssh_config", "known_hosts", "inventory.yml"):
            (state.lab_folder() / name).unlink(missing_ok=True)


def _sweep() -> None:
    """Take away what a killed `lab up` left half made."""
    halves = [record.name for record in state.load() if record.phase == state.STARTING]
    if halves:
        ui.note(f"Removing {', '.join(halves)}: left half made by a command that was killed.")
        _remove(halves)


def _keep_consoles(names: Sequence[str]) -> dict[Path, Path]:
    """Copy the consoles of hosts that are about to be taken away; returns where each went."""
    kept = {}
    for name in names:
        console = state.lab_folder() / name / "console.log"
        if console.exists():
            kept[console] = paths.log_dir() / f"lab-{name}-console.log"
            shutil.copyfile(console, kept[console])
    return kept
