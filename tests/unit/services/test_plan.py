"""What is planned for a host, and what is only proposed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fsdeploy.errors import FsdeployError
from fsdeploy.services.host import HostView, Service, view_from
from fsdeploy.services.plan import (
    OPTIONS_FILE,
    Choice,
    Level,
    Workload,
    parameters_for,
    parse_parameters,
    plan_services,
)
from tests.unit.services.host_side import KMOD, LIBRARY, RELEASE, choice_of, package

NGINX = Service("nginx", False, "/etc/sysconfig/nginx", "without libfsocket")
HOST = HostView(
    release=RELEASE,
    systemd=False,
    sysconfig=True,
    available=True,
    loaded=False,
    parameters={},
    rfd="",
    packages={"kmod-fastsocket": (KMOD,), "libfsocket": (LIBRARY,)},
    library=True,
    services={"nginx": NGINX},
    words={"nginx": ()},
)


def test_the_workload_decides_about_receive_flow_deliver() -> None:
    web = parameters_for(Choice())
    assert web == {
        "enable_listen_spawn": "2",
        "enable_local_established": "0",
        "enable_receive_flow_deliver": "0",
        "enable_fast_epoll": "1",
    }
    proxy = parameters_for(Choice(Workload.PROXY))
    assert proxy == {**web, "enable_receive_flow_deliver": "1"}
    asked = Choice(Workload.PROXY, parse_parameters(["enable_receive_flow_deliver=0"]))
    assert parameters_for(asked) == web


@pytest.mark.parametrize(
    "word", ["enable_listen_spawn=3", "enable_listen_spawn", "enable_skb_pool=1", "=", ""]
)
def test_parameters_that_there_are_not(word: str) -> None:
    with pytest.raises(FsdeployError, match="there is no such setting") as problem:
        parse_parameters([word])
    assert "enable_listen_spawn=0|1|2" in problem.value.hint


def test_what_is_installed_is_not_installed_again(tmp_path: Path) -> None:
    assert plan_services(HOST, choice_of(tmp_path)).packages == ()
    bare = replace(HOST, packages={}, available=False, library=False)
    plan = plan_services(bare, choice_of(tmp_path))
    assert [(level, item.nevra) for level, item in plan.packages] == [
        (Level.MODULE, KMOD),
        (Level.SERVICE, LIBRARY),
    ]
    # The module's stands beside that of another kernel, the library's takes the other's place.
    assert [item["beside"] for item in plan.as_dict()["packages"]] == [True, False]


def test_a_module_for_another_kernel(tmp_path: Path) -> None:
    other = package(tmp_path, KMOD.replace("0123abcd", "99999999"), "2.6.32-other")
    with pytest.raises(FsdeployError, match=r"is for 2\.6\.32-other, the host runs 2\.6\.32-431"):
        plan_services(HOST, Choice(module=other))


def test_what_is_missing_is_said() -> None:
    with pytest.raises(FsdeployError, match="has no Fastsocket module") as problem:
        plan_services(replace(HOST, available=False), Choice())
    assert "--module-rpm" in problem.value.hint
    with pytest.raises(FsdeployError, match=r"libfsocket\.so is not on the host") as problem:
        plan_services(replace(HOST, library=False), Choice())
    assert "--library" in problem.value.hint
    with pytest.raises(FsdeployError, match="haproxy is not installed"):
        plan_services(HOST, Choice(services=("haproxy",)))


def test_no_library_is_needed_where_no_service_is() -> None:
    plan = plan_services(replace(HOST, services={}, library=False), Choice())
    assert plan.module == "fastsocket"
    assert plan.services == {}
    assert "no service uses the module" in plan.notes[0]


def test_a_script_that_reads_no_file_of_its_own_is_told() -> None:
    plan = plan_services(replace(HOST, services={"nginx": replace(NGINX, file="")}), Choice())
    assert plan.services == {}
    assert "start nginx by fsocket-run" in plan.notes[0]
    assert {item["path"] for item in plan.files} == {
        OPTIONS_FILE,
        "/etc/sysconfig/modules/fsdeploy-fastsocket.modules",
    }


def test_a_kernel_with_receive_flow_deliver_alone(tmp_path: Path) -> None:
    lts61 = replace(
        HOST, release="6.1.192-fs1.0123abcd", available=False, rfd="0", packages={}, library=False
    )
    # A fleet has both kernels: the packages are for the other hosts.
    for choice in (Choice(Workload.PROXY), choice_of(tmp_path, workload=Workload.PROXY)):
        plan = plan_services(lts61, choice)
        assert list(plan.values.values()) == ["1"]
        assert (plan.module, plan.services, plan.packages) == ("", {}, ())
        assert "no Fastsocket module: that switch is all that is set" in plan.notes[0]
    plan = plan_services(replace(lts61, sysconfig=False), Choice())
    assert plan.files == ()
    assert plan.notes[-1] == "nothing on this host sets it again at the next boot"


def test_what_is_proposed_is_what_is_not_there() -> None:
    both = replace(
        HOST,
        services={
            "nginx": NGINX,
            "haproxy": Service("haproxy", False, "/etc/sysconfig/haproxy", ""),
        },
    )
    proposals = plan_services(both, Choice()).proposals
    assert [text.split(" in ")[0].split(" at ")[0] for text in proposals] == [
        "nginx.conf: accept_mutex off;",
        "nginx.conf: env LD_PRELOAD;",
        "haproxy.cfg: noreuseport",
    ]
    done = {
        "nginx": ("events { accept_mutex  off; }", "env LD_PRELOAD;"),
        "haproxy": ("noreuseport",),
    }
    assert plan_services(replace(both, words=done), Choice()).proposals == ()
    # Said of services that get the library only.
    assert len(plan_services(both, Choice(services=("haproxy",))).proposals) == 1


def test_what_is_no_host() -> None:
    for document in ({"format": 2}, {"format": 1}, {"format": 1, "release": "x", "services": 3}):
        with pytest.raises(FsdeployError):
            view_from(document, "web1")
