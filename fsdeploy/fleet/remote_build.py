# SPDX-License-Identifier: GPL-2.0-only
"""Builds a kernel on another machine: `fsdeploy build-kernel --on HOST`.

What is done there is the ordinary `fsdeploy build-kernel`, of a copy of this tool, in a session of
its own that no connection holds. All of one build's things there are in a folder, the *job*, named
by the hash of what it builds from:

    tool/       this tool, what it imports, and the user's fragments
    source/     the archive of the source, where the cache there did not have it yet
    lock        held (flock) as long as the build runs, however it ends
    pid log     the build's process, and what it says
    exit        its code, written when it has ended
    result.json what it prints: the manifest and where the packages are

The folder goes away when its end has been told here. So the same command, run at any time, finds
one of four things: no job, one that runs, one that has ended, one that was cut off without a code.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import io
import json
import os
import pwd
import re
import shlex
import socket
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from fsdeploy import paths, run, ui
from fsdeploy.errors import CheckFailed, ExitCode, FsdeployError, Unreachable
from fsdeploy.fleet.drive import new_log
from fsdeploy.fleet.inventory import Host, Inventory
from fsdeploy.fleet.transport import Answered, Ssh, reason_of
from fsdeploy.kernel import manifest as manifests
from fsdeploy.kernel import source as sources
from fsdeploy.kernel import target as targets
from fsdeploy.kernel.identify import file_digest
from fsdeploy.kernel.manifest import Manifest
from fsdeploy.kernel.target import Target

# What the tool imports beside Python's own when it builds a kernel.
_IMPORTED = ("jinja2", "markupsafe", "rich")
# What it reads when it builds a kernel.
_DATA = ("patches", "kernel-config", "modules")

# How long a host that went silent in the middle is asked again, and how often.
_PATIENCE_SECONDS = 300.0
_RETRY_SECONDS = 5.0

_OLD_PYTHON = "Debian 12: apt-get install python3; CentOS or RHEL 9: yum install python3.11"
_COME_BACK = "the same command comes back to it"

# Every line that is meant for us begins with a word of ours: a banner disturbs nothing.
_WORD = "fsdeploy "

_LOOK = """
for python in python3 python3.14 python3.13 python3.12 python3.11; do
    if command -v $python >/dev/null 2>&1 &&
        $python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        echo "fsdeploy python $(command -v $python)"
        break
    fi
done
cache=${XDG_CACHE_HOME:-$HOME/.cache}/fsdeploy
echo "fsdeploy cache $cache"
[ ! -e "$cache/sources/@source@/source.json" ] || echo "fsdeploy source yes"
cd "$cache/remote/@job@" 2>/dev/null || exit 0
[ ! -d tool ] || echo "fsdeploy tool yes"
[ ! -e owner ] || echo "fsdeploy owner $(cat owner)"
[ -e lock ] || exit 0
if ! flock -n lock true; then
    echo "fsdeploy running $(cat pid 2>/dev/null)"
elif [ -e exit ]; then
    echo "fsdeploy ended $(cat exit)"
elif [ -e pid ]; then
    echo "fsdeploy cut off"
fi
"""

# Becomes `name` only when it is whole; who loses a race has brought the same.
_TAKE_FOLDER = """
set -e
mkdir -p @folder@
cd @folder@
part=.@name@.$$
trap 'rm -rf "$part"' EXIT
mkdir "$part"
tar -xzf - -C "$part"
mv -T "$part" @name@ 2>/dev/null || [ -d @name@ ]
"""

_TAKE_FILE = """
set -e
mkdir -p @folder@
cd @folder@
part=.part.$$
trap 'rm -f "$part"' EXIT
cat >"$part"
mv "$part" @name@
"""

# The lock goes to the child with descriptor 9. The build is told by its process what to do when it
# is to end, so that is the one whose id is kept.
_START = """
set -e
cd @job@
exec 9>>lock
flock -n 9 || exit 0
rm -f exit pid result.json
echo @owner@ >owner
: >log
setsid sh -c '
    PYTHONPATH=$1; export PYTHONPATH; shift
    "$@" >result.json 2>log &
    echo $! >.pid
    mv .pid pid
    wait $!
    echo $? >.exit
    mv .exit exit
