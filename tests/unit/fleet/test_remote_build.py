"""A build on another machine: this one, over an SSH server, with a cache of its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fsdeploy import cli, paths, run, ui
from fsdeploy.errors import CheckFailed, FsdeployError, Unreachable
from fsdeploy.fleet import endpoints, remote_build
from fsdeploy.fleet.endpoints import Endpoint
from fsdeploy.fleet.remote_build import RemoteRequest, build_on
from fsdeploy.kernel import build, manifest, store
from fsdeploy.kernel import source as sources
from fsdeploy.kernel import target as targets
from tests.unit.kernel.conftest import HUNK, PATCH, folders, make_target, pack, tree

__all__ = ["folders", "make_target", "tree"]  # fixtures

PATCHES = {"0001-early.patch": PATCH.format(subject="early: so", file="kernel/early.c", hunk=HUNK)}
REQUEST = RemoteRequest("fake", "linux-6.1.100.tar.xz", ("small",))


class Machine:
    """The build machine: a server, and what its sessions have for a home."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache/fsdeploy"
        self.server: Endpoint | None = None
        endpoints.make_key(folder / "key")

    def up(self, *, port: int = 0, program: tuple[str | Path, ...] = (), **more: str) -> Endpoint:
        values = {
            # A user's .bashrc may change PATH.
            "HOME": self.folder,
            "XDG_CACHE_HOME": self.folder / "cache",
            "XDG_STATE_HOME": self.folder / "state",
            "CCACHE_DIR": self.folder / "ccache",
        }
        environment = {**{name: str(path) for name, path in values.items()}, **more}
        self.server = endpoints.start(
            "builder", self.folder / "sshd", self.folder / "key",
            port=port, environment=environment, program=program,
        )  # fmt: skip
        home = Path(os.environ["HOME"]) / ".ssh"
        home.mkdir(exist_ok=True, parents=True)
        (home / "config").write_bytes(self.server.ssh_config.read_bytes())
        return self.server

    def down(self) -> None:
        """The server and its sessions end; a build that they started does not."""
        assert self.server
        self.drop_sessions()
        run.end(self.server.process)

    def sessions(self) -> list[int]:
        """The server's own processes: not what was started over it."""
        assert self.server
        found = []
        for status in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                name, rest = status.read_text().rsplit(")", 1)
                if int(rest.split()[1]) == self.server.process.pid and "(sshd" in name:
                    found.append(int(status.parent.name))
        return found

    def drop_sessions(self) -> set[int]:
        """End the sessions as a lost connection does; returns those that were."""
        dropped = set(self.sessions())
        for process in dropped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        return dropped

    @property
    def builds(self) -> list[str]:
        return sorted(path.parent.name for path in self.cache.glob("builds/fake-*/manifest.json"))

    def leftover(self) -> list[Path]:
        return list((self.cache / "remote").glob("*"))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    endpoints.require_server()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "there").mkdir()
    machine = Machine(tmp_path / "there")
    machine.up()
    yield machine
    machine.down()
    for pid in machine.cache.glob("remote/*/pid"):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid.read_text()), signal.SIGTERM)


