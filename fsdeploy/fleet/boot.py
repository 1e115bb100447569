# SPDX-License-Identifier: GPL-2.0-only
"""Waits for hosts to come back from a boot."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from fsdeploy.fleet.transport import Pulse

_POLL_SECONDS = 3.0


def await_boot(
    ask: Callable[[Sequence[str]], Mapping[str, Pulse | None]],
    before: Mapping[str, str],
    timeout: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Pulse | None]:
    """Wait until every host shows another boot id than `before`; None for one that does not."""
    deadline = clock() + timeout
    found: dict[str, Pulse | None] = dict.fromkeys(before)
    while missing := [host for host, pulse in found.items() if pulse is None]:
        answers = ask(missing)
        found.update(
            {
                host: pulse
                for host, pulse in answers.items()
                if pulse and pulse.boot_id != before[host]
            }
        )
        if clock() >= deadline:
            break
        if None in found.values():
            sleep(_POLL_SECONDS)
    return found