' sh @tool@ @command@ </dev/null >/dev/null 2>&1 &
until [ -s pid ] || ! kill -0 $! 2>/dev/null; do sleep 0.1; done
"""

# An end mark too: a line that a lost connection cut is not one that was seen.
_FOLLOW = """
cd @job@ || exit 0
if flock -n lock true; then
    tail -n +@line@ log
else
    tail -n +@line@ -f --pid="$(cat pid)" log
fi | sed -u 's/.*/fsdeploy &./'
flock lock true
"""

_CLEAR = """
cd @remote@ || exit 0
mv @job@ .done.$$ && rm -rf .done.$$
find . -mindepth 1 -maxdepth 1 -mtime +30 -exec rm -rf {} +
"""


@dataclass(frozen=True)
class RemoteRequest:
    """What to build, as the command names it."""

    target: str
    source: str = ""
    fragments: tuple[str, ...] = ("fleet",)
    stock: bool = False
    jobs: int = 0


@dataclass(frozen=True)
class Fetched:
    """Packages and manifest of a build that was done elsewhere. `packages[0]` is the kernel."""

    directory: Path
    packages: tuple[Path, ...]
    manifest: Manifest
    manifest_file: Path


@dataclass(frozen=True)
class Cargo:
    """What a build needs from here.

    `bundle` is a packed tar of the tool and the fragments. `source` is an archive, or the folder
    of a source in our cache; `key` is what either is called in a cache.
    """

    bundle: bytes
    words: tuple[str, ...]
    source: Path
    key: str

    @property
    def job(self) -> str:
        """The name of the job."""
        told = json.dumps([hashlib.sha256(self.bundle).hexdigest(), self.words, self.key])
        return hashlib.sha256(told.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class _Seen:
    """How things stand there: the lines of `_LOOK`, by their first words; empty is no such line."""

    python: str = ""
    cache: str = ""
    source: str = ""
    tool: str = ""
    owner: str = ""
    running: str = ""  # the process
    ended: str = ""  # the code
    cut: str = ""


# --- what goes along ------------------------------------------------------------------------------


def _folder_files(folder: Path, *, code: bool) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and "__pycache__" not in inside.parts:
            # Compiled parts are for this machine's Python; the libraries work without.
            if code and (path.suffix == ".so" or inside.parts[0] == "data"):
                continue
            yield str(inside), path


def _tool_files() -> Iterator[tuple[str, Path]]:
    for name in ("fsdeploy", *_IMPORTED):
        found = importlib.util.find_spec(name)
        assert found
        assert found.origin
        for inside, path in _folder_files(Path(found.origin).parent, code=True):
            yield f"{name}/{inside}", path
    for name in _DATA:
        for inside, path in _folder_files(paths.data_root() / name, code=False):
            # Where an installed tool has them: fsdeploy/paths.py.
            yield f"fsdeploy/data/{name}/{inside}", path


def bundle(fragments: Sequence[Path]) -> bytes:
    """The tool and the user's fragments, the same bytes for the same content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        own = [(f"fragments/{place}/{path.name}", path) for place, path in enumerate(fragments)]
        for name, path in (*_tool_files(), *own):
            data = path.read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return gzip.compress(buffer.getvalue(), mtime=0)


def _source(target: Target, wanted: str) -> tuple[Path, str]:
    """The archive that is named, else what is in our cache; and its name in a cache."""
    packaged = f"/usr/src/{target.source_package}.tar.xz" if target.source_package else ""
    for name in (wanted, packaged if not wanted else ""):
        path = Path(name).absolute()
        if name and path.is_file():
            return path, file_digest(path)[:16]
    source = sources.resolve(target, wanted)
    sources.require_intact(source)
    return source.directory, source.directory.name