@pytest.fixture(autouse=True)
def project(
    tmp_path: Path,
    tree: Path,
    make_target: Callable[..., targets.Target],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_target(patches=PATCHES)
    (tmp_path / "modules").mkdir()
    # A compile that waits, where the configuration says so, until it is let go.
    makefile = tree / "Makefile"
    gate = f"until [ -e {tmp_path}/go ]; do touch {tmp_path}/waits; sleep 0.1; done"
    makefile.write_text(makefile.read_text().replace("sleep 30", gate))
    pack(tree, tmp_path / "linux-6.1.100.tar.xz")
    monkeypatch.setattr(paths, "data_root", lambda: tmp_path)
    monkeypatch.setattr(remote_build, "_RETRY_SECONDS", 0.1)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def slow(tmp_path: Path) -> RemoteRequest:
    (tmp_path / "slow.config").write_text("CONFIG_SLOW=y\n")
    return replace(REQUEST, fragments=("small", "slow.config"))


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_same_build_as_a_local_one(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.config").write_text("CONFIG_MINE=y\n")
    words = ["build-kernel", "--target", "fake", "--source", REQUEST.source, "--fragment", "small"]
    words += ["--fragment", "mine.config", "--json"]
    out = tmp_path / "rpms"
    assert cli.main([*words, "--on", "builder", "--output", str(out)]) == 0
    said = capsys.readouterr()
    there = json.loads(said.out)
    assert "Compile: " in said.err
    assert not (paths.cache_dir() / "sources").exists()  # nothing was done here
    assert not machine.leftover()
    assert cli.main(words) == 0
    here = json.loads(capsys.readouterr().out)

    assert there["manifest"]["build_id"] == here["manifest"]["build_id"]
    for name in ("outputs", "inputs", "patches", "source", "configuration", "tools", "kabi"):
        assert there["manifest"].get(name) == here["manifest"].get(name)
    release = here["manifest"]["release"]
    kernel = out / f"kernel-fastsocket-{release}.rpm"
    assert there["kernel_rpm"] == str(kernel)
    assert kernel.read_bytes() == Path(here["kernel_rpm"]).read_bytes()
    beside = manifest.load(kernel.with_suffix(".manifest.json"))
    assert beside.build_id == here["manifest"]["build_id"]

    # Once more: neither source nor build are needed again.
    assert cli.main([*words, "--on", "builder"]) == 0
    said = capsys.readouterr()
    assert "is built already" in said.err
    assert "linux-6.1.100.tar.xz" not in said.err
    assert json.loads(said.out)["kernel_rpm"].startswith(str(paths.cache_dir() / "fetched"))


def test_a_source_of_our_cache_goes_along(machine: Machine, tree: Path) -> None:
    (tree / "link").symlink_to("crc")
    ours = sources.add(tree)
    fetched = build_on("builder", replace(REQUEST, source="6.1.100"))
    local = build.request("fake", "6.1.100", ("small",))
    assert fetched.manifest.build_id == build.identify(local, build.tool_versions()).build_id
    (theirs,) = (machine.cache / "sources").glob("*/tree")
    assert sources.fingerprint(theirs) == sources.fingerprint(ours.tree)


def test_a_lost_connection_is_taken_up_again(
    machine: Machine, slow: RemoteRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def lose() -> None:
        until((tmp_path / "waits").exists)
        before = machine.drop_sessions()
        until(lambda: set(machine.sessions()) - before)
        (tmp_path / "go").touch()

    thread = threading.Thread(target=lose)
    thread.start()
    fetched = build_on("builder", slow)
    thread.join()
    assert fetched.packages[0].is_file()
    said = capsys.readouterr().err
    assert said.count("Compile …") == 1  # nothing is shown twice, nothing is built twice
    assert re.search(r"Compile: \d", said)


def test_the_same_command_comes_back(
    machine: Machine,
    slow: RemoteRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def lose() -> None:
        until((tmp_path / "waits").exists)
        machine.down()

    assert machine.server
    port = machine.server.port
    thread = threading.Thread(target=lose)
    thread.start()
    monkeypatch.setattr(remote_build, "_PATIENCE_SECONDS", 0)
    with pytest.raises(Unreachable, match="does not answer over SSH") as caught:
        build_on("builder", slow)
    thread.join()
    assert caught.value.code == 3
    assert "the same command comes back to it" in caught.value.hint

    machine.up(port=port)
    (tmp_path / "go").touch()
    fetched = build_on("builder", slow)
    assert fetched.packages[0].is_file()
    said = capsys.readouterr().err
    assert said.count("Build 6.1.100") >= 2  # its whole story, from the beginning
    assert "is built already" not in said  # neither here nor there was anything begun again
    assert "going on with an interrupted build" not in said
    assert not machine.leftover()


# Who runs the tests in the background of a script has SIGINT ignored, and children inherit it.
RESTORED = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
COMMAND = """
import sys
from pathlib import Path
from fsdeploy import cli, paths
paths.data_root = lambda: Path.cwd()
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.usefixtures("machine")
def test_ctrl_c_leaves_it_running_and_says_how_to_end_it(
    slow: RemoteRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["build-kernel", "--on", "builder", "--target", "fake", "--source", slow.source]
    words += ["--fragment", "small", "--fragment", "slow.config"]
    log = tmp_path / "log"
    with log.open("wb") as out:
        command = run.start(
            [sys.executable, "-c", RESTORED + COMMAND, *words],
            cwd=tmp_path,
            stdout=out,
            env={"PYTHONPATH": str(Path(cli.__file__).parents[2])},
        )
    until((tmp_path / "waits").exists)
    os.kill(command.pid, signal.SIGINT)
    assert command.wait() == 130
    said = log.read_text()
    assert "the build goes on on builder; the same command comes back to it" in said
    match = re.search(r"to end it: ssh builder kill (\d+)", said)
    assert match
    # Somebody meets it, and somebody ends it.
    build_process, note = int(match[1]), ui.note

    def end_it(text: str) -> None:
        note(text)
        if f"under way, begun by {remote_build.us()}" in text:
            os.kill(build_process, signal.SIGTERM)

    monkeypatch.setattr(ui, "note", end_it)
    with pytest.raises(FsdeployError, match="builder: the build was ended") as caught:
        build_on("builder", slow)
    assert caught.value.code == 130
    # And it goes on with what it had.
    (tmp_path / "go").touch()
    build_on("builder", slow)
    assert "going on with an interrupted build" in capsys.readouterr().err


def test_a_build_of_somebody_else_there_is_waited_for(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was begun without --on: only its lock tells of it."""
    wanted = build.request("fake", REQUEST.source, ("small",))
    name = build.identify(wanted, build.tool_versions()).name
    theirs = contextlib.ExitStack()
    theirs.enter_context(store.exclusive(machine.cache / f"builds/{name}.lock", "a build"))
    note = ui.note
    told = []

    def let_go(text: str) -> None:
        note(text)
        if f"in the hands of process {os.getpid()}; waiting for it to end" in text:
            told.append(text)
            theirs.close()

    monkeypatch.setattr(ui, "note", let_go)
    with theirs:
        build_on("builder", REQUEST)
    assert len(told) == 1
    assert machine.builds == [name]


def test_a_build_that_fails_there_is_an_error_here(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "odd.config").write_text("CONFIG_UNKNOWN=y\n")
    request = replace(REQUEST, fragments=("small", "odd.config"))
    with pytest.raises(FsdeployError, match=r"(?s)builder: .*CONFIG_UNKNOWN"):
        build_on("builder", request)
    assert not machine.leftover()  # the next try begins anew
    toml = tmp_path / "kernel-config/fake/target.toml"
    toml.write_text(toml.read_text().replace("space_mb = 1", "space_mb = 1000000000"))
    with pytest.raises(FsdeployError, match="builder: not enough space for the build") as caught:
        build_on("builder", REQUEST)
    assert "free some space" in caught.value.hint


def test_a_full_disk_there(machine: Machine, tmp_path: Path) -> None:
    assert machine.server
    machine.down()
    disk = tmp_path / "disk"
    disk.mkdir()
    # A disk for this server and its sessions only.
    script = f'mount -t tmpfs -o size=64k tmpfs {disk} && exec "$@"'
    program = ("unshare", "--mount", "sh", "-c", script, "sh", run.find("sshd") or "")
    machine.up(program=program, XDG_CACHE_HOME=str(disk))
    with pytest.raises(FsdeployError, match=r"builder: the disk is full there: .*No space left"):
        build_on("builder", REQUEST)


def test_a_host_that_is_silent(machine: Machine) -> None:
    machine.down()
    with pytest.raises(Unreachable, match=r"builder does not answer over SSH: .*refused"):
        build_on("builder", REQUEST)
    with pytest.raises(FsdeployError, match="is no host"):
        build_on("-oProxyCommand=true", REQUEST)
    machine.up()


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        (("sh", "flock", "cat"), "has no Python 3.11 or newer"),
        (
            ("sh", "flock", "cat", "tar", "gzip", "mkdir", "rm", "mv", "python3", "gcc", "make"),
            "builder has no ld, patch, .*, which building kernels needs",
        ),
    ],
)
def test_a_machine_that_is_not_ready(
    machine: Machine, tmp_path: Path, tools: tuple[str, ...], message: str
) -> None:
    machine.down()
    (tmp_path / "bin").mkdir()
    for tool in tools:
        path = Path(sys.executable).resolve() if tool == "python3" else run.find(tool)
        (tmp_path / "bin" / tool).symlink_to(path or "")
    machine.up(PATH=str(tmp_path / "bin"))
    with pytest.raises(FsdeployError, match=message) as caught:
        build_on("builder", REQUEST)
    assert "apt-get install" in caught.value.hint


def test_what_came_damaged_is_refused(machine: Machine) -> None:
    build_on("builder", REQUEST)
    (rpm,) = machine.cache.glob("builds/fake-*/kernel-fastsocket-6*.rpm")
    data = bytearray(rpm.read_bytes())
    data[-1] ^= 1
    rpm.write_bytes(bytes(data))
    with pytest.raises(CheckFailed, match="came from builder damaged: its sha256 is") as caught:
        build_on("builder", REQUEST)
    assert caught.value.code == 1


def test_the_same_content_is_the_same_bundle(tmp_path: Path) -> None:
    fragment = tmp_path / "a.config"
    fragment.write_text("CONFIG_A=y\n")
    first = remote_build.bundle([fragment])
    os.utime(fragment, (1, 1))
    assert remote_build.bundle([fragment]) == first
    fragment.write_text("CONFIG_A=m\n")
    assert remote_build.bundle([fragment]) != first
