# SPDX-License-Identifier: GPL-2.0-only
"""The states of a host in a rollout, and which one may follow which.

A host's way:

    planned → preflight → staged → armed → trial → verified → promoted
        └─────────┴→ refused  └────────┴───────┴────────┴→ rolled-back
                                        └───────┴────────┴→ lost

`refused`: nothing was changed on the host. `rolled-back`: it runs the kernel it ran before.
`lost`: it does not answer after a boot; once it does, `rollout --resume` goes on from there.
A state says what is known to be done, and is written after it, with one exception: `trial` is
written *before* the host is told to boot (standing.py has the reason).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class State(StrEnum):
    """Where a host stands in a rollout."""

    PLANNED = "planned"
    PREFLIGHT = "preflight"
    STAGED = "staged"
    ARMED = "armed"
    TRIAL = "trial"
    VERIFIED = "verified"
    PROMOTED = "promoted"
    REFUSED = "refused"
    ROLLED_BACK = "rolled-back"
    LOST = "lost"


FINAL = frozenset({State.PROMOTED, State.REFUSED, State.ROLLED_BACK, State.LOST})

# Something of a rollout is on these hosts that must not be left there: they come to an end first.
HALF_WAY = frozenset({State.ARMED, State.TRIAL, State.VERIFIED})

# A state may always be written again, with a new reason or new facts. One step back is taken where
# the host says that what the journal has is not there any more.
NEXT: Mapping[State, frozenset[State]] = {
    State.PLANNED: frozenset({State.PREFLIGHT, State.REFUSED}),
    # promoted at once: the host runs the release already.
    State.PREFLIGHT: frozenset({State.STAGED, State.REFUSED, State.ROLLED_BACK, State.PROMOTED}),
    State.STAGED: frozenset({State.ARMED, State.ROLLED_BACK, State.PREFLIGHT}),
    State.ARMED: frozenset({State.TRIAL, State.ROLLED_BACK, State.STAGED}),
    State.TRIAL: frozenset({State.VERIFIED, State.ROLLED_BACK, State.LOST, State.STAGED}),
    State.VERIFIED: frozenset({State.PROMOTED, State.ROLLED_BACK, State.LOST}),
    State.PROMOTED: frozenset({State.ROLLED_BACK, State.LOST}),
    State.REFUSED: frozenset(),
    State.ROLLED_BACK: frozenset(),
    # It answers again: what it runs decides, as after any trial boot.
    State.LOST: frozenset({State.TRIAL, State.ROLLED_BACK}),
}

# The steps of a host, in order: (state it is in afterwards, what is done).
STEPS: tuple[tuple[State, str], ...] = (
    (State.PREFLIGHT, "look at the host, change nothing"),
    (State.STAGED, "bring the package, check it, install it beside the running kernel"),
    (State.ARMED, "let the boot loader start it once"),
    (State.TRIAL, "boot"),
    (State.VERIFIED, "run the checks on it"),
    (State.PROMOTED, "make it the default"),
)