def cargo(request: RemoteRequest) -> Cargo:
    """All that a request needs from here. FsdeployError for what is not here."""
    target = targets.load(request.target)
    chosen = target.choose(request.fragments)
    own = [piece.path for piece in chosen if piece.name not in target.fragments]
    missing = next((path for path in own if not path.is_file()), None)
    if missing:
        raise FsdeployError(f"there is no {missing}")
    names = [
        f"tool/fragments/{own.index(piece.path)}/{piece.path.name}"
        if piece.path in own
        else piece.name
        for piece in chosen
    ]
    words = ["--target", request.target, *(["--stock"] if request.stock else [])]
    for name in names:
        words += ["--fragment", name]
    source, key = _source(target, request.source)
    return Cargo(bundle(own), tuple(words), source, key)


# --- there ----------------------------------------------------------------------------------------


def _script(text: str, **values: str) -> str:
    """A script for sh, whatever the user's shell there is."""
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return f"sh -c {shlex.quote(text)}"


@dataclass
class _Remote:
    """The build machine."""

    ssh: Ssh
    host: Host
    cargo: Cargo
    lines: list[str] = field(default_factory=list)  # of the job's log, as far as they were seen

    def run(self, text: str, **values: str) -> str:
        """Run a script that must work; its output."""
        return self._must(self.ssh.execute(self.host, _script(text, **values), timeout=120))

    def _must(self, answer: Answered) -> str:
        if not answer.reached:
            raise Unreachable(
                f"{self.host.name} does not answer over SSH: {reason_of(answer.output)}",
                hint="if a build runs there, it goes on; " + _COME_BACK,
                log=self.ssh.log,
            )
        if answer.code != 0:
            full = re.search(r".*(No space left on device|Disk quota exceeded).*", answer.output)
            raise FsdeployError(
                f"{self.host.name}: the disk is full there: {full[0].strip()}"
                if full
                else f"{self.host.name}: {reason_of(answer.output)}",
                hint="free some space there" if full else "",
                log=self.ssh.log,
            )
        return answer.output

    def look(self) -> _Seen:
        """How things stand there."""
        said = self.run(_LOOK, source=self.cargo.key, job=self.cargo.job)
        lines = [line.removeprefix(_WORD) for line in said.splitlines() if line.startswith(_WORD)]
        seen = _Seen(**dict(line.partition(" ")[::2] for line in lines))
        if not seen.python:
            raise FsdeployError(
                f"{self.host.name} has no Python 3.11 or newer, which fsdeploy needs there",
                hint=_OLD_PYTHON,
            )
        return seen

    def look_again(self) -> _Seen:
        """The same of a host that may be silent for a while."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        told = False
        while True:
            try:
                return self.look()
            except Unreachable as problem:
                if time.monotonic() >= deadline:
                    raise
                if not told:
                    ui.note(f"{problem.message}; the build there goes on, asking again")
                    told = True
                time.sleep(_RETRY_SECONDS)

    def job(self, seen: _Seen) -> str:
        """The job's folder."""
        return f"{seen.cache}/remote/{self.cargo.job}"

    def begin(self, seen: _Seen, jobs: int) -> None:
        """Bring what is missing there and start the build."""
        job = self.job(seen)
        if not seen.tool:
            with ui.step(f"Bring fsdeploy to {self.host.name}"), tempfile.TemporaryFile() as file:
                file.write(self.cargo.bundle)
                file.seek(0)
                self._send(file, _TAKE_FOLDER, folder=shlex.quote(job), name="tool")
        python = [seen.python, "-S", "-m", "fsdeploy"]
        self._require_tools(f"{job}/tool", python)
        source = self.cargo.key
        if not seen.source:
            source = self._bring_source(seen)
        words = [*python, "build-kernel", "--json", *self.cargo.words, "--source", source]
        words += ["--jobs", str(jobs)] if jobs else []
        self.run(
            _START,
            job=shlex.quote(job),
            owner=shlex.quote(us()),
            tool=shlex.quote(f"{job}/tool"),
            command=shlex.join(words),
        )

    def _require_tools(self, tool: str, python: Sequence[str]) -> None:
        command = f"PYTHONPATH={shlex.quote(tool)} {shlex.join(python)} -q doctor --json"
        answer = self.ssh.execute(self.host, f"sh -c {shlex.quote(command)}", timeout=120)
        try:
            found = json.loads(answer.output[answer.output.index("[") :])
            part = [item for item in found if item["part"] == "build kernels"]
        except ValueError:
            self._must(answer)
            raise FsdeployError(
                f"{self.host.name}: fsdeploy does not run there: {answer.output.strip()}",
                log=self.ssh.log,
            ) from None
        # A build without ccache takes longer the second time, nothing else.
        missing = [tool for item in part for tool in item["missing"] if tool != "ccache"]
        if missing:
            raise FsdeployError(
                f"{self.host.name} has no {', '.join(missing)}, which building kernels needs",
                hint=f"there: {run.how_to_install(missing)}",
            )

    def _bring_source(self, seen: _Seen) -> str:
        """Bring the source; what `--source` is there."""
        source = self.cargo.source
        with ui.step(f"Bring {source.name} to {self.host.name}"):
            if source.is_file():
                folder = f"{self.job(seen)}/source"
                with source.open("rb") as file:
                    self._send(
                        file,
                        _TAKE_FILE,
                        folder=shlex.quote(folder),
                        name=shlex.quote(source.name),
                    )
                return f"{folder}/{source.name}"
            # In the form that keeps times to the nanosecond: they seal the tree.
            words: list[str | Path] = ["tar", "--format=posix", "-czf", "-", "-C", source, "."]
            read, write = os.pipe()
            with run.running(run.start(words, stdout=write)), os.fdopen(read, "rb") as stream:
                os.close(write)
                folder = f"{seen.cache}/sources"
                self._send(stream, _TAKE_FOLDER, folder=shlex.quote(folder), name=self.cargo.key)
        return self.cargo.key

    def _send(self, file: IO[bytes], text: str, **values: str) -> None:
        command = _script(text, **values)
        self._must(self.ssh.execute(self.host, command, stdin=file, timeout=None))

    def follow(self, seen: _Seen) -> bool:
        """Show what the build says until it ends; whether the connection held so long."""

        def line(text: str) -> None:
            if text.startswith(_WORD) and text.endswith("."):
                self.lines.append(text[len(_WORD) : -1])
                ui.note(self.lines[-1])

        command = _script(_FOLLOW, job=shlex.quote(self.job(seen)), line=str(len(self.lines) + 1))
        return self.ssh.execute(self.host, command, timeout=None, on_line=line).reached

    def clear(self, seen: _Seen) -> None:
        """Take the job away: its end is told."""
        self.run(_CLEAR, remote=shlex.quote(f"{seen.cache}/remote"), job=self.cargo.job)

    def fetch_result(self, seen: _Seen, folder: Path | None) -> Fetched:
        """Fetch manifest and packages; each file must be what the manifest says."""
        said = self.run("cat @job@/result.json", job=shlex.quote(self.job(seen)))
        result: dict[str, Any] = json.loads(said[said.index("{") :])
        release = result["manifest"]["release"]
        here = folder or paths.cache_dir() / "fetched" / release
        here.mkdir(parents=True, exist_ok=True)
        with ui.step(f"Fetch {release} from {self.host.name}"):
            beside = here / manifests.name_beside(Path(result["kernel_rpm"]).name)
            manifest = self._fetch_manifest(result, beside)
            packages = [result["kernel_rpm"], result["devel_rpm"], *result["module_rpms"]]
            fetched = [self._fetch(name, here / Path(name).name, manifest) for name in packages]
        return Fetched(here, tuple(fetched), manifest, beside)

    def _fetch_manifest(self, result: Mapping[str, Any], path: Path) -> Manifest:
        self._fetch(f"{result['directory']}/manifest.json", path)
        try:
            manifest = manifests.load(path)
        except manifests.BadManifest as problem:
            raise FsdeployError(
                f"what came from {self.host.name} is no manifest: {problem}"
            ) from None
        if manifest.build_id != result["manifest"]["build_id"]:
            raise CheckFailed(f"{path} is of another build than {self.host.name} has just done")
        return manifest

    def _fetch(self, name: str, path: Path, manifest: Manifest | None = None) -> Path:
        part = path.with_name(f".{path.name}.part")
        with part.open("wb") as file:
            command = f"cat {shlex.quote(name)}"
            self._must(self.ssh.execute(self.host, command, stdout=file, timeout=None))
        wanted = manifest.outputs[path.name] if manifest else None
        found = manifests.describe_file(part)
        if wanted is not None and found != dict(wanted):
            part.unlink()
            raise CheckFailed(
                f"{path.name} came from {self.host.name} damaged: its sha256 is "
                f"{found['sha256']}, by the manifest it is {wanted['sha256']}",
                hint="the same command fetches it again",
            )
        part.replace(path)
        return path


