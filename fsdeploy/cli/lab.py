# SPDX-License-Identifier: GPL-2.0-only
"""fsdeploy lab: virtual hosts to try everything on."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from pathlib import Path

from fsdeploy import run, ui
from fsdeploy.errors import ExitCode, FsdeployError
from fsdeploy.lab import machine, network, qemu, state
from fsdeploy.lab.state import HostRecord


def configure(parser: argparse.ArgumentParser) -> None:
    """Sub-commands."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    up = actions.add_parser("up", help="make hosts lab1, lab2… and wait until they answer")
    up.add_argument("--hosts", type=int, default=1, metavar="N", help="how many (default 1)")
    up.add_argument(
        "--kernel",
        type=Path,
        action="append",
        metavar="RPM",
        help="kernel to start with; more may be given, the first is the default entry. Without "
        "it: the kernel of the hosts there are, else a stock lts61 one, built when it must be",
    )
    up.add_argument(
        "--grub-rpm", type=Path, metavar="RPM", help="CentOS's GRUB 0.97 instead of Debian's"
    )
    up.add_argument("--cpus", type=int, default=2, metavar="N", help="of each (default 2)")
    up.add_argument(
        "--memory", type=int, default=512, metavar="MIB", help="of each, in MiB (default 512)"
    )

    status = actions.add_parser("status", help="which hosts there are and whether they answer")

    ssh = actions.add_parser("ssh", help="log in to a host, or run a command there")
    ssh.add_argument("host", metavar="HOST")
    ssh.add_argument("words", nargs="*", metavar="COMMAND", help="after --")

    several = actions.add_parser("run", help="run a command on all hosts, or on some")
    several.add_argument(
        "words", nargs="*", metavar="[HOST…] -- COMMAND", help="no host means every host"
    )

    console = actions.add_parser("console", help="the end of a host's console log")
    console.add_argument("host", metavar="HOST")
    console.add_argument("--lines", type=int, default=40, metavar="N", help="default 40")
    console.add_argument("--path", action="store_true", help="only say which file it is")

    power = actions.add_parser("power", help="cut a host's power, give it back, or press reset")
    power.add_argument("host", metavar="HOST")
    power.add_argument("switch", choices=("off", "on", "reset"))
    power.add_argument("--wait", action="store_true", help="until the host answers on SSH")

    down = actions.add_parser("down", help="end hosts and delete their disks")
    down.add_argument("hosts", nargs="*", metavar="HOST", help="default: all")

    for action in (up, status, down):
        action.add_argument("--json", action="store_true", help="the result as JSON")


def main(args: argparse.Namespace) -> int:
    """Run one action."""
    actions = {
        "up": _up,
        "status": _status,
        "ssh": _ssh,
        "run": _run,
        "console": _console,
        "power": _power,
        "down": _down,
    }
    return actions[args.action](args)


def _up(args: argparse.Namespace) -> int:
    request = machine.LabRequest(
        hosts=args.hosts,
        kernels=tuple(args.kernel or ()),
        grub_rpm=args.grub_rpm,
        cpus=args.cpus,
        memory_mib=args.memory,
    )
    if not request.kernels and not state.load():
        request = dataclasses.replace(request, kernels=(_default_kernel(),))
    lab = machine.lab_up(request)
    if args.json:
        ui.emit_json(
            {
                "hosts": {record.name: _facts(record) for record in lab.hosts},
                "inventory": str(lab.inventory),
                "ssh_config": str(lab.ssh_config),
            }
        )
        return int(ExitCode.OK)
    for record in lab.hosts:
        ui.say(f"{record.name} is up: fsdeploy lab ssh {record.name}")
    ui.say(f"inventory: {lab.inventory}")
    return int(ExitCode.OK)


def _default_kernel() -> Path:
    from fsdeploy.kernel import build

    return build.build_kernel(build.request("lts61", fragments=("lab",), stock=True)).kernel_rpm


def _facts(record: HostRecord) -> dict[str, object]:
    return {
        "address": network.LOOPBACK,
        "port": record.port,
        "kernels": list(record.kernels),
        "boot_loader": record.boot_loader,
        "cpus": record.cpus,
        "memory_mib": record.memory_mib,
        "console": str(record.serial),
    }


def _status(args: argparse.Namespace) -> int:
    hosts = machine.lab_status()
    if args.json:
        ui.emit_json(
            {
                host.record.name: {
                    **_facts(host.record),
                    "power": host.power,
                    "answers": host.answers,
                }
                for host in hosts
            }
        )
    elif hosts:
        ui.table(
            "",
            ("host", "power", "SSH", "port", "made with"),
            [
                (
                    host.record.name,
                    host.power,
                    "answers" if host.answers else "silent",
                    str(host.record.port),
                    ", ".join(host.record.kernels),
                )
                for host in hosts
            ],
        )
    else:
        ui.say("There is no lab host.")
    return int(ExitCode.OK)


def _ssh(args: argparse.Namespace) -> int:
    host = machine.find_host(args.host)
    run.replace(network.ssh_words(machine.lab_files().ssh_config, host.name, args.words))


def _run(args: argparse.Namespace) -> int:
    names, words = _split(args.words)
    lab = machine.lab_files()
    worst = 0
    for name in names or lab.names:
        machine.find_host(name)
        answer = run.run(network.ssh_words(lab.ssh_config, name, words), check=False)
        for line in answer.output.splitlines():
            ui.say(f"{name}: {line}")
        if answer.returncode == network.NO_CONNECTION:
            worst = int(ExitCode.UNREACHABLE)
        elif answer.returncode != 0:
            ui.warn(f"{name}: {shlex.join(words)} ended with code {answer.returncode}")
            worst = worst or int(ExitCode.CHECK_FAILED)
    return worst


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Hosts and command: argparse takes one `--` away, so the hosts are told by their names."""
    known = machine.lab_files().names
    count = next((place for place, word in enumerate(words) if word not in known), len(words))
    if count == len(words):
        raise FsdeployError("no command to run", hint="fsdeploy lab run [HOST…] -- COMMAND")
    return words[:count], words[count:]


def _console(args: argparse.Namespace) -> int:
    record = machine.find_host(args.host)
    if args.path:
        ui.say(str(record.serial))
    else:
        ui.write_raw(qemu.last_lines(record.serial, args.lines) + "\n")
    return int(ExitCode.OK)


def _power(args: argparse.Namespace) -> int:
    machine.power(args.host, args.switch)
    if args.wait and args.switch != "off":
        machine.wait_for_ssh(args.host)
    return int(ExitCode.OK)


def _down(args: argparse.Namespace) -> int:
    gone = machine.lab_down(args.hosts)
    if args.json:
        ui.emit_json({"gone": list(gone)})
    else:
        ui.say(f"gone: {', '.join(gone)}" if gone else "There was no lab host.")
    return int(ExitCode.OK)
