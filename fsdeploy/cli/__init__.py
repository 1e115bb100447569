# SPDX-License-Identifier: GPL-2.0-only
"""The command line: finds the command, parses, and turns errors into exit codes.

One file a command. Each has `configure(parser)` and `main(args) -> int`; it is imported only when
it is wanted, so that `fsdeploy --help` stays quick.
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Protocol, cast

from fsdeploy import __version__
from fsdeploy.errors import ExitCode, FsdeployError

# Command, module, and its line in the overview (kept here so that the overview imports nothing).
COMMANDS: tuple[tuple[str, str, str], ...] = (
    ("build-kernel", "build_kernel", "build kernel RPMs from a source, our series and fragments"),
    ("build-library", "build_library", "build the libfsocket RPM, the library that goes to hosts"),
    ("source", "source", "add, list and identify kernel sources"),
    ("series", "series", "lint, check, apply and export a patch series"),
    ("publish", "publish", "sign packages and put them into a yum repository"),
    ("rollout", "rollout", "bring a kernel to hosts: trial boot, verify, promote"),
    ("verify", "verify", "run the shipped checks on hosts"),
    ("rollback", "rollback", "send hosts back"),
    ("status", "status", "where each host stands"),
    ("why", "why", "why a host stands where it stands, with its story"),
    ("tune", "tune", "show, apply and restore the network tuning of hosts"),
    ("services", "services", "load the module on hosts and start services under libfsocket"),
    ("lab", "lab", "virtual hosts to try everything on"),
    ("demo", "demo", "the whole way on a lab host, with a table of what happened"),
    ("bench", "bench", "what kernels make of short connections, measured in guests"),
    ("doctor", "doctor", "check this control machine"),
)

_EPILOG = """\
exit codes: 0 fine, 1 a check failed, 2 bad usage or input, 3 hosts unreachable, 130 interrupted
"""


class Command(Protocol):
    """What a module in this package offers."""

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments."""
        ...

    def main(self, args: argparse.Namespace) -> int:
        """Do it; the return value is the exit code."""
        ...


def _load(name: str) -> Command:
    module = next(module for command, module, _ in COMMANDS if command == name)
    return cast(Command, importlib.import_module(f"fsdeploy.cli.{module}"))


def _parser(wanted: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fsdeploy",
        description="Fastsocket for a fleet: build, deploy, verify and roll back the kernel.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fsdeploy {__version__}")
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="results, warnings and errors only"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, _, line in COMMANDS:
        command = commands.add_parser(
            name,
            help=line,
            description=line[0].upper() + line[1:] + ".",
            epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == wanted:
            _load(name).configure(command)
    return parser


def _terminate(_number: int, _frame: FrameType | None) -> None:
    # SIGTERM and SIGHUP end a command the way Ctrl-C does: children, locks and guests are let go.
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    names = {name for name, _, _ in COMMANDS}
    wanted = next((word for word in words if word in names), None)
    args = _parser(wanted).parse_args(words)
    from fsdeploy import ui

    ui.set_quiet(args.quiet)
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGHUP, _terminate)
    try:
        return _load(args.command).main(args)
    except FsdeployError as problem:
        ui.error(problem)
        return int(problem.code)
    except KeyboardInterrupt:
        ui.warn("interrupted")
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output went away (`fsdeploy … | head`): nothing to say, nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.OK)
    except OSError as problem:
        place = f" ({problem.filename})" if problem.filename else ""
        ui.error(
            FsdeployError(
                f"{problem.strerror or problem}{place}",
                hint="free some space or name another folder and run the command again"
                if problem.errno == 28
                else "",
            )
        )
        return int(ExitCode.BAD_INPUT)
