# SPDX-License-Identifier: GPL-2.0-only
"""Kernel configurations: fragments, the distribution's merge, and the check of the result.

A configuration starts from a base (the distribution's own, defconfig or allnoconfig), has fragments
laid over and goes through the kernel's own Kconfig. Kconfig drops what does not fit without a word,
so each option a fragment asks for is looked up in the result.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fsdeploy.errors import FsdeployError
from fsdeploy.kernel import store
from fsdeploy.kernel.make import Make
from fsdeploy.kernel.source import Source
from fsdeploy.kernel.target import Fragment

Fragments = Sequence[Fragment]

_SET = re.compile(r"(CONFIG_\w+)=(.*)")
_UNSET = re.compile(r"# (CONFIG_\w+) is not set")
# merge.pl of the distribution: anywhere in the line, any word.
_MERGE_UNSET = re.compile(r"# (\w+) is not set")
_MERGE_SET = re.compile(r"(\w+)=")


@dataclass(frozen=True)
class Mismatch:
    """An option that did not get the value asked for."""

    option: str
    wanted: str
    got: str
    asked_by: str

    def __str__(self) -> str:
        return f"{self.option}={self.wanted} ({self.asked_by}) is {self.got}"


def parse(text: str) -> dict[str, str]:
    """Options of a .config or a fragment; `n` for one that `is not set`. The last word counts."""
    options: dict[str, str] = {}
    for line in text.splitlines():
        line = line.strip()
        if match := _SET.fullmatch(line):
            options[match[1]] = match[2]
        elif match := _UNSET.fullmatch(line):
            options[match[1]] = "n"
    return options


def read_fragment(fragment: Fragment) -> dict[str, str]:
    """Options of a fragment. Raises FsdeployError for a line that means nothing."""
    try:
        text = fragment.path.read_text(encoding="utf-8")
    except FileNotFoundError as problem:
        raise FsdeployError(f"there is no {fragment.path}") from problem
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        wrong = line and not line.startswith("#") and not _SET.fullmatch(line)
        if wrong or (line.startswith("# CONFIG_") and not _UNSET.fullmatch(line)):
            raise FsdeployError(
                f"{fragment.path}:{number}: {line!r} is not a line of a configuration",
                hint="CONFIG_X=value, or `# CONFIG_X is not set`, or a comment",
            )
    return parse(text)


def requested(fragments: Fragments) -> dict[str, tuple[str, str]]:
    """What the fragments ask for together: option to (value, fragment); later ones win."""
    return {
        option: (value, fragment.name)
        for fragment in fragments
        for option, value in read_fragment(fragment).items()
    }


def render(options: Mapping[str, str]) -> str:
    """Options in the form of a .config."""
    return "".join(
        f"# {option} is not set\n" if value == "n" else f"{option}={value}\n"
        for option, value in options.items()
    )


def mismatches(wanted: Mapping[str, tuple[str, str]], result: Mapping[str, str]) -> list[Mismatch]:
    """What was asked for and did not come true. An option that is not there counts as `n`."""
    found: list[Mismatch] = []
    for option, (value, asked_by) in wanted.items():
        got = result.get(option, "n")
        if _same(value, got):
            continue
        shown = "not there" if option not in result else got
        found.append(Mismatch(option, value, shown, asked_by))
    return found


def _same(wanted: str, got: str) -> bool:
    if wanted == got:
        return True
    try:
        return int(wanted, 0) == int(got, 0)
    except ValueError:
        return False


# --- the distribution's own configuration ---------------------------------------------------------


def merge(override: str, base: str, arch: str = "") -> str:
    """What CentOS's merge.pl makes of two files: `base` with the values of `override`.

    An option keeps its place in the base; those the base lacks follow in the order of the override.
    Of an option that stands twice in the override the first line counts; of one that stands twice
    in the base only the first is replaced. `arch` becomes a comment in the first line.
    """
    values: dict[str, str] = {}
    for line in override.splitlines(keepends=True):
        name = _merge_name(line)
        if name is not None:
            values.setdefault(name, line)
    merged = [f"# {arch}\n"] if arch else []
    for line in base.splitlines(keepends=True):
        name = _merge_name(line)
        merged.append(values.pop(name) if name in values and name is not None else line)
    return "".join([*merged, *values.values()])


def _merge_name(line: str) -> str | None:
    match = _MERGE_UNSET.search(line) or _MERGE_SET.search(line)
    return match[1] if match else None


def distribution_config(folder: Path) -> str:
    """The distribution's x86_64 configuration, merged as its Makefile.config does.

    Each config-X is first overlaid with config-X-rhel where there is one; then each of these goes
    over the one before: generic, nodebug, x86_64-generic, x86_64-nodebug.
    """

    def overlaid(name: str) -> str:
        text = _config_file(folder, name)
        rhel = folder / f"{name}-rhel"
        return merge(_config_file(folder, rhel.name), text) if rhel.is_file() else text

    generic = merge(overlaid("config-nodebug"), overlaid("config-generic"))
    x86_64 = merge(overlaid("config-x86_64-generic"), generic)
    return merge(overlaid("config-x86_64-nodebug"), x86_64, "x86_64")


def _config_file(folder: Path, name: str) -> str:
    try:
        return (folder / name).read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError as problem:
        raise FsdeployError(f"the source RPM has no {name}") from problem


# --- making a .config -----------------------------------------------------------------------------


def require_base(source: Source, fragments: Fragments) -> None:
    """Refuse the distribution's configuration where the source came without it."""
    if fragments[0].base == "distribution" and source.distribution is None:
        raise FsdeployError(
            f"{source.name} came as a {source.kind}, without the distribution's configuration "
            f"that the fragment {fragments[0].name} starts from",
            hint="name the source RPM (fsdeploy source add …src.rpm), or take --fragment lab",
        )


