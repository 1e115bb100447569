"""The host's side of tuning, loaded as the file it is, and hosts in a folder to run it on."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fsdeploy.tuning.snapshot import Snapshot, load_snapshot
from tests.unit.playbooks.host import host_module

SNAPSHOTS = Path(__file__).parent / "snapshots"


host_files = host_module("fsdeploy_files")
host_side = host_module("fsdeploy_tuning")


def names() -> list[str]:
    """The snapshots there are."""
    return sorted(path.stem for path in SNAPSHOTS.glob("*.json"))


def document(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((SNAPSHOTS / f"{name}.json").read_text())
    return loaded


def snapshot(name: str) -> Snapshot:
    return load_snapshot((SNAPSHOTS / f"{name}.json").read_text(), name)


class Cards:
    """Interrupt coalescing in memory. `limits` are the largest values that a driver keeps."""

    def __init__(self, values: dict[str, dict[str, int]]) -> None:
        self.values = {name: dict(fields) for name, fields in values.items()}
        self.refused: set[str] = set()
        self.limits: dict[str, int] = {}

    def get(self, interface: str) -> dict[str, int]:
        fields = self.values.get(interface, {"error": errno.ENODEV})
        if "error" in fields:
            raise OSError(fields["error"], os.strerror(fields["error"]))
        return dict(fields)

    def set(self, interface: str, fields: dict[str, int]) -> None:
        if interface in self.refused:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        most = self.limits.get(interface, 1 << 32)
        self.values[interface] = {name: min(number, most) for name, number in fields.items()}


class Machine:
    """A host in a folder, made of a snapshot, with the host's side on it."""

    def __init__(self, root: Path, made_of: dict[str, Any], *, systemd: bool = False) -> None:
        self.root = root
        self.made_of = made_of
        self.cards = Cards(made_of["ethtool"])
        self.commands: list[list[str]] = []
        self.on_command: Callable[[], None] = lambda: None
        for link, target in made_of["links"].items():
            if link.endswith("/device"):
                device = self.path("/sys/devices/pci0000:00/" + target)
                device.mkdir(parents=True, exist_ok=True)
                self.path(link).parent.mkdir(parents=True, exist_ok=True)
                self.path(link).symlink_to(device)
        for link, target in made_of["links"].items():
            if link.endswith("/driver"):
                driver = self.path("/sys/bus/pci/drivers/" + target)
                driver.mkdir(parents=True, exist_ok=True)
                self.path(link).symlink_to(driver)
        for path, text in made_of["files"].items():
            self.put(path, text)
        for folder in (
            "/etc/init.d",
            "/etc/sysconfig/network-scripts",
            "/usr/sbin",
            "/sbin",
            "/var/lib",
        ):
            self.path(folder).mkdir(parents=True, exist_ok=True)
        for level in range(7):
            self.path(f"/etc/rc{level}.d").mkdir()
        if systemd:
            self.path("/run/systemd/system").mkdir(parents=True)
        balance = made_of["irqbalance"]
        if balance["program"]:
            self.put(balance["program"], "")
            self.put(
                balance["config"], "#IRQBALANCE_ONESHOT=\n\nIRQBALANCE_ARGS=--hintpolicy=exact"
            )
            self.run_irqbalance(balance["arguments"])
        self.host = host_side.Host(str(root), ethtool=self.cards, ask=self._ask)

    def _ask(self, words: Sequence[str]) -> tuple[int, str]:
        self.commands.append(list(words))
        if "irqbalance" in " ".join(words):
            self.on_command()
        return 0, ""

    def run_irqbalance(self, arguments: Sequence[str]) -> None:
        self.put("/proc/99/cmdline", "\0".join(arguments) + "\0")

    def restart_irqbalance(self) -> None:
        """What its start script does: the file's arguments become the process's."""
        path = self.path("/etc/sysconfig/irqbalance")
        text = path.read_text() if path.exists() else ""
        lines = [line for line in text.splitlines() if line.startswith("IRQBALANCE_ARGS=")]
        arguments = lines[-1].partition("=")[2].strip('"').split() if lines else []
        self.run_irqbalance(["irqbalance", *arguments])

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def put(self, name: str, text: str) -> None:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("latin-1"))

    def get(self, name: str) -> str:
        return self.path(name).read_bytes().decode("latin-1")

    def tree(self, *, without: Sequence[str] = ()) -> dict[str, tuple[str, int, str]]:
        """Everything there is: kind, mode and content of each path."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            name = "/" + str(path.relative_to(self.root))
            if any(name.startswith(prefix) for prefix in without):
                continue
            if path.is_symlink():
                found[name] = ("link", 0, str(path.readlink()))
            elif path.is_dir():
                found[name] = ("folder", path.stat().st_mode & 0o7777, "")
            else:
                # The kernel ends a value with a line break, whatever was written.
                text = path.read_bytes().decode("latin-1")
                value = name.startswith(("/proc/", "/sys/"))
                text = " ".join(text.split()) if value else text
                found[name] = ("file", path.stat().st_mode & 0o7777, text)
        return found
