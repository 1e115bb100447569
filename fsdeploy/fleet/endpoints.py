# SPDX-License-Identifier: GPL-2.0-only
"""SSH servers of this machine on loopback ports, for measurements and tests.

Each has a host key of its own, lets in one key for the user who started it, reads nothing of
/etc/ssh and ends with the block that started it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fsdeploy import run
from fsdeploy.errors import FsdeployError

LOOPBACK = "127.0.0.1"

# What is offered by the OpenSSH 5.3 of CentOS 6, as far as today's server still knows it.
OLD_SERVER = (
    (
        "KexAlgorithms diffie-hellman-group-exchange-sha256,diffie-hellman-group-exchange-sha1,"
        "diffie-hellman-group14-sha1,diffie-hellman-group1-sha1"
    ),
    "HostKeyAlgorithms ssh-rsa",
    "PubkeyAcceptedAlgorithms ssh-rsa",
    "Ciphers aes128-ctr,aes192-ctr,aes256-ctr,aes128-cbc,3des-cbc,aes192-cbc,aes256-cbc",
    "MACs hmac-md5,hmac-sha1,umac-64@openssh.com,hmac-sha1-96,hmac-md5-96",
)

_STARTS = 5  # somebody else may take the port that was free
_START_SECONDS = 60.0


@dataclass
class Endpoint:
    """A server that runs. `ssh_config` leads to it by the name it was given."""

    name: str
    port: int
    folder: Path
    process: run.Process

    @property
    def ssh_config(self) -> Path:
        """Where it is, with which key, and that its own key is known."""
        return self.folder / "ssh_config"


def make_key(path: Path) -> None:
    """An RSA key: what servers of every age know."""
    run.run(["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", path])


def require_server() -> None:
    """Stop when this machine has no SSH server to start."""
    run.require("sshd", "ssh", "ssh-keygen")
    if os.getuid() == 0:
        # Where the server keeps its unprivileged half; the package leaves it to the init script.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def greets(port: int) -> bool:
    """Whether an SSH server says its name on this port."""
    with (
        contextlib.suppress(OSError),
        socket.create_connection((LOOPBACK, port), timeout=5) as connection,
    ):
        return connection.recv(4) == b"SSH-"
    return False


def _write(
    name: str,
    port: int,
    folder: Path,
    key: Path,
    options: Sequence[str],
    environment: Mapping[str, str],
) -> None:
    user = pwd.getpwuid(os.getuid()).pw_name
    public = (folder / "host_key.pub").read_text(encoding="ascii").split()
    (folder / "authorized_keys").write_bytes(key.with_name(f"{key.name}.pub").read_bytes())
    (folder / "known_hosts").write_text(f"[{LOOPBACK}]:{port} {' '.join(public[:2])}\n")
    values = " ".join(f'"{word}={value}"' for word, value in environment.items())
    lines = [
        f"ListenAddress {LOOPBACK}:{port}",
        f"HostKey {folder / 'host_key'}",
        f"AuthorizedKeysFile {folder / 'authorized_keys'}",
        f"AllowUsers {user}",
        "AuthenticationMethods publickey",
        "PermitRootLogin prohibit-password",
        "PidFile none",
        # The folder may be below one that others can write to, as /tmp is.
        "StrictModes no",
        "UsePAM no",
        "PrintMotd no",
        "Subsystem sftp internal-sftp",
        *([f"SetEnv {values}"] if values else []),
        *options,
    ]
    (folder / "sshd_config").write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines = [
        f"Host {name}",
        f"  HostName {LOOPBACK}",
        f"  Port {port}",
        f"  User {user}",
        f'  IdentityFile "{key}"',
        "  IdentitiesOnly yes",
        f'  UserKnownHostsFile "{folder / "known_hosts"}"',
        "  GlobalKnownHostsFile /dev/null",
        "  StrictHostKeyChecking yes",
    ]
    (folder / "ssh_config").write_text("\n".join(lines) + "\n", encoding="utf-8")


def start(
    name: str,
    folder: Path,
    key: Path,
    *,
    port: int = 0,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    program: Sequence[str | Path] = (),
) -> Endpoint:
    """Start a server that lets in `key`; see `serving` for one that is ended.

    `options` are lines of its sshd_config, `environment` is set for what is run through it,
    `program` are the words of its command line up to the options.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "host_key").exists():
        make_key(folder / "host_key")
    for _ in range(_STARTS):
        chosen = port or _free_port()
        _write(name, chosen, folder, key, options, environment or {})
        # sshd starts itself anew for each connection and wants its own full path for that.
        words = [*(program or [run.find("sshd") or "sshd"]), "-D", "-e"]
        words += ["-f", folder / "sshd_config"]
        with (folder / "log").open("ab") as log:
            process = run.start(words, stdout=log)
        deadline = time.monotonic() + _START_SECONDS
        while run.wait(process, 0.02) is None:
            if greets(chosen):
                return Endpoint(name, chosen, folder, process)
            if time.monotonic() > deadline:
                run.end(process)
                break
    said = (folder / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise FsdeployError(f"sshd does not start: {said[-1] if said else 'no reason given'}")


@contextlib.contextmanager
def serving(
    name: str,
    folder: Path,
    key: Path,
    *,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    program: Sequence[str | Path] = (),
) -> Iterator[Endpoint]:
    """A server for the length of a block."""
    endpoint = start(name, folder, key, options=options, environment=environment, program=program)
    try:
        yield endpoint
    finally:
        run.end(endpoint.process)
