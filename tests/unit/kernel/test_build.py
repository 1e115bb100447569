# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import gzip
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fsdeploy import paths, run
from fsdeploy.errors import CheckFailed, FsdeployError
from fsdeploy.kernel import build, package, store
from fsdeploy.kernel import source as sources
from fsdeploy.kernel import target as targets
from fsdeploy.kernel.build import BuildRequest
from fsdeploy.kernel.target import Target

from .conftest import DISTRIBUTION, HUNK, PATCH, SrpmMaker, TargetMaker, write_tree

PATCHES = {"0001-early.patch": PATCH.format(subject="early: so", file="kernel/early.c", hunk=HUNK)}


def request(target: Target, source: sources.Source, **more: bool) -> BuildRequest:
    return BuildRequest(target, source, target.choose(["small"]), jobs=1, **more)


def el6_like(
    make_target: TargetMaker, config: str, patches: dict[str, str] | None = None
) -> Target:
    return make_target(
        config, patches, base="distribution", version="2.6.32", releases='["431.el6"]'
    )


# --- what comes out ---


def test_a_build_is_whole_and_says_what_it_is(make_target: TargetMaker, tree: Path) -> None:
    target = make_target(patches=PATCHES)
    built = build.build_kernel(request(target, sources.add(tree)))
    identity = built.manifest.build_id[:8]

    assert built.release == f"6.1.100-fs1.{identity}.x86_64"
    assert built.kernel_rpm.name == f"kernel-fastsocket-{built.release}.rpm"
    assert built.devel_rpm.name == f"kernel-fastsocket-devel-{built.release}.rpm"
    assert built.release.encode() in built.image.read_bytes()
    assert "CONFIG_MODULES=y" in built.config.read_text()
    assert (built.modules / f"lib/modules/{built.release}/kernel/extra.ko").is_file()
    assert (built.headers / "include/generated/utsrelease.h").is_file()
    assert (built.headers / "include/linux/autoconf.h").read_text() == "/*\n */\n"
    link = built.modules / f"lib/modules/{built.release}/build"
    assert str(link.readlink()) == f"/usr/src/kernels/{built.release}"
    assert [patch["name"] for patch in built.manifest.patches] == ["0001-early.patch"]
    assert set(built.manifest.durations) >= {"tree", "config", "compile"}
    assert built.manifest.kabi["state"] == "not applicable"
    assert not built.directory.with_name(f"{built.directory.name}.work").exists()


def test_stock_has_no_feature(make_target: TargetMaker, tree: Path) -> None:
    target = make_target(patches=PATCHES)
    built = build.build_kernel(request(target, sources.add(tree), stock=True))
    assert built.kernel_rpm.name.startswith("kernel-stock-6.1.100-stock.")
    assert built.manifest.patches == ()


def test_the_packages_are_for_rpm_4_8(make_target: TargetMaker, tree: Path) -> None:
    built = build.build_kernel(request(make_target(), sources.add(tree)))
    for path in (built.kernel_rpm, built.devel_rpm):
        assert set(package.rpmlib_features(path)) <= package.RPM_4_8_FEATURES
        tags = r"%{PAYLOADCOMPRESSOR} %{FILEDIGESTALGO} %{BUILDHOST} %{ARCH}"
        facts = run.run(["rpm", "-qp", "--qf", tags, path]).output
        assert facts == "gzip 8 fsdeploy x86_64"
        requires = run.run(["rpm", "-qp", "--requires", path]).output.split("\n")
        assert {line for line in requires if line and "rpmlib" not in line} <= {"/bin/sh"}


def test_the_kernel_package_holds_what_a_host_needs(make_target: TargetMaker, tree: Path) -> None:
    built = build.build_kernel(request(make_target(), sources.add(tree)))
    release = built.release
    query = ["rpm", "-qp", str(built.kernel_rpm)]
    files = set(run.run([*query, "-l"]).output.split())
    assert files >= {
        f"/boot/vmlinuz-{release}", f"/boot/System.map-{release}", f"/boot/config-{release}",
        f"/boot/symvers-{release}.gz", f"/lib/modules/{release}/kernel/extra.ko",
        f"/usr/share/fsdeploy/{release}/manifest.json",
    }  # fmt: skip
    scripts = run.run([*query, "--scripts"]).output
    install = "--package kernel-fastsocket --mkinitrd --dracut --depmod --install"
    assert f"new-kernel-pkg {install} {release}" in scripts
    assert f"new-kernel-pkg --rminitrd --rmmoddep --remove {release}" in scripts
    provides = run.run([*query, "--provides"]).output
    assert f"kernel-uname-r = {release}" in provides


