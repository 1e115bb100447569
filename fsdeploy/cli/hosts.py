# SPDX-License-Identifier: GPL-2.0-only
"""Arguments that several commands share: which hosts, in what form, how long to wait."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def add_hosts(parser: argparse.ArgumentParser, *, required: bool = True, note: str = "") -> None:
    """`--inventory` and `--limit`."""
    parser.add_argument(
        "--inventory",
        "-i",
        type=Path,
        required=required,
        metavar="FILE",
        help="Ansible inventory in YAML" + (f" ({note})" if note else ""),
    )
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="HOST",
        help="only these hosts or patterns; !HOST leaves one out",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """`--json`."""
    parser.add_argument("--json", action="store_true", help="the report as JSON")


def span(text: str) -> float:
    """A length of time: seconds, or a number with s, m or h."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no length of time: 90, 30m and 2h are")
    return float(match[1]) * _UNITS[match[2]]


def positive_span(text: str) -> float:
    """The same, more than nothing."""
    value = span(text)
    if value <= 0:
        raise argparse.ArgumentTypeError("must be more than 0")
    return value
