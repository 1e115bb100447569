# SPDX-License-Identifier: GPL-2.0-only
"""CPU masks and CPU lists, as the kernel writes and reads them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

_GROUP = 32


def mask_text(cpus: Iterable[int], width: int) -> str:
    """A set of CPUs as a mask of `width` bits: groups of 32 bits, the highest first.

    A group has eight digits; the first one only as many as its bits need. ValueError for a CPU that
    does not fit.
    """
    number = 0
    for cpu in cpus:
        if not 0 <= cpu < width:
            raise ValueError(f"CPU {cpu} is not one of {width}")
        number |= 1 << cpu
    groups = []
    for first in range(0, width, _GROUP):
        bits = min(_GROUP, width - first)
        digits = -(-bits // 4)
        groups.append(f"{number >> first & ((1 << bits) - 1):0{digits}x}")
    return ",".join(reversed(groups))


def parse_mask(text: str) -> frozenset[int]:
    """The CPUs of a mask; ValueError when it is not one."""
    number = 0
    for group in text.strip().split(","):
        if not re.fullmatch("[0-9a-fA-F]{1,8}", group):
            raise ValueError(f"{text.strip()!r} is not a CPU mask")
        number = number << _GROUP | int(group, 16)
    return frozenset(cpu for cpu in range(number.bit_length()) if number >> cpu & 1)


def parse_list(text: str) -> tuple[int, ...]:
    """Numbers of a list like 0-3,8, in ascending order; ValueError when it is not one."""
    numbers: set[int] = set()
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        if not first.strip().isdecimal() or (dash and not last.strip().isdecimal()):
            raise ValueError(f"{text.strip()!r} is not a list like 0-3,8")
        numbers.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(numbers))


def list_text(numbers: Iterable[int]) -> str:
    """Numbers as a list like 0-3,8."""
    parts = []
    # Numbers in a row have the same distance to their place.
    for _, run in itertools.groupby(
        enumerate(sorted(set(numbers))), key=lambda pair: pair[1] - pair[0]
    ):
        row = [number for _, number in run]
        parts.append(f"{row[0]}-{row[-1]}" if len(row) > 1 else str(row[0]))
    return ",".join(parts)