@pytest.fixture
def own_module(tmp_path: Path) -> Path:
    folder = tmp_path / "modules/own"
    folder.mkdir(parents=True)
    (folder / "own.c").write_text("int own;\n")
    return folder


def test_a_module_of_ours_is_a_package_beside_the_kernel(
    make_target: TargetMaker, tree: Path, own_module: Path
) -> None:
    target = replace(make_target(), modules=(own_module,))
    built = build.build_kernel(request(target, sources.add(tree)))
    release = built.release
    installed = f"/lib/modules/{release}/extra/own/own.ko"
    (rpm,) = built.module_rpms
    assert rpm.name == f"kmod-own-{release}.rpm"
    assert built.module("own").read_text() == "int own;\n"
    assert installed in run.run(["rpm", "-qpl", rpm]).output.split()
    requires = run.run(["rpm", "-qp", "--requires", rpm]).output
    assert f"kernel-uname-r = {release}" in requires
    assert "extra/own" not in run.run(["rpm", "-qpl", built.kernel_rpm]).output
    assert {rpm.name, f"root{installed}"} <= set(built.manifest.outputs)


def test_a_stock_build_has_no_module_of_ours(
    make_target: TargetMaker, tree: Path, own_module: Path
) -> None:
    target = replace(make_target(), modules=(own_module,))
    built = build.build_kernel(request(target, sources.add(tree), stock=True))
    assert built.module_rpms == ()
    assert not built.module("own").exists()


def test_a_changed_module_of_ours_is_another_build(
    make_target: TargetMaker, tree: Path, own_module: Path
) -> None:
    wanted = request(replace(make_target(), modules=(own_module,)), sources.add(tree))
    stock = replace(wanted, stock=True)
    before, stock_before = build.identify(wanted, {}), build.identify(stock, {})
    (own_module / "own.c").write_text("int other;\n")
    assert build.identify(wanted, {}).build_id != before.build_id
    assert build.identify(stock, {}) == stock_before


def test_the_manifest_in_the_package_is_that_of_the_build(
    make_target: TargetMaker, tree: Path
) -> None:
    built = build.build_kernel(request(make_target(), sources.add(tree)))
    inside = built.modules / f"usr/share/fsdeploy/{built.release}/manifest.json"
    data = json.loads(inside.read_text())
    assert data["build_id"] == built.manifest.build_id
    assert data["durations"] == {}
    assert data["outputs"]["vmlinux"] == built.manifest.outputs["vmlinux"]


# --- the same inputs, the same build ---


