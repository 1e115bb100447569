# SPDX-License-Identifier: GPL-2.0-only
"""The kABI check: symbols that a distribution's third-party modules count on keep their CRC.

The CRC of a symbol is what genksyms computes from the types it reaches. Modules carry those of the
symbols they use, and a kernel with others refuses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Result:
    """How a comparison over the list went.

    `compared` symbols are in the list and in the stock build; `changed` and `gone` break the kABI.
    `as_published` counts those whose CRC is the one in the list itself: all of them in a build of
    the distribution's whole configuration, fewer in a small one.
    """

    listed: int
    compared: int
    changed: tuple[str, ...]
    gone: tuple[str, ...]
    as_published: int

    @property
    def is_same(self) -> bool:
        """Whether every module that loaded on stock still loads."""
        return not self.changed and not self.gone

    def describe(self) -> dict[str, Any]:
        """For the manifest."""
        return {"state": "same" if self.is_same else "changed", **asdict(self)}


def not_applicable(reason: str) -> dict[str, Any]:
    """For the manifest, when there is nothing to compare."""
    return {"state": "not applicable", "reason": reason}


def parse_symvers(text: str) -> dict[str, str]:
    """Symbol to CRC, of Module.symvers and of the distribution's Module.kabi_*."""
    symbols: dict[str, str] = {}
    for line in text.splitlines():
        # Tabs, but for some lines of the published list.
        words = line.split()
        if len(words) >= 2 and words[0].startswith("0x"):
            symbols[words[1]] = words[0].lower()
    return symbols


def compare(
    kabi: Mapping[str, str], stock: Mapping[str, str], patched: Mapping[str, str]
) -> Result:
    """Compare the patched build with the stock one over the symbols of the list."""
    compared = [symbol for symbol in kabi if symbol in stock]
    return Result(
        listed=len(kabi),
        compared=len(compared),
        changed=tuple(
            symbol for symbol in compared if symbol in patched and patched[symbol] != stock[symbol]
        ),
        gone=tuple(symbol for symbol in compared if symbol not in patched),
        as_published=sum(1 for symbol in compared if patched.get(symbol) == kabi[symbol]),
    )
