# SPDX-License-Identifier: GPL-2.0-only
"""The module and a service under libfsocket on an el6 lab host: put there, kept, taken back."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fsdeploy.errors import ExitCode
from fsdeploy.fleet import services
from fsdeploy.fleet.rollback import Level, RollbackOutcome, RollbackRequest
from fsdeploy.fleet.unserve import rollback_services
from fsdeploy.fleet.verify import VerifyRequest, verify_hosts
from fsdeploy.kernel import build, library
from fsdeploy.lab import machine
from fsdeploy.repository.publish import PublishRequest, publish
from fsdeploy.services.plan import Choice, Workload
from fsdeploy.verify.report import Outcome
from tests.keys import keyring
from tests.lab.test_tuning import reboot

pytestmark = [pytest.mark.lab, pytest.mark.build, pytest.mark.el6]

HERE = Path(__file__).parent
NAME = "lighttpd"
PARAMETERS = "/sys/module/fastsocket/parameters"

# Everything that may be touched: names, modes and contents.
FILES = (
    "set -- /etc /usr/lib64 /usr/share/fsdeploy /lib/modules /var/lib/fsdeploy; {"
    " find $* -printf '%p %y %m %l\\n'; find $* -type f -exec md5sum {} +; ls /usr/bin /usr/sbin;"
    " } 2>/dev/null | grep -v -e /etc/mtab -e /etc/adjtime -e /etc/ld.so.cache | sort"
)


def put(lab: machine.Lab, path: str, data: bytes, mode: str) -> None:
    text = base64.b64encode(data).decode("ascii")
    lab.command(f"echo {text} | base64 -d >{path} && chmod {mode} {path}")


@pytest.fixture
def lab(lab_home: Path, patched_el6: build.Build) -> Iterator[machine.Lab]:
    """A host on the patched kernel, with a service named as one that fsdeploy knows."""
    assert lab_home.is_dir()
    with machine.lab([patched_el6.kernel_rpm]) as up:
        # Of its own, for when the host's is broken.
        up.command("cp /usr/bin/python2.7 /usr/local/bin/serving-python")
        put(up, f"/usr/sbin/{NAME}", (HERE / "serve.python2").read_bytes(), "755")
        put(up, f"/etc/init.d/{NAME}", (HERE / "serve_init").read_bytes(), "755")
        put(up, f"/etc/sysconfig/{NAME}", b'LIGHTTPD_CONF_PATH="/etc/lighttpd.conf"', "640")
        up.command(f"ln -s ../init.d/{NAME} /etc/rc3.d/S85{NAME}; /etc/init.d/{NAME} start")
        yield up


def attempt(lab: machine.Lab, choice: Choice) -> services.ServicesOutcome:
    (host,) = services.apply(services.ServicesRequest(lab.inventory, choice)).hosts
    return host


def apply(lab: machine.Lab, choice: Choice) -> services.ServicesOutcome:
    host = attempt(lab, choice)
    assert host.ok, host.reason
    return host


def packages_of(lab: machine.Lab) -> list[str]:
    """What is installed; the public key that came with the packages is kept."""
    return lab.command("rpm -qa | grep -v ^gpg-pubkey | sort").splitlines()


def take_back(lab: machine.Lab, level: Level, *, plain: bool = False) -> RollbackOutcome:
    report = rollback_services(RollbackRequest(lab.inventory, plain_ssh=plain), level)
    (host,) = report.hosts
    assert report.exit_code is ExitCode.OK, host.reason
    return host


def checks(lab: machine.Lab) -> dict[str, Outcome]:
    """The checks of module and services, of which none may have failed."""
    (report,) = verify_hosts(VerifyRequest(lab.inventory)).hosts
    mine = [item for item in report.checks if item.name.startswith(("module_", "services_"))]
    assert [item.message for item in mine if item.outcome is Outcome.FAILED] == []
    return {item.name: item.outcome for item in mine}


def mapped(lab: machine.Lab) -> list[str]:
    """Names of processes that have the library mapped."""
    return lab.command(
        "for d in /proc/[0-9]*; do grep -q libfsocket $d/maps 2>/dev/null &&"
        " sed -n 's/^Name:.//p' $d/status; done; :"
    ).split()


def test_module_and_service_there_and_back(
    lab: machine.Lab, patched_el6: build.Build, tmp_path: Path
) -> None:
    (module,) = patched_el6.module_rpms
    shared = library.build_library().rpm
    with keyring() as keys:
        name = keys.make("fleet")
        published = publish(PublishRequest((module, shared), name, tmp_path / "r", keys.home))
    signed = {path.name: path for path in map(published.path_of, published.added)}
    choice = Choice(
        Workload.PROXY,
        module=services.read_package(signed[module.name]),
        library=services.read_package(signed[shared.name]),
    )
    files, packages = lab.command(FILES), packages_of(lab)
    assert mapped(lab) == []

    # Not signed, though the control machine did not see it.
    assert choice.module
    unsigned = replace(services.read_package(module), key=choice.module.key)
    refused = attempt(lab, replace(choice, module=unsigned))
    assert not refused.ok
    assert "the package is not signed: rpm says: digests OK" in refused.reason
    assert packages_of(lab) == packages

    done = apply(lab, choice)
    assert [item.target for item in done.items if item.reason] == []
    assert mapped(lab) == [NAME] * 3
    assert lab.command(f"cat {PARAMETERS}/enable_receive_flow_deliver") == "1"
    assert not apply(lab, choice).changed

    # At the next boot by itself.
    reboot(lab)
    seen = checks(lab)
    for name in ("loaded", "parameters", "kept", "device", "counters"):
        assert seen[f"module_{name}"] is Outcome.PASSED
    for name in ("preloaded", "kept", "served"):
        assert seen[f"services_{name}"] is Outcome.PASSED

    # In use: told, and no failure. Then by the other level, and again.
    back = take_back(lab, Level.MODULE)
    assert f"fastsocket, in use by {NAME}" in back.reason
    assert lab.command(f"cat {PARAMETERS}/enable_listen_spawn") == "0"
    take_back(lab, Level.SERVICE)
    assert mapped(lab) == []
    assert "unloaded" in take_back(lab, Level.MODULE).reason
    assert lab.command("grep -c ^fastsocket /proc/modules || :") == "0"
    assert lab.command(FILES) == files
    assert packages_of(lab) == packages

    # As on a host whose Python is broken.
    assert apply(lab, choice).changed
    assert mapped(lab) == [NAME] * 3
    lab.command("chmod 0 /usr/bin/python2.7")
    take_back(lab, Level.SERVICE, plain=True)
    assert mapped(lab) == []
    assert "unloaded" in take_back(lab, Level.MODULE, plain=True).reason
    lab.command("chmod 755 /usr/bin/python2.7")
    assert lab.command("grep -c ^fastsocket /proc/modules || :") == "0"
    assert lab.command(FILES) == files
    assert packages_of(lab) == packages