def us() -> str:
    """Who we are, for somebody else who meets our build."""
    return f"{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"


def problem_of(host: str, code: int, lines: Sequence[str], log: Path | None) -> FsdeployError:
    """The error that a build ended with there, as one of ours."""
    said = list(lines)
    starts = [place for place, line in enumerate(said) if line.startswith("error: ")]
    text = f"the build ended with code {code}" + (f": {said[-1]}" if said else "")
    hint = ""
    if code == ExitCode.INTERRUPTED or code > 128:
        text, hint = "the build was ended", "the same command goes on with it"
    elif starts:
        rest = [line.strip() for line in said[starts[-1] :]]
        ends = [n for n, line in enumerate(rest) if re.match(r"what to do: |log: ", line)]
        text = "\n".join(rest[: ends[0] if ends else None]).removeprefix("error: ")
        told = dict(line.split(": ", 1) for line in rest if re.match(r"what to do: |log: ", line))
        hint = told.get("what to do", "")
        if "log" in told:
            text += f"\nall of it is in {host}:{told['log']}"
    known = code in (ExitCode.CHECK_FAILED, ExitCode.BAD_INPUT, ExitCode.INTERRUPTED)
    return FsdeployError(
        f"{host}: {text}",
        hint=hint,
        log=log,
        code=ExitCode(code) if known else ExitCode.CHECK_FAILED,
    )


