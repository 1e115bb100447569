# SPDX-License-Identifier: GPL-2.0-only
"""Plain SSH to hosts: the only module that knows ssh.

Ansible, the checks and the commands below all go over the OpenSSH binary with one generated
ssh_config, so that a host which one of them reaches is reached by all. Connections are shared
for the length of a session and closed with it.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

from fsdeploy import run
from fsdeploy.errors import Unreachable
from fsdeploy.fleet.inventory import SSH_CONFIG_VARIABLE, Host, Inventory

Answer = TypeVar("Answer")

# ssh ends with 255 when the connection is the problem, else with the code of the command.
_NO_CONNECTION = 255

# What Ansible and the checks make of an ssh that ended without a word, or while they still wrote.
_NOTHING_SAID = re.compile(r"^no answer$|via ssh: *$|^Data could not be sent to remote host")

_PARALLEL = 20  # hosts asked at the same time

# Name of the inventory variable for a host whose SSH server knows no signature but SHA-1's.
OLD_SSH_VARIABLE = "fsdeploy_old_ssh"
# All that the OpenSSH 5.3 of CentOS 6 lacks: its key exchange, ciphers and MACs are still offered.
OLD_SSH_KEYWORDS = (("HostKeyAlgorithms", "+ssh-rsa"), ("PubkeyAcceptedAlgorithms", "+ssh-rsa"))

# Inventory variables that are SSH's business, and the keyword each becomes.
_KEYWORDS = (
    ("ansible_host", "HostName"),
    ("ansible_port", "Port"),
    ("ansible_user", "User"),
    ("ansible_ssh_private_key_file", "IdentityFile"),
)


@dataclass(frozen=True)
class Answered:
    """What a command on a host gave back. `reached` is False when SSH itself failed."""

    reached: bool
    code: int
    output: str

    @property
    def ok(self) -> bool:
        """Whether the command ran and ended with 0."""
        return self.reached and self.code == 0


@dataclass(frozen=True)
class Pulse:
    """A sign of life: which boot this is and which kernel runs."""

    boot_id: str
    release: str
    uptime: float


def is_old(host: Host) -> bool:
    """Whether the inventory says that the host's SSH server is an old one."""
    return str(host.variables.get(OLD_SSH_VARIABLE, "")).lower() in ("true", "yes", "on", "1")


def ssh_config_text(inventory: Inventory, control_dir: Path) -> str:
    """The ssh_config of a session: the inventory's own first, then what every host needs."""
    lines: list[str] = []
    if inventory.ssh_config:
        lines += [f'Include "{inventory.ssh_config}"', ""]
    for host in inventory.hosts:
        known = [(word, host.variables[name]) for name, word in _KEYWORDS if name in host.variables]
        if is_old(host):
            known += OLD_SSH_KEYWORDS
        if known:
            lines.append(f"Host {host.name}")
            lines += [f'  {word} "{value}"' for word, value in known]
            lines.append("")
    lines += [
        "Host *",
        "  BatchMode yes",
        "  ConnectTimeout 15",
        # A host that reboots leaves connections that never answer.
        "  ServerAliveInterval 5",
        "  ServerAliveCountMax 6",
        "  ControlMaster auto",
        # Between two tasks of a large wave a host may have nothing to do for minutes.
        "  ControlPersist 10m",
        f'  ControlPath "{control_dir}/%C"',
        "  LogLevel ERROR",
        "",
    ]
    return "\n".join(lines)


