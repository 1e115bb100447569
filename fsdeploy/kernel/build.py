# SPDX-License-Identifier: GPL-2.0-only
"""Building a kernel: from a request to packages in the cache.

A build is identified by the hash of everything that goes into it. `builds/NAME` appears whole, by a
rename, with its manifest; until then the work is in `builds/NAME.work`, where an interrupted build
goes on. `builds/NAME.lock` keeps two of the same from each other.

    tree      hard links to the cached source, the series applied, the release set
    config    base and fragments through Kconfig, every requested option checked
    compile   make, through ccache where there is one; then modules of ours, against the tree
    kabi      symbol versions compared with the stock build's
    stage     what the packages hold, in root/
    package   rpmbuild, and the whole folder moves to its place
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fsdeploy import paths, run, ui
from fsdeploy.errors import CheckFailed, FsdeployError
from fsdeploy.kernel import config, kabi, package, stage, store
from fsdeploy.kernel import manifest as manifests
from fsdeploy.kernel import series as patch_series
from fsdeploy.kernel import source as sources
from fsdeploy.kernel import target as targets
from fsdeploy.kernel.make import ARCH, Make, require_headers
from fsdeploy.kernel.manifest import Manifest
from fsdeploy.kernel.source import Source
from fsdeploy.kernel.target import Fragment, Target

# Part of every build's identity: raise it when the steps below change what comes out.
RECIPE = 2

TEMPLATE = "kernel.spec.in"

# A kernel without a date of its own (a tree, no patches) says it was built on this day.
_NO_DATE = 1262304000  # 2010-01-01
# Age in seconds of an interrupted build's work that is not kept any longer.
_FORGOTTEN = 7 * 24 * 3600
# Space a build takes where nobody measured it, by what its configuration starts from.
_SPACE = {"allnoconfig": 2 * store.GIB, "defconfig": 5 * store.GIB, "distribution": 16 * store.GIB}

# These leave their mark on the result: their versions are part of a build's identity.
_MARKING_TOOLS = ("gcc", "ld", "make", "perl", "rpmbuild")
_OTHER_TOOLS = ("patch", "cp", "tar", "cpio", "bc", "flex", "bison", "rpm")
# Linking and archiving are quick and come in between: they would only blur the estimate.
_COMPILE_STEP = re.compile(r"\s{2}(HOST)?(CC|AS)(\s+\[M\])?\s+\S")


@dataclass(frozen=True)
class BuildRequest:
    """What to build. `fragments[0]` has the base; `jobs` 0 is one for each core."""

    target: Target
    source: Source
    fragments: tuple[Fragment, ...]
    stock: bool = False
    jobs: int = 0


@dataclass(frozen=True)
class Identity:
    """What a request comes to before anything is done: the build's names, and its inputs."""

    build_id: str
    name: str  # of the folder in the cache
    package: str
    rpm_version: str
    rpm_release: str
    inputs: Mapping[str, Any]
    patches: tuple[patch_series.Patch, ...]
    epoch: int

    @property
    def release(self) -> str:
        """`uname -r` of the kernel: version-release.arch of its package."""
        return f"{self.rpm_version}-{self.rpm_release}.{ARCH}"


@dataclass(frozen=True)
class Build:
    """A finished build in the cache."""

    directory: Path
    manifest: Manifest
    kernel_rpm: Path
    devel_rpm: Path

    @property
    def release(self) -> str:
        """`uname -r`."""
        return self.manifest.release

    @property
    def image(self) -> Path:
        """The bzImage."""
        return self.directory / f"root/boot/vmlinuz-{self.release}"

    @property
    def config(self) -> Path:
        """The .config."""
        return self.directory / f"root/boot/config-{self.release}"

    @property
    def vmlinux(self) -> Path:
        """The ELF file with all symbols."""
        return self.directory / "vmlinux"

    @property
    def symvers(self) -> Path:
        """Module.symvers."""
        return self.directory / "Module.symvers"

    @property
    def modules(self) -> Path:
        """Folder that holds lib/modules/RELEASE."""
        return self.directory / "root"

    @property
    def headers(self) -> Path:
        """Folder for `make -C`: what the -devel package holds."""
        return self.directory / f"root/usr/src/kernels/{self.release}"

    @property
    def module_rpms(self) -> tuple[Path, ...]:
        """The packages of modules of ours."""
        return tuple(sorted(self.directory.glob("kmod-*.rpm")))

    def module(self, name: str) -> Path:
        """A module of ours."""
        return self.modules / f"lib/modules/{self.release}/{stage.module_folder(name)}/{name}.ko"


