# SPDX-License-Identifier: GPL-2.0-only
"""The guest programs there are, and which kernels each runs on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent

# What is built of a target: the series or not, the debug fragment over the lab's or not.
VARIANTS: Mapping[str, tuple[str, ...]] = {
    "el6": ("stock", "patched", "stock-debug", "patched-debug"),
    "lts61": ("stock", "patched", "patched-debug"),
}

_OPTIONS = re.compile(r"^ \* guest: (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Options:
    """What the line `guest: key=value …` in a program's first comment asks for.

    `variants` narrows down where the program runs. `modules` are of ours, loaded before the
    programs of the guest run, where the target has them. Programs with the same machine (cpus,
    memory, append, modules, cable) share a guest.
    """

    seconds: float = 60
    cpus: int = 2
    memory: int = 512
    append: str = ""
    modules: tuple[str, ...] = ()
    cable: bool = False
    variants: tuple[str, ...] = ()


@dataclass(frozen=True)
class Boot:
    """One guest: a kernel and a machine."""

    target: str
    variant: str
    cpus: int = 2
    memory: int = 512
    append: str = ""
    modules: tuple[str, ...] = ()
    cable: bool = False

    @property
    def has_modules(self) -> bool:
        """Whether there are modules of ours for this kernel."""
        return self.target == "el6" and self.patched

    @property
    def patched(self) -> bool:
        return self.variant.startswith("patched")

    @property
    def debug(self) -> bool:
        return self.variant.endswith("-debug")

    def __str__(self) -> str:
        words = [f"{self.target}-{self.variant}"]
        if self.cpus != Options.cpus:
            words.append(f"{self.cpus}cpus")
        if self.memory != Options.memory:
            words.append(f"{self.memory}M")
        words += self.append.split()
        words += self.modules
        if self.cable:
            words.append("cable")
        return ",".join(words)


@dataclass(frozen=True)
class Case:
    """One program in one guest."""

    boot: Boot
    source: Path
    seconds: float

    @property
    def name(self) -> str:
        return self.source.stem

    def __str__(self) -> str:
        return f"{self.boot}-{self.name}"


def options(source: Path) -> Options:
    """The options of a program; ValueError for one that does not exist."""
    found = _OPTIONS.search(source.read_text(encoding="utf-8"))
    values = dict(word.split("=", 1) for word in found[1].split()) if found else {}
    unknown = set(values) - {"seconds", "cpus", "memory", "append", "modules", "cable", "variants"}
    if unknown:
        raise ValueError(f"{source.name}: unknown option {', '.join(sorted(unknown))}")
    return Options(
        seconds=float(values.get("seconds", Options.seconds)),
        cpus=int(values.get("cpus", Options.cpus)),
        memory=int(values.get("memory", Options.memory)),
        append=values.get("append", "").replace(",", " "),
        modules=tuple(values["modules"].split(",")) if "modules" in values else (),
        cable=values.get("cable", "0") == "1",
        variants=tuple(values["variants"].split(",")) if "variants" in values else (),
    )


def cases() -> list[Case]:
    """Every program in every guest it runs in, those of one guest together."""
    found: list[Case] = []
    for target, variants in VARIANTS.items():
        sources = sorted((HERE / "common").glob("*.c")) + sorted((HERE / target).glob("*.c"))
        for variant in variants:
            for source in sources:
                wanted = options(source)
                if wanted.variants and variant not in wanted.variants:
                    continue
                boot = Boot(
                    target,
                    variant,
                    wanted.cpus,
                    wanted.memory,
                    wanted.append,
                    wanted.modules if Boot(target, variant).has_modules else (),
                    wanted.cable,
                )
                found.append(Case(boot, source, wanted.seconds))
    return sorted(found, key=lambda case: (case.boot.target, case.boot.variant, str(case.boot)))


def boots() -> list[Boot]:
    """Every guest there is."""
    return list(dict.fromkeys(case.boot for case in cases()))