def build_on(name: str, request: RemoteRequest, output: Path | None = None) -> Fetched:
    """Build on another machine, or come back to the build there, and fetch what it made.

    A connection that is lost is taken up again for some minutes; the build there notices nothing.
    Ctrl-C leaves it to itself.
    """
    if name.startswith("-"):
        raise FsdeployError(f"{name} is no host")
    run.require("ssh", "tar")
    here = cargo(request)
    own = Path.home() / ".ssh/config"
    inventory = Inventory(Path("--on"), (Host(name),), own if own.is_file() else None)
    with Ssh(inventory, log=new_log(f"build-on-{name}")) as ssh:
        remote = _Remote(ssh, inventory.host(name), here)
        try:
            return _build(remote, request.jobs, output)
        except KeyboardInterrupt:
            _say_how_to_go_on(remote)
            raise


def _build(remote: _Remote, jobs: int, output: Path | None) -> Fetched:
    host = remote.host.name
    seen = remote.look()
    followed = False
    while not seen.ended:
        if seen.running:
            if not followed:
                ui.note(f"the build on {host} is under way, begun by {seen.owner}")
        elif seen.cut and followed:
            raise FsdeployError(
                f"{host}: the build was ended without a word, by a boot or a lack of memory",
                hint="the same command goes on with it",
                log=remote.ssh.log,
            )
        else:
            if seen.cut:
                ui.note(f"the build on {host} was cut off; going on with it")
            remote.lines.clear()
            remote.begin(seen, jobs)
        followed = True
        remote.follow(seen)
        seen = remote.look_again()
    if not remote.follow(seen):
        raise Unreachable(f"{host} does not answer any more", hint=_COME_BACK)
    code = int(seen.ended)
    if code != 0:
        remote.clear(seen)
        raise problem_of(host, code, remote.lines, remote.ssh.log)
    fetched = remote.fetch_result(seen, output)
    remote.clear(seen)
    return fetched


def _say_how_to_go_on(remote: _Remote) -> None:
    """What a user should know who left a build behind."""
    host = remote.host.name
    try:
        seen = remote.look()
    except FsdeployError:
        ui.warn(f"if the build runs on {host}, it goes on there; {_COME_BACK}")
        return
    if seen.running:
        ui.warn(f"the build goes on on {host}; {_COME_BACK}")
        ui.warn(f"to end it: ssh {host} kill {seen.running}")
