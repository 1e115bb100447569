# SPDX-License-Identifier: GPL-2.0-only
"""Where a host really stands, from what the journal says and what the host says. Pure.

The control process may die between any two of its instructions, by SIGKILL or a power cut, and
`rollout --resume` must finish without doing a step twice and without a host left half way. Why it
does:

1. The journal never claims more than was done. A state is written after its step has ended on the
   host (a transaction that is on disk before the next step begins), so a death in between leaves
   the journal one step *behind* the host, never ahead of it. A wave is one ansible-playbook run a
   step: its hosts may all be such a step ahead, or half of them.

2. The boot is the exception, since it cannot be asked for afterwards whether it was told: `trial`
   is written *before*. The command names the boot that it ends and does nothing in any other, so
   telling a host a second time, however late, cannot boot it out of its trial:

       journal `armed`, boot id B  →  write `trial`  →  "if your boot id is B, boot"  →  wait
                                  ↑ dies here: B still runs and is told (again)
                                                   ↑ dies here: another boot runs, nobody is told

3. What a host did is read from the host before anything is done to it (`Seen`): which boot this is
   (boot_id), which kernel runs (uname), what the boot loader will start (default and the once
   word), and for which kernel the single boot was armed (`tried`, a record beside the boot
   loader's own that `arm` leaves, and that taking the arming back removes). These tell all cases
   apart: `stand` below. The once word alone would not: it is clear before the arming and after
   the trial.

       journal says    host says                                  so it stands in
       staged          this boot, once word set                   armed: the play had got there
       staged          other boot, armed before (`tried`)         trial: it booted by itself
       armed, trial    this boot, once word clear                 staged: somebody took it back
       trial           this boot, once word set                   trial: told now, or told again
       any of these    the new kernel runs                        trial: its checks come next
       armed … verified  other boot, another kernel runs          its trial is over: it fell back

   A step that the host has done is not done again, and one that is only half done (a package that
   is copied and not installed) is finished by its role, which asks the host first, too.

4. Going back is several steps over a boot (default, boot, clean up) and is announced: the reason
   is in the journal as `going_back` before the first of them, and leads straight there at the
   resume. Otherwise a host that was sent back for a failed check would look like one whose trial
   kernel did not stay up.

5. Nothing of the killed run is still at work on a host when `Seen` is read: ansible-playbook and
   all its workers hold a lock file open that the control process passed on to them, and the
   resume waits until the last of them is gone (Journal.lock).

The checks before and after the promotion, and the looks, change nothing and may be repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fsdeploy.fleet.states import State


@dataclass(frozen=True)
class Seen:
    """What a host says of itself. None: its boot loader could not be read, only its boot is known.

    `once` is the kernel that starts once, empty when none; `tried` the one that was armed last and
    not taken back.
    """

    boot_id: str
    running: str
    default: str | None = None
    once: str | None = None
    tried: str | None = None


@dataclass(frozen=True)
class Standing:
    """Where a host stands. `fell`: its trial is over and it runs another kernel."""

    state: State
    fell: bool = False


def stand(state: State, facts: Mapping[str, Any], release: str, seen: Seen) -> Standing:
    """Where a host stands that the journal has in `state`, one from `preflight` to `verified`.

    `facts` are the journal's: the kernel before (`previous`) and the boot before the trial.
    """
    if seen.running == release:
        return Standing(State.VERIFIED if state is State.VERIFIED else State.TRIAL)
    if state is State.VERIFIED:
        return Standing(state, fell=True)
    same_boot = seen.boot_id == facts.get("boot_id")
    if same_boot:
        if state is State.PREFLIGHT or seen.once is None:
            return Standing(state)
        if seen.once != release:
            return Standing(State.STAGED)
        return Standing(State.TRIAL if state is State.TRIAL else State.ARMED)
    if state in (State.ARMED, State.TRIAL):
        return Standing(State.TRIAL, fell=True)
    if seen.once == release:
        return Standing(State.ARMED)
    if seen.tried == release:
        return Standing(State.TRIAL, fell=True)
    # Somebody booted it before it was armed. Another kernel than before: a new look decides.
    return Standing(state if seen.running == facts.get("previous") else State.PREFLIGHT)
