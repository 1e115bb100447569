# SPDX-License-Identifier: GPL-2.0-only
"""How lab hosts are reached: loopback ports, keys, and the files that name them to other tools.

The same ssh_config serves plain ssh, Ansible and the checks; the inventory is an ordinary one, as
an operator would write it for a fleet.
"""

from __future__ import annotations

import contextlib
import io
import random
import socket
import tarfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from fsdeploy import run
from fsdeploy.errors import FsdeployError

LOOPBACK = "127.0.0.1"
GUEST_SSH_PORT = 22

# ssh ends with it when the connection is the problem, else with the code of the command.
NO_CONNECTION = 255

# Below Linux's range for outgoing connections: a port stays free for its host while that is off.
_PORTS = range(20000, 30000)

# What QEMU's own network gives: the host's address, its prefix, and the way out.
_GUEST_ADDRESS, _GUEST_PREFIX, _GUEST_GATEWAY = "10.0.2.15", 24, "10.0.2.2"

# The nearest to CentOS 6's Python 2.6 that the lab has, under CentOS's name.
_PYTHON = "/usr/bin/python"


@dataclass(frozen=True)
class Reach:
    """Where one host's SSH is and what its key is (type and base64, no comment)."""

    name: str
    port: int
    host_key: str


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback interface now."""
    with socket.socket() as probe:
        # As QEMU does: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def choose_port(
    taken: Collection[int] = (),
    free: Callable[[int], bool] = is_free,
    source: random.Random | None = None,
) -> int:
    """A free port that is not in `taken`.

    Labs of several users look at the same ports: the choice is random, and who loses a race all
    the same chooses again.
    """
    candidates = [port for port in _PORTS if port not in taken]
    (source or random.Random()).shuffle(candidates)
    for port in candidates:
        if free(port):
            return port
    raise FsdeployError(f"no free port between {_PORTS.start} and {_PORTS.stop - 1}")


def mac_address(number: int) -> str:
    """A locally administered address in QEMU's range."""
    return f"52:54:00:f5:{number >> 8 & 0xFF:02x}:{number & 0xFF:02x}"


def ssh_config_text(hosts: Sequence[Reach], folder: Path) -> str:
    """The ssh_config of a lab: every host by its name, its key known, nothing of the user's."""
    lines: list[str] = []
    for host in hosts:
        lines += [
            f"Host {host.name}",
            f"  HostName {LOOPBACK}",
            f"  Port {host.port}",
            f"  HostKeyAlias {host.name}",
            "",
        ]
    lines += [
        f"Host {' '.join(host.name for host in hosts)}" if hosts else "Host lab*",
        "  User root",
        f'  IdentityFile "{folder / "id_rsa"}"',
        "  IdentitiesOnly yes",
        f'  UserKnownHostsFile "{folder / "known_hosts"}"',
        "  GlobalKnownHostsFile /dev/null",
        "  StrictHostKeyChecking yes",
        "  ConnectTimeout 15",
        "  LogLevel ERROR",
        "",
    ]
    return "\n".join(lines)


def known_hosts_text(hosts: Sequence[Reach]) -> str:
    """Keys by name: a port is another host's the next time (HostKeyAlias)."""
    return "".join(f"{host.name} {host.host_key}\n" for host in hosts)


def inventory_text(hosts: Sequence[Reach], ssh_config: Path) -> str:
    """The lab's Ansible inventory: one group, `fleet`."""
    inventory = {
        "fleet": {
            "hosts": {host.name: {} for host in hosts},
            "vars": {
                "ansible_python_interpreter": _PYTHON,
                "ansible_ssh_common_args": f"-F '{ssh_config}'",
                "fsdeploy_ssh_config": str(ssh_config),
            },
        }
    }
    return "# Written by `fsdeploy lab up`.\n" + yaml.safe_dump(inventory, sort_keys=False)


def make_key(path: Path, comment: str) -> str:
    """Make an RSA key pair (all that CentOS 6 knows); returns the public part without comment."""
    if not path.exists():
        run.run(
            ["ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-C", comment, "-f", path]
        )
    words = path.with_name(path.name + ".pub").read_text(encoding="ascii").split()
    return " ".join(words[:2])


def seed_files(name: str, user_key: str, private: bytes, public: str) -> Mapping[str, bytes]:
    """What makes one host of many: name, address and keys, as files of the host."""
    return {
        "etc/hostname": f"{name}\n".encode(),
        "etc/hosts": f"127.0.0.1 localhost\n{_GUEST_ADDRESS} {name}\n".encode(),
        "etc/sysconfig/network": f"NETWORKING=yes\nHOSTNAME={name}\n".encode(),
        "etc/sysconfig/network-scripts/ifcfg-eth0": (
            f"DEVICE=eth0\nONBOOT=yes\nBOOTPROTO=static\nIPADDR={_GUEST_ADDRESS}\n"
            f"PREFIX={_GUEST_PREFIX}\nGATEWAY={_GUEST_GATEWAY}\n"
        ).encode(),
        "etc/ssh/ssh_host_rsa_key": private,
        "etc/ssh/ssh_host_rsa_key.pub": f"{public} {name}\n".encode(),
        "root/.ssh/authorized_keys": f"{user_key} fsdeploy-lab\n".encode(),
    }


def seed_archive(files: Mapping[str, bytes]) -> bytes:
    """Files as a tar archive owned by root and readable by root alone where it matters."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            secret = name.endswith(("_key", "authorized_keys"))
            entry.mode = 0o600 if secret else 0o644
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def answers_ssh(port: int, seconds: float = 2) -> bool:
    """Whether an SSH server greets on this port.

    A connection alone proves nothing: QEMU accepts it for a guest that is not there yet.
    """
    with (
        contextlib.suppress(OSError),
        socket.create_connection((LOOPBACK, port), timeout=seconds) as connection,
    ):
        return connection.recv(4) == b"SSH-"
    return False


def ssh_words(ssh_config: Path, host: str, words: Sequence[str] = ()) -> tuple[str, ...]:
    """Argument list of an ssh to a host."""
    return ("ssh", "-F", str(ssh_config), host, *(("--", *words) if words else ()))
