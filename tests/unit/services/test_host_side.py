"""Module and services put in place and taken back, on hosts in a folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fsdeploy.services.plan import Workload
from tests.unit.services.host_side import (
    KMOD,
    LIBRARY,
    PARAMETERS,
    Machine,
    choice_of,
    host_files,
    host_side,
    outcomes,
    package,
)

OPTIONS = "/etc/modprobe.d/fsdeploy-fastsocket.conf"
MODULE, SERVICE = "module", "service"
FOLDER = "/sys/module/fastsocket/parameters"

HOSTS: dict[str, dict[str, Any]] = {
    "el6": {"services": ("nginx", "haproxy", "lighttpd")},
    "epel": {"services": ("lighttpd",), "script": "epel"},
    "debian": {"services": ("nginx",), "script": "debian"},
    "systemd": {"services": ("nginx", "haproxy"), "systemd": True},
}


@pytest.mark.parametrize("name", HOSTS)
def test_there_and_back(tmp_path: Path, name: str) -> None:
    machine = Machine(tmp_path / "root", **HOSTS[name])
    # Files of others: one without an end of line, one that is not there, and /etc/modules.
    for service in HOSTS[name]["services"][:1]:
        for folder in ("sysconfig", "default"):
            machine.put(f"/etc/{folder}/{service}", "OPTIONS='-x'")
            machine.path(f"/etc/{folder}/{service}").chmod(0o640)
    if name == "debian":
        machine.put("/etc/modules", "# /etc/modules\nloop\n")
    before = machine.tree()

    choice = choice_of(tmp_path)
    results, changed = machine.apply(choice)
    assert changed
    assert set(outcomes(results).values()) <= {host_files.CHANGED, host_files.UNCHANGED}, results
    for service in HOSTS[name]["services"]:
        assert host_side.how_runs(machine.host, service) == host_side.UNDER
    assert machine.packages == [KMOD, LIBRARY]
    for path, wanted in machine.plan(choice).values.items():
        assert machine.get(path).strip() == wanted

    # The same again is no change, to no file, and nothing is run that changes anything.
    applied = machine.tree()
    machine.commands.clear()
    results, changed = machine.apply(choice)
    assert not changed, [item for item in results if item["outcome"] != host_files.UNCHANGED]
    assert machine.tree() == applied
    assert all("restart" not in words and "modprobe" not in words[0] for words in machine.commands)

    results, changed = machine.restore(SERVICE)
    assert changed
    for service in HOSTS[name]["services"]:
        assert host_side.how_runs(machine.host, service) == host_side.PLAIN
    assert machine.packages == [KMOD]
    machine.restore(MODULE)
    assert machine.packages == []
    assert machine.tree() == before
    for level in host_side.LEVELS:
        assert machine.restore(level) == ([], False)


def test_check_mode_says_the_same_and_changes_nothing(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root", ("nginx", "lighttpd"))
    before, choice = machine.tree(), choice_of(tmp_path)
    tried, changed = machine.apply(choice, check=True)
    assert changed
    assert machine.tree() == before
    done, _ = machine.apply(choice)
    # What the module gets by its own defaults is told as a change before and as none after.
    same = {item for item in outcomes(done) if not item.startswith(FOLDER)}
    assert {key: outcomes(tried)[key] for key in same} == {key: outcomes(done)[key] for key in same}
    assert set(outcomes(tried)) == set(outcomes(done))
    applied = machine.tree()
    for level in host_side.LEVELS:
        _, changed = machine.restore(level, check=True)
        assert changed
    assert machine.tree() == applied


def test_what_boots_the_module_on_each(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "el6")
    machine.apply(choice_of(tmp_path, workload=Workload.PROXY))
    script = machine.path("/etc/sysconfig/modules/fsdeploy-fastsocket.modules")
    # rc.sysinit runs those that are executable.
    assert script.stat().st_mode & 0o777 == 0o755
    assert "/sbin/modprobe -q fastsocket" in script.read_text()
    assert "\noptions fastsocket enable_listen_spawn=2 " in machine.get(OPTIONS)
    assert "enable_receive_flow_deliver=1" in machine.get(OPTIONS)
    assert 'export LD_PRELOAD="/usr/lib64/libfsocket.so$' in machine.get("/etc/sysconfig/nginx")

    machine = Machine(tmp_path / "systemd", systemd=True)
    machine.apply(choice_of(tmp_path))
    assert machine.get("/etc/modules-load.d/fsdeploy-fastsocket.conf").endswith("\nfastsocket\n")
    drop_in = machine.get("/etc/systemd/system/nginx.service.d/50-fsdeploy.conf")
    assert "[Service]\nEnvironment=LD_PRELOAD=/usr/lib64/libfsocket.so\n" in drop_in
    assert ["systemctl", "daemon-reload"] in machine.commands

    machine = Machine(tmp_path / "debian", script="debian")
    machine.apply(choice_of(tmp_path))
    assert "\nfastsocket\n" in machine.get("/etc/modules")
    assert "LD_PRELOAD" in machine.get("/etc/default/nginx")


def test_a_module_that_was_loaded_keeps_its_old_values(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")
    machine.packages.append(KMOD)
    machine._change(KMOD, there=True)
    machine._load()
    machine.put(f"{FOLDER}/enable_listen_spawn", "1\n")
    before = machine.tree()
    machine.apply(choice_of(tmp_path, workload=Workload.PROXY))
    assert machine.get(f"{FOLDER}/enable_listen_spawn") == "2\n"
    # A second workload does not make the first one's values those of before.
    machine.apply(choice_of(tmp_path))
    machine.restore(SERVICE)
    results, _ = machine.restore(MODULE)
    assert not [item for item in results if item["kind"] == MODULE]
    assert machine.tree() == before


def test_a_module_in_use_stays_and_is_switched_off(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")
    before = machine.tree()
    machine.apply(choice_of(tmp_path))
    results, _ = machine.restore(MODULE)
    (told,) = [item for item in results if item["kind"] == MODULE]
    assert told["outcome"] == host_files.CANNOT
    assert told["reason"].startswith("in use by nginx (10")
    assert host_side.left(results) == ""
    assert machine.get(f"{FOLDER}/enable_listen_spawn") == "0\n"
    assert machine.get(f"{FOLDER}/enable_fastsocket_debug") == "3\n"
    # Nothing loads it again, its package stays as long as it is loaded.
    assert not machine.path(OPTIONS).exists()
    assert machine.packages == [KMOD, LIBRARY]
    # What somebody writes there meanwhile is theirs.
    machine.put(OPTIONS, "# mine\n")
    machine.restore(SERVICE)
    machine.restore(MODULE)
    assert machine.packages == []
    assert machine.get(OPTIONS) == "# mine\n"
    machine.path(OPTIONS).unlink()
    assert machine.tree() == before


def test_a_module_in_use_is_tried_again_where_its_package_is_not_ours(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")
    machine.packages.append(KMOD)
    machine._change(KMOD, there=True)
    before = machine.tree()
    machine.apply(choice_of(tmp_path))
    machine.restore(MODULE)
    machine.restore(SERVICE)
    assert machine.path("/sys/module/fastsocket").exists()
    machine.restore(MODULE)
    assert machine.packages == [KMOD]
    assert machine.tree() == before


def test_a_service_that_does_not_start_with_it_is_taken_back(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root", ("nginx", "lighttpd"))
    machine.breaks.add("nginx")
    results, _ = machine.apply(choice_of(tmp_path))
    (told,) = [item for item in results if item["target"] == "nginx"]
    assert told["outcome"] == host_files.CANNOT
    assert "not running: nginx: it did not like that; taken back" in told["reason"]
    assert host_side.how_runs(machine.host, "nginx") == host_side.PLAIN
    assert not machine.path("/etc/sysconfig/nginx").exists()
    # The other one has it, and both are restored.
    assert host_side.how_runs(machine.host, "lighttpd") == host_side.UNDER
    machine.restore(SERVICE)
    assert not machine.path("/etc/sysconfig/lighttpd").exists()


def test_a_service_whose_script_hands_nothing_on_is_told(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")
    machine.ignores.add("nginx")
    results, _ = machine.apply(choice_of(tmp_path))
    assert "without libfsocket" in host_side.stuck(results)
    assert not machine.path("/etc/sysconfig/nginx").exists()
    assert "SELinux" not in host_side.stuck(results)
    # One restart: it runs as it ran before.
    assert sum(words[-1] == "restart" for words in machine.commands) == 1


def test_selinux_is_named_where_it_enforces(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")
    machine.put("/selinux/enforce", "1")
    machine.ignores.add("nginx")
    results, _ = machine.apply(choice_of(tmp_path))
    assert "SELinux enforces" in host_side.stuck(results)


def test_a_service_that_is_off_stays_off(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")
    machine.stop("nginx")
    results, _ = machine.apply(choice_of(tmp_path))
    (told,) = [item for item in results if item["kind"] == "service"]
    assert (told["after"], told["outcome"]) == (host_side.STOPPED, host_files.UNCHANGED)
    assert "LD_PRELOAD" in machine.get("/etc/sysconfig/nginx")


def test_a_service_that_a_later_plan_leaves_out_is_taken_back(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root", ("nginx", "haproxy"))
    machine.apply(choice_of(tmp_path))
    _, changed = machine.apply(choice_of(tmp_path, services=("nginx",)))
    assert changed
    assert host_side.how_runs(machine.host, "haproxy") == host_side.PLAIN
    assert host_side.how_runs(machine.host, "nginx") == host_side.UNDER
    assert not machine.path("/etc/sysconfig/haproxy").exists()
    assert not machine.apply(choice_of(tmp_path, services=("nginx",)))[1]


def test_other_edits_of_a_file_stay(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")
    machine.put("/etc/sysconfig/nginx", "A=1\n")
    machine.apply(choice_of(tmp_path))
    machine.put("/etc/sysconfig/nginx", machine.get("/etc/sysconfig/nginx") + "B=2\n")
    machine.restore(SERVICE)
    assert machine.get("/etc/sysconfig/nginx") == "A=1\nB=2\n"


def test_a_newer_library_restarts_the_services(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")
    machine.apply(choice_of(tmp_path))
    for path in machine.path("/proc").glob("1*/maps"):
        path.write_text(path.read_text().replace(".so\n", ".so (deleted)\n"))
    newer = LIBRARY.replace("0.1.0", "0.2.0")
    results, _ = machine.apply(choice_of(tmp_path, library=package(tmp_path, newer)))
    (told,) = [item for item in results if item["kind"] == "service"]
    assert (told["before"], told["outcome"]) == (host_side.OLD, host_files.CHANGED)
    assert machine.packages == [KMOD, newer]
    # Both were ours: nothing is there in the end.
    machine.restore(SERVICE)
    assert machine.packages == [KMOD]


def test_a_library_that_was_there_is_not_removed(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")
    theirs = LIBRARY.replace("0.1.0", "0.0.9")
    machine.packages.append(theirs)
    machine.put(host_side.LIBRARY, "")
    machine.apply(choice_of(tmp_path))
    results, _ = machine.restore(SERVICE)
    (told,) = [item for item in results if item["kind"] == "package"]
    assert told["reason"] == f"{theirs} was there before it and is not at hand"
    assert host_side.left(results) == ""
    # That is all that can be said: it is not remembered for ever.
    assert not machine.path(host_side.before_of(SERVICE)).exists()


def test_a_library_in_use_by_others_stays(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")
    machine.apply(choice_of(tmp_path))
    machine.start("httpd", under=True)
    results, _ = machine.restore(SERVICE)
    assert "in use by httpd" in outcome_reasons(results)[LIBRARY.split("-")[0]]
    assert LIBRARY in machine.packages
    machine.stop("httpd")
    machine.restore(SERVICE)
    assert LIBRARY not in machine.packages


def outcome_reasons(results: list[dict[str, Any]]) -> dict[str, str]:
    return {result["target"]: result["reason"] for result in results}


def test_a_damaged_package_stops_the_level_and_the_next(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")
    choice = choice_of(tmp_path)
    assert choice.module
    Path(choice.module.path).write_text("half")
    results, _ = machine.apply(choice)
    assert "arrived damaged" in host_side.stuck(results)
    assert len(results) == 1
    assert not machine.path(OPTIONS).exists()
    assert host_side.how_runs(machine.host, "nginx") == host_side.PLAIN
    # Nothing of it is left on the host when it is taken back.
    machine.restore(MODULE)
    assert not machine.path("/var/lib/fsdeploy").exists()


def test_a_package_that_is_not_signed_with_the_key_is_refused(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")
    plain = choice_of(tmp_path)
    assert plain.module
    assert plain.library
    choice = choice_of(
        tmp_path,
        module=replace(plain.module, key="the public key"),
        library=replace(plain.library, key="the public key"),
    )
    machine.signature = "sha1 md5 OK"
    results, _ = machine.apply(choice)
    assert "the package is not signed: rpm says: sha1 md5 OK" in host_side.stuck(results)
    assert machine.packages == []
    assert not machine.path(OPTIONS).exists()
    assert ["rpm", "--import"] not in [words[:2] for words in machine.commands]
    machine.signature = "digests signatures OK"
    results, _ = machine.apply(choice)
    assert host_side.stuck(results) == ""
    assert machine.packages == [KMOD, LIBRARY]
    assert ["rpm", "--import"] in [words[:2] for words in machine.commands]


def test_a_module_that_does_not_load_is_told(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")
    machine.packages += [KMOD, LIBRARY]
    machine.put(host_side.LIBRARY, "")
    results, _ = machine.apply(choice_of(tmp_path))
    assert host_side.stuck(results) == "fastsocket: FATAL: Module fastsocket not found."
    assert host_side.how_runs(machine.host, "nginx") == host_side.PLAIN


def test_a_parameter_that_the_module_lacks_is_told(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")
    document = machine.plan(choice_of(tmp_path)).as_dict()
    machine.packages += [KMOD, LIBRARY]
    machine.put(host_side.LIBRARY, "")
    machine._change(KMOD, there=True)
    document["values"].append({"kind": "value", "target": f"{FOLDER}/none", "value": "1"})
    results, _ = host_side.apply_plan(machine.host, document, "/nowhere")
    assert host_side.stuck(results) == f"{FOLDER}/none: {FOLDER}/none is not there"


@pytest.mark.parametrize("systemd", [False, True], ids=["el6", "systemd"])
def test_a_kernel_with_receive_flow_deliver_alone(tmp_path: Path, systemd: bool) -> None:
    machine = Machine(tmp_path / "root", rfd="0", systemd=systemd)
    before = machine.tree()
    results, changed = machine.apply(choice_of(tmp_path, workload=Workload.PROXY))
    assert changed
    assert machine.get(host_side.RFD).strip() == "1"
    assert {item["kind"] for item in results} == {"file", "value"}
    assert machine.packages == []
    assert host_side.how_runs(machine.host, "nginx") == host_side.PLAIN
    kept = "/etc/tmpfiles.d/fsdeploy-rfd.conf" if systemd else "/etc/sysconfig/modules"
    assert machine.path(kept).exists()
    assert not machine.apply(choice_of(tmp_path, workload=Workload.PROXY))[1]
    assert machine.restore(SERVICE) == ([], False)
    machine.restore(MODULE)
    assert machine.tree() == before


def test_a_host_that_boots_the_other_kernel(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")
    before = machine.tree()
    machine.apply(choice_of(tmp_path))
    # Linux 6.1: its packages are there still, the module is not.
    machine.stop("nginx")
    machine._unload("fastsocket")
    machine.put("/proc/sys/kernel/osrelease", "6.1.192-fs1.0123abcd\n")
    machine.put(host_side.RFD, "0\n")
    machine.apply(choice_of(tmp_path, workload=Workload.PROXY))
    assert machine.get(host_side.RFD) == "1\n"
    assert not machine.path(OPTIONS).exists()
    assert not machine.path("/etc/sysconfig/nginx").exists()
    for level in (SERVICE, MODULE):
        machine.restore(level)
    assert machine.get(host_side.RFD) == "0\n"
    assert machine.packages == []
    assert {path for path in machine.tree() if path.startswith(("/etc", "/var"))} == {
        path for path in before if path.startswith(("/etc", "/var"))
    }


def test_what_a_host_says_of_itself(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root", ("nginx", "haproxy"), script="bare")
    machine.put(
        "/etc/nginx/nginx.conf",
        "env PATH;\n  env LD_PRELOAD; # ours\nevents { accept_mutex off; }\n# accept_mutex on;\n",
    )
    machine.put("/etc/haproxy/haproxy.cfg", "global\n    password secret\n    noreuseport\n")
    before = machine.tree()
    view = machine.view()
    assert view.services["nginx"].file == ""
    assert view.services["nginx"].runs == host_side.PLAIN
    # No line that does not matter leaves the host.
    assert view.words == {
        "nginx": ("env LD_PRELOAD;", "events { accept_mutex off; }"),
        "haproxy": ("noreuseport",),
    }
    assert (view.available, view.loaded, view.library) == (False, False, False)
    machine._change(KMOD, there=True)
    machine._load()
    view = machine.view()
    assert (view.available, view.loaded) == (True, True)
    assert view.parameters == PARAMETERS
    machine._unload("fastsocket")
    machine._change(KMOD, there=False)
    assert machine.tree() == before


def test_who_has_the_device_open_is_a_user(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root", ())
    machine.start("own-program", count=1)
    machine.path("/proc/100/fd").mkdir()
    machine.path("/proc/100/fd/3").symlink_to("/dev/fastsocket")
    assert host_side.users(machine.host) == ["own-program (100)"]


def test_a_service_half_of_which_runs_under_it_is_restarted(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")
    machine.apply(choice_of(tmp_path))
    machine.start("nginx")
    assert host_side.how_runs(machine.host, "nginx") == host_side.MIXED
    assert machine.apply(choice_of(tmp_path))[1]
    assert host_side.how_runs(machine.host, "nginx") == host_side.UNDER


def test_a_record_is_for_root_only_and_a_damaged_one_stops_everything(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "root")
    machine.apply(choice_of(tmp_path))
    path = host_side.before_of(SERVICE)
    assert machine.path(path).stat().st_mode & 0o777 == 0o600
    assert json.loads(machine.get(path))["services"] == {"nginx": "/etc/sysconfig/nginx"}
    machine.put(path, "{")
    applied = machine.tree()
    with pytest.raises(host_files.Failed, match=r"before\.json is damaged"):
        machine.restore(SERVICE)
    assert machine.tree() == applied