def make(source: Source, fragments: Fragments, maker: Make) -> dict[str, str]:
    """Write the tree's .config and return its options.

    `fragments[0]` has the base. Raises FsdeployError that lists every option of a fragment that did
    not get its value.
    """
    tree = maker.tree
    wanted = requested(fragments)
    overlay = render({option: value for option, (value, _) in wanted.items()})
    base = fragments[0].base
    config = tree / ".config"
    if base == "allnoconfig":
        request = tree / ".fsdeploy-request"
        store.write_atomically(request, overlay)
        maker.run("allnoconfig", KCONFIG_ALLCONFIG=str(request))
    else:
        if base == "distribution":
            assert source.distribution is not None
            text = distribution_config(source.distribution)
        else:
            maker.run("x86_64_defconfig")
            text = config.read_text(encoding="utf-8", errors="surrogateescape")
        store.write_atomically(config, without(text, wanted) + overlay)
        maker.run(_take_defaults(tree))
    result = parse(config.read_text(encoding="utf-8", errors="surrogateescape"))
    wrong = mismatches(wanted, result)
    if wrong:
        shown = "\n".join(f"  {mismatch}" for mismatch in wrong[:40])
        raise FsdeployError(
            f"{len(wrong)} options of the configuration did not get their value:\n{shown}",
            hint="each depends on something that is off, or was renamed: see its Kconfig entry",
            log=maker.log,
        )
    return result


def without(text: str, options: Mapping[str, object]) -> str:
    """A configuration less the lines about some options, so that each is said once."""
    return "".join(
        line
        for line in text.splitlines(keepends=True)
        if not ((match := _SET.match(line) or _UNSET.match(line)) and match[1] in options)
    )


def _take_defaults(tree: Path) -> str:
    """The make target that takes defaults for what is not said, by the age of the tree."""
    rules = (tree / "scripts/kconfig/Makefile").read_text(encoding="utf-8", errors="replace")
    # Red Hat's 2.6.32 has an olddefconfig of its own name; "loose" does not fail on new options.
    return "olddefconfig" if "olddefconfig" in rules else "loose_nonint_oldconfig"