# --- what a request comes to ----------------------------------------------------------------------


def request(
    target: str,
    source: str = "",
    fragments: tuple[str, ...] = ("fleet",),
    *,
    stock: bool = False,
    jobs: int = 0,
) -> BuildRequest:
    """A request by names. Unpacks the source into the cache when it is not there."""
    chosen = targets.load(target)
    pieces = chosen.choose(fragments)
    require_tools()
    found = sources.resolve(chosen, source)
    config.require_base(found, pieces)
    return BuildRequest(chosen, found, pieces, stock, jobs)


def require_tools() -> None:
    """Stop before anything is done when a tool is missing."""
    run.require(*_MARKING_TOOLS, *_OTHER_TOOLS)


def tool_versions() -> dict[str, str]:
    """First line of `--version` of each tool that leaves its mark on the result."""
    return {
        tool: run.run([tool, "--version"]).output.strip().splitlines()[0].strip()
        for tool in _MARKING_TOOLS
    }


def identify(wanted: BuildRequest, tools: Mapping[str, str]) -> Identity:
    """The identity of a request's build."""
    target, source = wanted.target, wanted.source
    patches = patch_series.read(target.patches).part(stock=wanted.stock)
    inputs: dict[str, Any] = {
        "recipe": RECIPE,
        "template": package.template_digest(TEMPLATE),
        "target": target.name,
        "revision": target.revision,
        "stock": wanted.stock,
        "source": source.digest,
        "patches": [[patch.name, patch.digest] for patch in patches],
        "base": wanted.fragments[0].base,
        "fragments": [[fragment.name, _digest(fragment.path)] for fragment in wanted.fragments],
        "tools": dict(tools),
    }
    if target.modules and not wanted.stock:
        inputs["modules"] = [
            [folder.name, [[path.name, _digest(path)] for path in sorted(folder.iterdir())]]
            for folder in target.modules
        ]
    canonical = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    build_id = hashlib.sha256(canonical.encode()).hexdigest()
    kind = "stock" if wanted.stock else f"fs{target.revision}"
    parts = [source.release, kind, build_id[:8]] if source.release else [kind, build_id[:8]]
    return Identity(
        build_id=build_id,
        name=f"{target.name}-{kind}-{build_id[:8]}",
        package="kernel-stock" if wanted.stock else "kernel-fastsocket",
        rpm_version=source.version,
        rpm_release=".".join(parts),
        inputs=inputs,
        patches=patches,
        epoch=max([source.epoch, *(patch.epoch for patch in patches)]) or _NO_DATE,
    )


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError as problem:
        raise FsdeployError(f"there is no {path}") from problem


def folder() -> Path:
    """Where builds are."""
    return paths.cache_dir() / "builds"


def existing(identity: Identity) -> Build | None:
    """The finished build, or None. One whose manifest or packages are not whole is none."""
    directory = folder() / identity.name
    try:
        manifest = manifests.load(directory / "manifest.json")
    except manifests.BadManifest:
        return None
    build = _build(directory, manifest, identity)
    whole = manifest.build_id == identity.build_id and all(
        (directory / name).is_file() and (directory / name).stat().st_size == description["bytes"]
        for name, description in manifest.outputs.items()
    )
    return build if whole else None


def _build(directory: Path, manifest: Manifest, identity: Identity) -> Build:
    tail = f"{identity.rpm_version}-{identity.rpm_release}.{ARCH}.rpm"
    return Build(
        directory=directory,
        manifest=manifest,
        kernel_rpm=directory / f"{identity.package}-{tail}",
        devel_rpm=directory / f"{identity.package}-devel-{tail}",
    )


# --- building -------------------------------------------------------------------------------------


def build_kernel(wanted: BuildRequest) -> Build:
    """Build, or take the finished build of the same inputs.

    Raises FsdeployError for everything a user can cause: an error names the step, what it stopped
    at and the log. What was compiled is kept for the next try, except on a full disk.
    """
    require_tools()
    tools = tool_versions()
    identity = identify(wanted, tools)
    ready = existing(identity)
    if ready:
        ui.note(f"{identity.release} is built already")
        return ready
    config.require_base(wanted.source, wanted.fragments)
    for fragment in wanted.fragments:
        config.read_fragment(fragment)
    with store.exclusive(folder() / f"{identity.name}.lock", f"the build of {identity.release}"):
        ready = existing(identity)
        if ready:
            ui.note(f"{identity.release} was built meanwhile")
            return ready
        return _Work(wanted, identity, tools).do()