def reason_of(output: str) -> str:
    """What ssh said when it could not connect, as one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    # "ssh: connect to host 10.0.0.1 port 22: Connection refused" ends with what matters.
    return explained(re.sub(r"^ssh: ", "", lines[-1])) if lines else "no answer"


def explained(message: str) -> str:
    """A message of ssh, and what to do when the two sides have no algorithm in common."""
    offer = re.search(r"no matching ([\w ]+) found\. Their offer: (\S+)", message)
    if "no mutual signature" in message or (offer and "ssh-rsa" in offer[2].split(",")):
        remedy = f"an old SSH server: set {OLD_SSH_VARIABLE}: true for it in the inventory"
    elif offer:
        remedy = f"allow a {offer[1]} of these in the ssh_config that {SSH_CONFIG_VARIABLE} names"
    else:
        return message
    return f"{message}; {remedy} (docs/fleet.md)"


class Ssh:
    """A session with the hosts of an inventory."""

    def __init__(self, inventory: Inventory, *, log: Path | None = None) -> None:
        self.inventory = inventory
        self.log = log
        # A socket's path may have 108 characters: the session's folder is short and private.
        self._folder = Path(tempfile.mkdtemp(prefix="fsd-"))
        self.config = self._folder / "config"
        self.config.write_text(ssh_config_text(inventory, self._folder), encoding="utf-8")

    def close(self) -> None:
        """Close all shared connections."""
        for path in list(self._folder.iterdir()):
            if path.is_socket():
                # By its socket: there may be thousands of hosts that nobody asked for anything.
                self._end_connection("-S", path, "any")
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Ssh:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def hang_up(self, hosts: Iterable[Host]) -> None:
        """Close the shared connections to hosts, for one that is about to boot."""
        if not any(path.is_socket() for path in self._folder.iterdir()):
            return
        for host in hosts:
            self._end_connection(host.name)

    def _end_connection(self, *words: str | Path) -> None:
        with contextlib.suppress(run.CommandFailed):
            run.run(["ssh", "-F", self.config, "-O", "exit", *words], check=False, timeout=10)

    def execute(
        self,
        host: Host,
        command: str,
        *,
        timeout: float | None = 60,
        input_text: str | None = None,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
        on_line: Callable[[str], None] | None = None,
        fresh: bool = False,
    ) -> Answered:
        """Run a shell command on a host; `stdin` to `on_line` are those of `run.run`.

        `fresh` takes a connection of its own: what is shared may lead to a boot that is over.
        """
        words: list[str | Path] = ["ssh", "-F", self.config]
        if fresh:
            words += ["-o", "ControlMaster=no", "-o", "ControlPath=none"]
        try:
            result = run.run(
                [*words, host.name, command],
                check=False,
                timeout=timeout,
                input_text=input_text,
                stdin=stdin,
                stdout=stdout,
                on_line=on_line,
                log=self.log,
            )
        except run.CommandFailed:
            return Answered(False, _NO_CONNECTION, f"no answer within {timeout:g} s")
        reached = result.returncode != _NO_CONNECTION
        output = result.output
        if not reached and not output.strip():
            output = self._why(host)
        return Answered(reached, result.returncode, output)

    def _why(self, host: Host) -> str:
        """What ssh says at a level where it names what it misses; there it repeats banners too."""
        words = ["ssh", "-F", str(self.config), "-o", "LogLevel=INFO"]
        words += ["-o", "ControlMaster=no", "-o", "ControlPath=none", host.name, "true"]
        try:
            result = run.run(words, check=False, timeout=60, log=self.log)
        except run.CommandFailed:
            return ""
        return result.output if result.returncode == _NO_CONNECTION else ""

    def reason(self, name: str, message: str) -> str:
        """Why a host was not reached; asked again where a tool around ssh could not tell it."""
        if not _NOTHING_SAID.search(message):
            return explained(message)
        answer = self.execute(self.inventory.host(name), "true", fresh=True)
        return message if answer.reached else reason_of(answer.output)

    def require(self, host: Host, command: str, *, timeout: float = 60) -> str:
        """Like `execute`, for a command that must work: its output, or Unreachable."""
        answer = self.execute(host, command, timeout=timeout)
        if not answer.reached:
            raise Unreachable(
                f"{host.name} does not answer over SSH: {reason_of(answer.output)}",
                hint=f"try: ssh -F {self.inventory.ssh_config or '~/.ssh/config'} {host.name}",
                log=self.log,
            )
        if answer.code != 0:
            raise Unreachable(
                f"{host.name}: {command} ended with code {answer.code}: {answer.output.strip()}",
                log=self.log,
            )
        return answer.output

    def pulse(self, host: Host, *, timeout: float = 20) -> Pulse | None:
        """A sign of life over a fresh connection, or None."""
        answer = self.execute(
            host,
            "cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/osrelease /proc/uptime",
            timeout=timeout,
            fresh=True,
        )
        return parse_pulse(answer.output) if answer.ok else None

    def reboot(self, host: Host, boot_id: str) -> Answered:
        """Tell a host to end the boot of that id; returns before it goes down.

        In any other boot nothing happens: however late this is told, it is told once.
        """
        answer = self.execute(
            host,
            f"test $(cat /proc/sys/kernel/random/boot_id) = {shlex.quote(boot_id)} || exit 0;"
            # Away from our terminal and session, so that the answer still gets here.
            " sync; (sleep 1; PATH=/sbin:/usr/sbin:$PATH reboot) </dev/null >/dev/null 2>&1 &",
            timeout=30,
            fresh=True,
        )
        self.hang_up([host])
        return answer

    def each(self, hosts: Iterable[Host], ask: Callable[[Host], Answer]) -> Mapping[str, Answer]:
        """Ask hosts side by side; answers by name, in the order of the hosts."""
        chosen = list(hosts)
        if not chosen:
            return {}
        pool = ThreadPoolExecutor(max_workers=min(_PARALLEL, len(chosen)))
        try:
            return dict(zip((host.name for host in chosen), pool.map(ask, chosen), strict=True))
        finally:
            # After Ctrl-C those that were not asked yet are not asked any more.
            pool.shutdown(cancel_futures=True)


def parse_pulse(output: str) -> Pulse | None:
    """The three lines of `Ssh.pulse`, or None when they are not whole."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    # Banners and warnings come first; the answer is at the end.
    if len(lines) < 3 or not re.fullmatch(r"[0-9a-f-]{36}", lines[-3]):
        return None
    try:
        return Pulse(lines[-3], lines[-2], float(lines[-1].split()[0]))
    except ValueError:
        return None


@contextlib.contextmanager
def session(inventory: Inventory, *, log: Path | None = None) -> Iterator[Ssh]:
    """A session for the length of a block."""
    with Ssh(inventory, log=log) as ssh:
        yield ssh
