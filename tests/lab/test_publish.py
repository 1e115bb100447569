# SPDX-License-Identifier: GPL-2.0-only
"""A host and a signed repository: it takes what is signed, and nothing else."""

from __future__ import annotations

import contextlib
import functools
import http.server
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from fsdeploy import run
from fsdeploy.errors import ExitCode, FsdeployError
from fsdeploy.fleet.drive import FleetDriver
from fsdeploy.fleet.inventory import load_inventory
from fsdeploy.fleet.package import read_package
from fsdeploy.fleet.plan import Policy
from fsdeploy.fleet.rollout import RolloutRequest, rollout
from fsdeploy.fleet.states import State
from fsdeploy.fleet.why import why
from fsdeploy.kernel import build
from fsdeploy.kernel.identify import file_digest
from fsdeploy.lab import machine, network, qemu
from fsdeploy.repository.publish import PublishRequest, publish
from tests.keys import changed, keyring

pytestmark = [pytest.mark.lab, pytest.mark.build]

PORT = 8931  # on the host's own loopback

# Everything that an installation changes.
STATE = "rpm -qa | sort; find /boot /lib/modules -type f -exec md5sum {} + | sort -k 2"


@pytest.fixture(scope="module")
def patched_lts61() -> build.Build:
    return build.build_kernel(build.request("lts61", fragments=("lab",)))


@contextlib.contextmanager
def served(folder: Path, lab: machine.Lab) -> Iterator[str]:
    """The folder over HTTP, as seen from the host: through its SSH connection."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        way = f"{PORT}:127.0.0.1:{server.server_address[1]}"
        words = network.ssh_words(lab.ssh_config, lab.names[0], [])
        tunnel = [*words[:-1], "-N", "-o", "ExitOnForwardFailure=yes", "-R", way, words[-1]]
        with run.running(run.start(tunnel)) as process:
            url = f"http://127.0.0.1:{PORT}"
            deadline = time.monotonic() + qemu.scaled(60)
            while True:
                with contextlib.suppress(FsdeployError):
                    lab.command(f"curl -sSf {url}/repodata/repomd.xml >/dev/null")
                    break
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.2)
            yield url
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_host_takes_what_is_signed_and_nothing_else(
    lab_home: Path, stock_lts61: build.Build, patched_lts61: build.Build, tmp_path: Path
) -> None:
    assert lab_home.is_dir()
    with keyring() as keys, machine.lab([stock_lts61.kernel_rpm]) as lab:
        name = keys.make("fleet")
        published = publish(
            PublishRequest((patched_lts61.kernel_rpm,), name, tmp_path / "repository", keys.home)
        )
        good = published.path_of(published.added[0])
        mirror = tmp_path / "mirror"
        shutil.copytree(published.directory, mirror, symlinks=True)
        there = mirror / "Packages" / good.name

        # A second host, whose wave must not begin: it does not exist.
        hosts = yaml.safe_load(lab.inventory.read_text())
        for host in ("lab1", "lab2"):
            hosts["fleet"]["hosts"].setdefault(host, {"ansible_host": "192.0.2.1"})
            hosts["fleet"]["hosts"][host]["fsdeploy_class"] = "lab"
        inventory = lab.inventory.with_name("two.yml")
        inventory.write_text(yaml.safe_dump(hosts))

        before = lab.command(STATE)
        with served(mirror, lab) as url:
            asked = RolloutRequest(inventory, good, repository=url, policy=Policy(soak=0))
            for bad, reason in (
                (patched_lts61.kernel_rpm, "the package is not signed: rpm says: digests OK"),
                (
                    changed(good, tmp_path / "changed.rpm"),
                    "the package is damaged, or was changed after it was signed",
                ),
            ):
                there.unlink()
                shutil.copyfile(bad, there)
                report = rollout(asked)
                assert report.exit_code is ExitCode.CHECK_FAILED
                refused, later = report.hosts
                assert refused.state is State.ROLLED_BACK
                assert f"not installed: {reason}" in refused.reason
                assert reason in report.stopped
                assert (later.state, later.reason[:9]) == (State.PLANNED, "not begun")
                assert reason in why("lab1").sentence
                assert lab.command(STATE) == before

            # What comes over SSH is looked at in the same way.
            package = read_package(good)
            unsigned = replace(
                package,
                path=patched_lts61.kernel_rpm,
                sha256=file_digest(patched_lts61.kernel_rpm),
            )
            with FleetDriver(load_inventory(lab.inventory), package=unsigned) as driver:
                step = driver.stage(["lab1"])["lab1"]
            assert not step.ok
            assert step.message == "the package is not signed: rpm says: digests OK"
            assert lab.command(STATE) == before

            there.unlink()
            shutil.copyfile(good, there)
            with FleetDriver(
                load_inventory(lab.inventory), package=package, repository=url
            ) as driver:
                step = driver.stage(["lab1"])["lab1"]
                assert step.ok, step.message
                assert step.changed
                assert not driver.stage(["lab1"])["lab1"].changed
        assert lab.command("rpm -q kernel-fastsocket --qf '%{RSAHEADER:pgpsig}'").endswith(
            name[-16:].lower()
        )
        assert lab.command("rpm -qa gpg-pubkey").startswith(f"gpg-pubkey-{name[-8:].lower()}-")
        # Beside the running one, which is still what the host boots.
        assert lab.command("rpm -q kernel-stock").startswith("kernel-stock-")
        assert lab.command("ls /boot/vmlinuz-*").split() == sorted(
            f"/boot/vmlinuz-{kernel.release}" for kernel in (stock_lts61, patched_lts61)
        )
        loader = "cat /boot/grub/grub.conf | grep -A3 -m1 ^title"
        default = lab.command("grep ^default /boot/grub/grub.conf")
        assert default == "default=1" or stock_lts61.release in lab.command(loader)
        assert lab.command("ls /var/lib/fsdeploy/packages") == ""