def test_the_same_inputs_are_not_built_twice(
    make_target: TargetMaker, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = request(make_target(), sources.add(tree))
    first = build.build_kernel(wanted)
    monkeypatch.setattr(build, "_Work", None)
    assert build.build_kernel(wanted) == first


def test_two_builds_in_two_places_are_the_same_bytes(
    make_target: TargetMaker, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = make_target(patches=PATCHES)
    digests = []
    for place in ("one", "another/and/deeper"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / place))
        built = build.build_kernel(request(target, sources.add(tree)))
        digests.append(built.manifest.outputs)
    assert digests[0] == digests[1]
    assert any(name.endswith(".rpm") for name in digests[0])


@pytest.mark.parametrize("what", ["source", "patch", "fragment", "stock", "tools"])
def test_every_input_changes_the_build(make_target: TargetMaker, tree: Path, what: str) -> None:
    tools = {"gcc": "gcc 12"}
    target = make_target(patches=PATCHES)
    wanted = request(target, sources.add(tree))
    before = build.identify(wanted, tools)
    assert build.identify(wanted, tools) == before
    if what == "source":
        (tree / "kernel/extra.c").write_text("int other;\n")
        wanted = replace(wanted, source=sources.add(tree))
    elif what == "patch":
        patch = target.patches / "0001-early.patch"
        patch.write_text(patch.read_text().replace("33", "34"))
    elif what == "fragment":
        target.fragments["small"].path.write_text("CONFIG_MODULES=y\nCONFIG_X=y\n")
    elif what == "stock":
        wanted = replace(wanted, stock=True)
    else:
        tools["gcc"] = "gcc 13"
    assert build.identify(wanted, tools).build_id != before.build_id


@pytest.mark.parametrize("damage", ["manifest", "package", "gone"])
def test_a_build_that_is_not_whole_is_built_again(
    make_target: TargetMaker, tree: Path, damage: str
) -> None:
    wanted = request(make_target(), sources.add(tree))
    built = build.build_kernel(wanted)
    broken = built.directory / "manifest.json" if damage == "manifest" else built.kernel_rpm
    if damage == "gone":
        broken.unlink()
    else:
        broken.write_bytes(broken.read_bytes()[:50])
    again = build.build_kernel(wanted)
    assert again.manifest.outputs == built.manifest.outputs
    assert again.kernel_rpm.stat().st_size > 50


# --- what a user can get wrong ---


def test_a_patch_that_no_longer_applies_names_itself(make_target: TargetMaker, tree: Path) -> None:
    target = make_target(patches=PATCHES)
    (tree / "kernel/early.c").write_text("int quite_another_file;\n")
    with pytest.raises(FsdeployError) as caught:
        build.build_kernel(request(target, sources.add(tree)))
    assert caught.value.message == (
        "0001-early.patch does not apply to 6.1.100: kernel/early.c: hunk 1 (line 1) does not match"
    )


def test_options_that_did_not_come_true_are_all_named(make_target: TargetMaker, tree: Path) -> None:
    target = make_target("CONFIG_MODULES=y\nCONFIG_UNKNOWN_A=y\nCONFIG_UNKNOWN_B=m\n")
    with pytest.raises(FsdeployError) as caught:
        build.build_kernel(request(target, sources.add(tree)))
    assert caught.value.message.splitlines() == [
        "2 options of the configuration did not get their value:",
        "  CONFIG_UNKNOWN_A=y (small) is not there",
        "  CONFIG_UNKNOWN_B=m (small) is not there",
    ]


def test_a_kernel_that_would_call_itself_otherwise_is_refused(
    make_target: TargetMaker, tree: Path
) -> None:
    target = make_target('CONFIG_MODULES=y\nCONFIG_LOCALVERSION="-mine"\n')
    with pytest.raises(
        FsdeployError, match=r"would call itself 6.1.100-fs1\..*x86_64-mine and not"
    ):
        build.build_kernel(request(target, sources.add(tree)))


def test_a_compile_error_shows_its_first_lines_and_the_log(
    make_target: TargetMaker, tree: Path
) -> None:
    (tree / "kernel/early.c").write_text("int broken\nint here;\n")
    with pytest.raises(FsdeployError) as caught:
        build.build_kernel(request(make_target(), sources.add(tree)))
    assert "kernel/early.c:1:11: error: expected" in caught.value.message
    assert caught.value.log is not None
    assert "kernel/early.c:1:11: error" in caught.value.log.read_text()


def test_a_missing_tool_is_named_with_its_packages(
    make_target: TargetMaker, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = request(make_target(), sources.add(tree))
    monkeypatch.setattr(
        run, "find", lambda tool: None if tool in ("gcc", "rpmbuild") else shutil.which(tool)
    )
    with pytest.raises(FsdeployError) as caught:
        build.build_kernel(wanted)
    assert caught.value.message == "missing tools: gcc, rpmbuild"
    assert caught.value.hint == "Debian: apt-get install gcc rpm; CentOS: yum install gcc rpm-build"
    assert not list((tmp_path / "cache").rglob("*.work"))


def test_the_distribution_configuration_wants_the_source_rpm(
    make_target: TargetMaker, tmp_path: Path
) -> None:
    target = el6_like(make_target, "CONFIG_MODULES=y\n")
    source = sources.add(write_tree(tmp_path / "linux-2.6.32-431.el6", "2.6.32", "430"))
    with pytest.raises(FsdeployError, match="came as a tree, without the distribution's config"):
        build.build_kernel(request(target, source))


def test_a_disk_too_small_is_said_before(
    make_target: TargetMaker, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = request(make_target(), sources.add(tree))
    monkeypatch.setattr(store, "free_space", lambda _: 10)
    with pytest.raises(FsdeployError, match=r"not enough space for the build of 6\.1\.100-fs1"):
        build.build_kernel(wanted)


def test_a_disk_that_fills_up_is_said_and_given_back(make_target: TargetMaker, tree: Path) -> None:
    makefile = tree / "Makefile"
    full = "\t@echo 'fatal error: error writing to x.o: No space left on device' >&2; exit 1\n"
    makefile.write_text(makefile.read_text().replace("%.o: %.c\n", "%.o: %.c\n" + full))
    with pytest.raises(FsdeployError, match=r"the disk is full: the build of 6\.1\.100-fs1"):
        build.build_kernel(request(make_target(), sources.add(tree)))
    assert not list(build.folder().glob("*.work"))


# --- kABI ---


CRC = {
    "0001-crc.patch": PATCH.format(
        subject="crc: another", file="crc", hunk="@@ -1 +1 @@\n-17\n+18\n"
    )
}


def test_a_changed_kabi_fails_and_names_the_symbol(
    make_target: TargetMaker, make_srpm: SrpmMaker
) -> None:
    target = el6_like(make_target, "CONFIG_MODULES=y\nCONFIG_MODVERSIONS=y\n", CRC)
    with pytest.raises(CheckFailed) as caught:
        build.build_kernel(request(target, sources.add(make_srpm())))
    assert caught.value.message == (
        "the series breaks the kABI: 1 symbols changed, 0 are gone: symbol_a"
    )


def test_a_kept_kabi_is_written_down(make_target: TargetMaker, make_srpm: SrpmMaker) -> None:
    target = el6_like(make_target, "CONFIG_MODULES=y\nCONFIG_MODVERSIONS=y\n", PATCHES)
    source = sources.add(make_srpm())
    built = build.build_kernel(request(target, source))
    stock = build.build_kernel(request(target, source, stock=True))
    assert built.release.startswith("2.6.32-431.el6.fs1.")
    assert built.manifest.kabi == {
        "state": "same", "listed": 3, "compared": 2, "as_published": 2, "changed": (), "gone": (),
        "stock": stock.release,
    }  # fmt: skip
    assert stock.manifest.kabi["state"] == "reference"
    boot = stock.modules / f"boot/symvers-{stock.release}.gz"
    assert b"symbol_a" in gzip.decompress(boot.read_bytes())
    assert "CONFIG_X86_64_RHEL=y" in built.config.read_text()


def test_a_kabi_as_published_needs_no_stock_build(
    make_target: TargetMaker, make_srpm: SrpmMaker
) -> None:
    listed = "0x00000011\tsymbol_a\tvmlinux\tEXPORT_SYMBOL\n"
    whole = {**DISTRIBUTION, "Module.kabi_x86_64": listed}
    target = el6_like(make_target, "CONFIG_MODULES=y\nCONFIG_MODVERSIONS=y\n", PATCHES)
    built = build.build_kernel(request(target, sources.add(make_srpm(files=whole))))
    assert built.manifest.kabi == {
        "state": "same", "listed": 1, "compared": 1, "as_published": 1, "changed": (), "gone": (),
        "stock": "as published",
    }  # fmt: skip
    assert [path.name for path in build.folder().glob("*-stock-*")] == []


# --- interrupted, and two at once ---

SLOW = "CONFIG_MODULES=y\nCONFIG_SLOW=y\n"
PROGRAM = """\
import sys
from pathlib import Path
from fsdeploy.kernel import build, source, target
wanted = target.read(Path(sys.argv[1]), Path(sys.argv[2]))
found = source.find(wanted)
build.build_kernel(build.BuildRequest(wanted, found, wanted.choose(["small"]), jobs=1))
"""


def start_build(tmp_path: Path) -> subprocess.Popen[str]:
    folders = [tmp_path / "kernel-config/fake", tmp_path / "patches/fake"]
    # Who runs the tests in the background of a script has SIGINT ignored, and children inherit it.
    restored = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + PROGRAM
    return subprocess.Popen(
        [sys.executable, "-c", restored, *folders], text=True, stderr=subprocess.PIPE
    )


def wait_for_late(process: subprocess.Popen[str]) -> Path:
    """Until the second, slow object is under way; returns the first."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, process.stderr and process.stderr.read()
        for path in build.folder().glob("*.work/tree/kernel/late.o"):
            return path.with_name("early.o")
        time.sleep(0.05)
    raise AssertionError("the build did not come as far as its second object")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_build_goes_on_where_it_was(
    make_target: TargetMaker, tree: Path, tmp_path: Path, number: signal.Signals
) -> None:
    target = make_target(SLOW)
    source = sources.add(tree)
    process = start_build(tmp_path)
    early = wait_for_late(process)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == -number

    compiled = early.stat().st_mtime_ns
    late = early.with_name("late.o")
    late.unlink(missing_ok=True)
    # The compile is quick this time, so that the test is.
    rules = early.parent.parent / "Makefile"
    rules.write_text(rules.read_text().replace("sleep 30", "sleep 0"))
    kept: list[int] = []
    finish = build._Work._finish

    def look(work: build._Work) -> build.Build:
        kept.append((work.tree / "kernel/early.o").stat().st_mtime_ns)
        return finish(work)

    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(build._Work, "_finish", look)
        built = build.build_kernel(request(target, source))
    assert kept == [compiled]
    assert built.kernel_rpm.is_file()


def test_a_second_build_of_the_same_waits_and_says_for_whom(
    make_target: TargetMaker, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = make_target(SLOW)
    wanted = request(target, sources.add(tree))
    process = start_build(tmp_path)
    early = wait_for_late(process)
    second = threading.Thread(target=build.build_kernel, args=(wanted,))
    second.start()
    deadline = time.monotonic() + 20
    said = ""
    while "waiting" not in said and time.monotonic() < deadline:
        time.sleep(0.1)
        said += capsys.readouterr().err
    assert f"is in the hands of process {process.pid}; waiting for it to end" in said
    rules = early.parent.parent / "Makefile"
    rules.write_text(rules.read_text().replace("sleep 30", "sleep 0"))
    process.kill()
    process.communicate(timeout=30)
    early.with_name("late.o").unlink(missing_ok=True)
    second.join(timeout=60)
    assert not second.is_alive()
    identity = build.identify(wanted, build.tool_versions())
    assert build.existing(identity) is not None


def test_a_lock_of_a_dead_process_means_nothing(tmp_path: Path) -> None:
    path = tmp_path / "build.lock"
    path.write_text("1\n")
    assert not store.is_held(path)
    with store.exclusive(path, "the build"):
        assert store.is_held(path)


# --- the real thing ---


@pytest.mark.build
def test_a_real_kernel_is_the_same_bytes_without_ccache_in_two_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The smallest 6.1 there is, about 400 objects, compiled twice with nothing remembered: that
    # proves more than a big one whose objects come from a cache. The source is the user's own.
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "CCACHE_DIR"):
        monkeypatch.delenv(name)
    real = targets.load("lts61")
    source = sources.resolve(real)
    config = tmp_path / "tiny.config"
    config.write_text("CONFIG_64BIT=y\nCONFIG_MODULES=y\nCONFIG_CRC7=m\n")
    tiny = targets.Fragment("tiny", config, "allnoconfig")
    monkeypatch.setattr(run, "_KEPT", (*run._KEPT, "CCACHE_DISABLE"))
    monkeypatch.setenv("CCACHE_DISABLE", "1")
    digests = []
    # Hard links to the source want its file system.
    with tempfile.TemporaryDirectory(dir=paths.cache_dir()) as scratch:
        for place in ("one", "another/and/deeper"):
            monkeypatch.setenv("XDG_CACHE_HOME", f"{scratch}/{place}")
            built = build.build_kernel(BuildRequest(real, source, (tiny,)))
            digests.append(dict(built.manifest.outputs))
    assert digests[0] == digests[1]
    assert any("-devel-" in name for name in digests[0])
    assert any(name.endswith(".ko") for name in digests[0])
