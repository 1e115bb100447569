# SPDX-License-Identifier: GPL-2.0-only
"""Guests in which servers run as Debian packages them, from a disk of trixie's userland."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fsdeploy import run
from fsdeploy.kernel import library
from fsdeploy.lab import guest, image, initramfs, qemu

SERVERS = Path(__file__).parent / "servers"
SHIM = ("-shared", "-fPIC", "-O2", "-nostdlib", "-ffreestanding", "-Wall", "-Wextra", "-Werror")


def run_servers(
    kernel: Path,
    modules: Sequence[Path],
    programs: Sequence[str],
    folder: Path,
    *,
    cpus: int,
    seconds: float,
    environment: Mapping[str, str],
    cpu: str = qemu.DEFAULT_CPU,
) -> guest.GuestResult:
    """Run programs of servers/ by their names in one guest, each for at most `seconds`."""
    guest.compile_program(SERVERS / "enter.c", folder / "enter")
    guest.compile_program(SERVERS / "load.c", folder / "load")
    files: dict[str, initramfs.Entry] = {
        f"/guest/{path.name}": initramfs.File(path.read_bytes()) for path in SERVERS.glob("*.py")
    }
    files["/guest/load"] = initramfs.File((folder / "load").read_bytes(), 0o755)
    shim = folder / "newer.so"
    run.run(["gcc", *SHIM, "-o", shim, SERVERS / "newer.c"])
    files["/guest/newer.so"] = initramfs.File(shim.read_bytes(), 0o755)
    root = library.build_library().directory / "root"
    for name in ("usr/bin/fsocket-run", "usr/lib64/libfsocket.so"):
        files[f"/guest/{Path(name).name}"] = initramfs.File((root / name).read_bytes(), 0o755)
    return guest.run_guest(
        guest.Guest(
            kernel=kernel,
            modules=tuple(modules),
            programs=tuple(guest.Program(name, folder / "enter", seconds) for name in programs),
            cpus=cpus,
            cpu=cpu,
            memory_mib=1024,
            disks=(image.ensure_guest_disk(image.SERVERS),),
            environment=environment,
            files=files,
        ),
        folder,
    )