class _Work:
    """One build in progress. Its lock is held."""

    def __init__(self, wanted: BuildRequest, identity: Identity, tools: Mapping[str, str]) -> None:
        self.wanted = wanted
        self.identity = identity
        self.tools = tools
        self.work = folder() / f"{identity.name}.work"
        self.tree = self.work / "tree"
        self.out = self.work / "out"
        self.root = self.out / "root"
        self.log = paths.log_dir() / f"build-{identity.name}.log"
        self.make = Make(self.tree, identity.epoch, self.log, wanted.jobs)
        self.options: dict[str, str] = {}
        self.kabi: dict[str, Any] = {}

    def do(self) -> Build:
        """All steps."""
        name = self.identity.release
        with store.full_disk_named(folder(), f"the build of {name}"), ui.step(f"Build {name}"):
            try:
                self._prepare_work()
                self._step("tree", "Apply the series", self._make_tree)
                self._step("config", "Configure", self._configure)
                self.options = config.parse(
                    (self.tree / ".config").read_text(encoding="utf-8", errors="surrogateescape")
                )
                self._step("compile", "Compile", self._compile)
                self.kabi = self._compare_kabi()
                store.remove_tree(self.out)
                self._step("stage", "Stage", self._stage, again=True)
                self._step("package", "Package", self._package, again=True)
                return self._finish()
            except BaseException as problem:
                if _is_full(problem):
                    store.remove_tree(self.work)
                elif isinstance(problem, KeyboardInterrupt):
                    ui.note("what is compiled is kept: the same command goes on from here")
                raise

    # --- steps ---

    def _prepare_work(self) -> None:
        state = self._state()
        if state.get("build_id") == self.identity.build_id:
            done = ", ".join(state["done"]) or "nothing finished"
            ui.note(f"going on with an interrupted build (done: {done})")
            return
        store.remove_tree(self.work)
        _sweep()
        needed = self._space()
        store.require_space(folder(), needed, f"the build of {self.identity.release}")
        self.work.mkdir(parents=True)
        self.log.unlink(missing_ok=True)
        self._write_state({"build_id": self.identity.build_id, "done": [], "durations": {}})

    def _make_tree(self) -> None:
        sources.require_intact(self.wanted.source)
        patch_series.clone_tree(self.wanted.source.tree, self.tree)
        for patch in self.identity.patches:
            patch_series.apply_one(patch, self.tree, where=self.wanted.source.name, log=self.log)
        self._set_release()

    def _set_release(self) -> None:
        """Make `uname -r` the package's version and release, as the distribution's spec does."""
        makefile = self.tree / "Makefile"
        text = makefile.read_text(encoding="utf-8", errors="surrogateescape")
        extra = self.identity.release.removeprefix(self.identity.rpm_version)
        text, count = re.subn(r"(?m)^EXTRAVERSION\b.*$", f"EXTRAVERSION = {extra}", text, count=1)
        if count != 1:
            raise FsdeployError(f"the Makefile of {self.wanted.source.name} has no EXTRAVERSION")
        store.write_atomically(makefile, text)

    def _configure(self) -> None:
        result = config.make(self.wanted.source, self.wanted.fragments, self.make)
        require_headers(result)
        # Its time would go into a kernel that carries its configuration.
        os.utime(self.tree / ".config", (self.identity.epoch, self.identity.epoch))
        self.make.run("include/config/kernel.release")
        release = (self.tree / "include/config/kernel.release").read_text(encoding="utf-8").strip()
        if release != self.identity.release:
            raise FsdeployError(
                f"the kernel would call itself {release} and not {self.identity.release}",
                hint="take CONFIG_LOCALVERSION and localversion files out of the configuration "
                "and the source",
            )
        for name in ("include/linux/autoconf.h", "include/config/auto.conf"):
            _without_time_of_day(self.tree / name)

    def _compile(self) -> None:
        goals = ["bzImage", *(["modules"] if self._has_modules() else [])]
        total, guess = self._expected_steps()
        if total is None:
            ui.note("no earlier build to estimate from")
        elif guess:
            ui.note("the estimate is from a build on another machine")
        before = int(self._state().get("steps", 0))
        seen = 0
        with ui.progress("Compile", total) as meter:

            def count(line: str) -> None:
                nonlocal seen
                if _COMPILE_STEP.match(line):
                    seen += 1
                    meter.reach(seen)

            try:
                self.make.run(*goals, on_line=count)
            finally:
                # An interrupted compile goes on with what is left.
                with contextlib.suppress(OSError):
                    self._write_state({**self._state(), "steps": before + seen})
        for folder in self._own_modules():
            stage.compile_module(self.make, folder)

    def _compare_kabi(self) -> dict[str, Any]:
        listed = self.wanted.source.kabi_list
        if listed is None:
            return kabi.not_applicable("the source has no kABI list")
        if self.options.get("CONFIG_MODVERSIONS") != "y":
            return kabi.not_applicable("the configuration has no symbol versions")
        ours = kabi.parse_symvers((self.tree / "Module.symvers").read_text(encoding="utf-8"))
        symbols = kabi.parse_symvers(listed.read_text(encoding="utf-8"))
        if self.wanted.stock:
            result = kabi.compare(symbols, ours, ours)
            return {**result.describe(), "state": "reference"}
        with ui.step("Compare the kABI with stock"):
            # The list is the distribution's own build. Who has all of it unchanged, as a build of
            # the whole configuration can, need not build stock to compare with.
            result, reference = kabi.compare(symbols, symbols, ours), "as published"
            if not result.is_same:
                stock = build_kernel(replace(self.wanted, stock=True))
                theirs = kabi.parse_symvers(stock.symvers.read_text(encoding="utf-8"))
                result, reference = kabi.compare(symbols, theirs, ours), stock.release
            ui.note(
                f"{result.compared} of {result.listed} listed symbols are in this configuration, "
                f"{len(result.changed)} changed, {len(result.gone)} gone"
            )
        if not result.is_same:
            broken = [*result.changed, *result.gone]
            raise CheckFailed(
                f"the series breaks the kABI: {len(result.changed)} symbols changed, "
                f"{len(result.gone)} are gone: {', '.join(broken[:20])}"
                + (" …" if len(broken) > 20 else ""),
                hint="new state goes into holes, side tables, or behind __GENKSYMS__ where the "
                "layout is proven equal",
                log=self.log,
            )
        return {**result.describe(), "stock": reference}

    def _stage(self) -> None:
        stage.stage(self.make, self.identity.release, self.out, modules=self._has_modules())
        for folder in self._own_modules():
            stage.install_module(self.make, folder, self.root)

    def _package(self) -> None:
        identity = self.identity
        manifest = self._manifest(
            {
                name: manifests.describe_file(self.out / name)
                for name in (
                    "vmlinux",
                    f"root/boot/vmlinuz-{identity.release}",
                    f"root/boot/config-{identity.release}",
                )
            }
        )
        inside = self.root / "usr/share/fsdeploy" / identity.release
        inside.mkdir(parents=True)
        manifests.save(manifest.packaged(), inside / "manifest.json")
        spec = package.render(TEMPLATE, self._spec_values())
        packages = package.build(spec, self.root, self.work / "rpm", identity.epoch, self.log)
        for path in packages:
            path.rename(self.out / path.name)

    def _spec_values(self) -> dict[str, Any]:
        wanted, identity = self.wanted, self.identity
        if wanted.stock:
            summary = f"The {wanted.target.title} kernel without Fastsocket"
            text = (
                f"{wanted.source.name} as it is, built by the same tools as kernel-fastsocket: to "
                "compare with,\nand to fall back to."
            )
        else:
            summary = f"The {wanted.target.title} kernel with Fastsocket"
            text = (
                f"{wanted.source.name} with the Fastsocket series, revision "
                f"{wanted.target.revision}: short TCP connections that scale\nwith the cores."
            )
        return {
            "name": identity.package,
            "rpm_version": identity.rpm_version,
            "rpm_release": identity.rpm_release,
            "release": identity.release,
            "summary": summary,
            "description": text,
            "modules": [
                {"name": folder.name, "folder": stage.module_folder(folder.name)}
                for folder in self._own_modules()
            ],
        }

    def _finish(self) -> Build:
        identity = self.identity
        directory = folder() / identity.name
        files = [*self.out.glob("*.rpm"), self.out / "vmlinux"]
        files += (self.root / "boot").iterdir()
        files += (self.root / "lib/modules").rglob("*.ko")
        outputs = {
            str(path.relative_to(self.out)): manifests.describe_file(path) for path in sorted(files)
        }
        manifest = self._manifest(outputs)
        manifests.save(manifest, self.out / "manifest.json")
        store.remove_tree(directory)
        self.out.rename(directory)
        self._remember_steps(int(self._state().get("steps", 0)))
        store.remove_tree(self.work)
        return _build(directory, manifest, identity)

    def _manifest(self, outputs: Mapping[str, Mapping[str, Any]]) -> Manifest:
        wanted, identity = self.wanted, self.identity
        return Manifest(
            build_id=identity.build_id,
            release=identity.release,
            target=wanted.target.name,
            stock=wanted.stock,
            source={
                "name": wanted.source.name,
                "kind": wanted.source.kind,
                "origin": wanted.source.origin,
                "sha256": wanted.source.digest,
            },
            patches=tuple({"name": p.name, "sha256": p.digest} for p in identity.patches),
            configuration={
                "base": wanted.fragments[0].base,
                "fragments": [
                    {"name": name, "sha256": digest}
                    for name, digest in identity.inputs["fragments"]
                ],
                "sha256": _digest(self.root / f"boot/config-{identity.release}"),
            },
            tools=self.tools,
            kabi=self.kabi,
            durations=self._state().get("durations", {}),
            outputs=outputs,
        )

    def _has_modules(self) -> bool:
        return self.options.get("CONFIG_MODULES") == "y"

    def _own_modules(self) -> tuple[Path, ...]:
        return () if self.wanted.stock or not self._has_modules() else self.wanted.target.modules

    # --- bookkeeping ---

    def _step(
        self, name: str, title: str, action: Callable[[], None], *, again: bool = False
    ) -> None:
        """Do a step unless it is done; `again` for one that is cheap and never half kept."""
        state = self._state()
        if name in state["done"] and not again:
            return
        began = time.monotonic()
        spent = state["durations"].get(name, 0.0) if not again else 0.0
        try:
            with ui.step(title):
                action()
        except BaseException:
            # What an interrupted try took counts; a disk that is full keeps no books.
            with contextlib.suppress(OSError):
                self._record(name, spent + time.monotonic() - began)
            raise
        self._record(name, spent + time.monotonic() - began, done=True)

    def _record(self, name: str, seconds: float, *, done: bool = False) -> None:
        state = self._state()
        state["durations"][name] = round(seconds, 1)
        if done:
            state["done"] = list(dict.fromkeys([*state["done"], name]))
        self._write_state(state)

    def _state(self) -> dict[str, Any]:
        try:
            state = json.loads((self.work / "state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {"done": [], "durations": {}}
        return state if isinstance(state, dict) else {"done": [], "durations": {}}

    def _write_state(self, state: Mapping[str, Any]) -> None:
        store.write_atomically(self.work / "state.json", json.dumps(state))

    def _space(self) -> int:
        first = self.wanted.fragments[0]
        return max(
            _SPACE[first.base] if not first.space else first.space,
            *(fragment.space for fragment in self.wanted.fragments),
        )

    def _steps_file(self) -> Path:
        names = "+".join(fragment.name for fragment in self.wanted.fragments)
        return folder() / f"steps-{self.wanted.target.name}-{names}"

    def _expected_steps(self) -> tuple[float | None, bool]:
        """How many compile steps lie ahead, and whether that is a guess made elsewhere."""
        done = int(self._state().get("steps", 0))
        try:
            return max(1, int(self._steps_file().read_text(encoding="ascii")) - done), False
        except (OSError, ValueError):
            known = sum(fragment.steps for fragment in self.wanted.fragments)
            return (float(max(1, known - done)), True) if known else (None, True)

    def _remember_steps(self, steps: int) -> None:
        if steps:
            store.write_atomically(self._steps_file(), f"{steps}\n")


def _sweep() -> None:
    """Remove the work of builds that nobody went on with for a week."""
    for work in folder().glob("*.work"):
        lock = work.with_suffix(".lock")
        if time.time() - work.stat().st_mtime > _FORGOTTEN and not store.is_held(lock):
            store.remove_tree(work)


def _is_full(problem: BaseException) -> bool:
    return isinstance(problem, Exception) and store.says_full(problem)


def _without_time_of_day(path: Path) -> None:
    """Take out the line with the time that Kconfig of 2.6.32 writes into what it generates."""
    if not path.is_file():
        return
    times = path.stat()
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    text = re.sub(r"(?m)^[#* ]+ \w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\n", "", text, count=1)
    store.write_atomically(path, text)
    # make goes by its age.
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
