"""The host's side of module and services on hosts in a folder, whose programs are played here."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fsdeploy.services.host import HostView, view_from
from fsdeploy.services.plan import Choice, Package, Plan, plan_services
from tests.unit.playbooks.host import host_module

host_files = host_module("fsdeploy_files")
host_rpm = host_module("fsdeploy_rpm")
host_side = host_module("fsdeploy_services")

RELEASE = "2.6.32-431.el6.fs1.0123abcd.x86_64"
KMOD = f"kmod-fastsocket-{RELEASE}"
LIBRARY = "libfsocket-0.1.0-1.0123abcd.x86_64"
PARAMETERS = {
    "enable_fastsocket_debug": "3",
    "enable_fast_epoll": "1",
    "enable_listen_spawn": "2",
    "enable_local_established": "0",
    "enable_receive_flow_deliver": "0",
}
DEVICE = "/dev/fastsocket"
FOLDER = "/var/lib/fsdeploy/packages"

# How a service's script takes its environment, as CentOS 6, EPEL, Debian and nobody writes it.
SCRIPTS = {
    "el6": '#!/bin/sh\n. /etc/sysconfig/network\n[ -f /etc/sysconfig/$prog ] && . "x"\n',
    "epel": '#!/bin/sh\n. /etc/sysconfig/network\nsysconfig="/etc/sysconfig/$prog"\n',
    "debian": "#!/bin/sh\nif [ -r /etc/default/%s ]; then . /etc/default/%s; fi\n",
    "bare": "#!/bin/sh\n. /etc/sysconfig/network\n",
}


class Machine:
    """A host in a folder. Its services and its module are files below /proc and /sys."""

    def __init__(
        self,
        root: Path,
        services: Sequence[str] = ("nginx",),
        *,
        systemd: bool = False,
        script: str = "el6",
        rfd: str = "",
    ) -> None:
        self.root = root
        self.systemd = systemd
        self.commands: list[list[str]] = []
        # Packages that are installed, and how often something opens the device.
        self.packages: list[str] = []
        self.busy = False
        self.ignores: set[str] = set()  # services that take no library
        self.breaks: set[str] = set()  # services that do not start with it
        self.signature = "digests signatures OK"  # what rpm -K says with a key of ours only
        self.next_pid = 100
        for folder in (
            "/etc/init.d",
            "/etc/modprobe.d",
            "/var/lib",
            "/sys/module",
            "/dev",
            "/usr/lib64",
        ):
            self.path(folder).mkdir(parents=True, exist_ok=True)
        if script != "debian":
            self.path("/etc/sysconfig").mkdir()
        if systemd:
            self.path("/run/systemd/system").mkdir(parents=True)
        self.put("/proc/sys/kernel/osrelease", f"{RELEASE}\n")
        self.put(f"/lib/modules/{RELEASE}/modules.dep", "kernel/net/ipv6/ipv6.ko:\n")
        if rfd:
            self.put(host_side.RFD, f"{rfd}\n")
        for name in services:
            if systemd:
                self.put(f"/usr/lib/systemd/system/{name}.service", "")
            else:
                self.put(f"/etc/init.d/{name}", SCRIPTS[script].replace("%s", name))
            self.start(name)
        self.host = host_side.Host(str(root), ask=self.ask)

    # What the host's programs do

    def ask(self, words: Sequence[str]) -> tuple[int, str]:
        self.commands.append(list(words))
        program, *rest = words
        if program == "rpm":
            return self._rpm(rest)
        if program == "/sbin/modprobe":
            return self._load()
        if program == "/sbin/rmmod":
            return self._unload(rest[0])
        if program == "systemctl" and rest[0] == "restart":
            return self._restart(rest[1])
        if program == "/usr/bin/env" and rest[-1] == "restart":
            return self._restart(rest[-2].rsplit("/", 1)[-1])
        return 0, ""

    def _rpm(self, words: Sequence[str]) -> tuple[int, str]:
        if words[0] == "--dbpath":
            return 0, f"{words[-1]}: {self.signature}\n" if "-K" in words else "gpg-pubkey-1-1\n"
        if words[0] == "-q":
            found = [item for item in self.packages if item.startswith(words[-1])]
            return (0, "".join(f"{item}\n" for item in found)) if found else (1, "")
        if words[0] == "-e":
            self.packages.remove(words[1])
            self._change(words[1], there=False)
        elif words[0] in ("-i", "-U") and "--test" not in words:
            nevra = Path(words[-1]).name.removesuffix(".rpm")
            if words[0] == "-U":
                name = nevra.split("-")[0]
                self.packages = [item for item in self.packages if not item.startswith(name)]
            self.packages.append(nevra)
            self._change(nevra, there=True)
        return 0, ""

    def _change(self, nevra: str, *, there: bool) -> None:
        if nevra.startswith("kmod"):
            line = "extra/fastsocket/fastsocket.ko:\n" if there else ""
            self.put(f"/lib/modules/{RELEASE}/modules.dep", "kernel/net/ipv6/ipv6.ko:\n" + line)
        elif there:
            self.put(host_side.LIBRARY, "")
        else:
            self.path(host_side.LIBRARY).unlink()

    def _load(self) -> tuple[int, str]:
        if "fastsocket.ko" not in self.get(f"/lib/modules/{RELEASE}/modules.dep"):
            return 1, "FATAL: Module fastsocket not found.\n"
        options = self.path("/etc/modprobe.d/fsdeploy-fastsocket.conf")
        words = options.read_text().split() if options.exists() else []
        given = dict(word.split("=") for word in words if "=" in word)
        for name, value in {**PARAMETERS, **given}.items():
            self.put(f"/sys/module/fastsocket/parameters/{name}", f"{value}\n")
        self.put(DEVICE, "")
        return 0, ""

    def _unload(self, module: str) -> tuple[int, str]:
        if self.busy or host_side.users(self.host):
            return 1, f"ERROR: Module {module} is in use\n"
        for name in PARAMETERS:
            self.path(f"/sys/module/{module}/parameters/{name}").unlink()
        self.path(f"/sys/module/{module}/parameters").rmdir()
        self.path(f"/sys/module/{module}").rmdir()
        self.path(DEVICE).unlink()
        return 0, ""

    def _restart(self, name: str) -> tuple[int, str]:
        self.stop(name)
        under = "libfsocket" in self.environment(name)
        if name in self.breaks and under:
            return 1, f"{name}: it did not like that\n"
        self.start(name, under=under and name not in self.ignores)
        return 0, ""

    def environment(self, name: str) -> str:
        """What the service's script, or its unit, would take from its files."""
        files = [
            f"/etc/systemd/system/{name}.service.d/50-fsdeploy.conf",
            f"/etc/sysconfig/{name}",
            f"/etc/default/{name}",
        ]
        return "".join(self.get(path) for path in files if self.path(path).exists())

    # Processes

    def start(self, name: str, *, under: bool = False, count: int = 2) -> None:
        library = f"7f00-7f01 r-xp 0 fe:01 7   {host_side.LIBRARY}\n" if under else ""
        for _ in range(count):
            folder = f"/proc/{self.next_pid}"
            self.put(f"{folder}/status", f"Name:\t{name}\nState:\tS (sleeping)\n")
            self.put(f"{folder}/maps", f"0040-0041 r-xp 0 fe:01 5   /usr/sbin/{name}\n{library}")
            self.next_pid += 1

    def stop(self, name: str) -> None:
        for path in self.path("/proc").glob("[0-9]*"):
            if f"Name:\t{name}\n" in (path / "status").read_text():
                shutil.rmtree(path)

    # Its files

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def put(self, name: str, text: str) -> None:
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("latin-1"))

    def get(self, name: str) -> str:
        return self.path(name).read_bytes().decode("latin-1")

    def tree(self) -> dict[str, tuple[str, int, str]]:
        """Everything there is but processes: kind, mode and content of each path."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            name = "/" + str(path.relative_to(self.root))
            if name.startswith("/proc/1"):
                continue
            if path.is_dir():
                found[name] = ("folder", path.stat().st_mode & 0o7777, "")
            else:
                text = path.read_bytes().decode("latin-1")
                found[name] = ("file", path.stat().st_mode & 0o7777, text)
        return found

    # Planning and doing

    def view(self) -> HostView:
        return view_from(host_side.collect(self.host), "the host in a folder")

    def plan(self, choice: Choice) -> Plan:
        return plan_services(self.view(), choice)

    def apply(self, choice: Choice, *, check: bool = False) -> tuple[list[dict[str, Any]], bool]:
        """What the role does: the packages are copied, the host module runs."""
        document = self.plan(choice).as_dict()
        for item in document["packages"] if not check else ():
            copied = f"{FOLDER}/{Path(item['file']).name}"
            self.put(copied, Path(item["file"]).read_text())
        results, changed = host_side.apply_plan(self.host, document, FOLDER, check)
        return results, changed

    def restore(self, level: str, *, check: bool = False) -> tuple[list[dict[str, Any]], bool]:
        results, changed = host_side.restore(self.host, level, check)
        return results, changed


def package(folder: Path, nevra: str, release: str = "") -> Package:
    """A package on the control machine; what is in it is the machine's business."""
    path = folder / f"{nevra}.rpm"
    path.write_text(nevra)
    name = "kmod-fastsocket" if nevra.startswith("kmod") else "libfsocket"
    return Package(str(path), name, nevra, hashlib.sha256(nevra.encode()).hexdigest(), release)


def choice_of(folder: Path, **values: Any) -> Choice:
    """What an operator gives who has both packages."""
    module, library = package(folder, KMOD, RELEASE), package(folder, LIBRARY)
    return Choice(**{"module": module, "library": library, **values})


def outcomes(results: Sequence[dict[str, Any]]) -> dict[str, str]:
    return {result["target"]: result["outcome"] for result in results}
