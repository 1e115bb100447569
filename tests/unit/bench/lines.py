# SPDX-License-Identifier: GPL-2.0-only
"""What a guest says of a phase, made up from a few figures."""

from __future__ import annotations

from collections.abc import Sequence

# As 2.6.32 and 6.1 write them, blanks squeezed as the guest does.
LOCK_EL6 = "dcache_lock: 66 70 0.35 120.10 900.25 2789 12345 0.10 60.00 4000.00"
LOCK_LTS61 = "&ep->lock: 11 12 0.35 120.10 900.25 75.02 4801 9876 0.10 60.00 4000.00 0.41"


def phase(
    connections: int = 100,
    done: int | None = None,
    *,
    seconds: float = 2.0,
    ticks: int = 5_000_000,
    late: int = 0,
    errors: int = 0,
    locks: Sequence[str] = (),
) -> list[str]:
    """The lines of a phase on two CPUs."""
    done = connections - late if done is None else done
    first, second = done // 2, done - done // 2
    return [
        f"# softnet before {_softnet(packets=0xA, dropped=0, steered=1)}",
        f"# softnet before {_softnet(packets=0x14, dropped=2, steered=0)}",
        "# steer before CPU Pass_total Steer_total Steer_remote Steer_local",
        "# steer before 0 5 7 5 2",
        "# steer before 1 5 7 5 2",
        "# hash before CPU Com_accept Loc_accept Rem_accept Glo_accept",
        "# hash before 0 0 1 0 0",
        "# stat before cpu 10 0 20 100 5 0 1 0 0 0",
        f"# softnet after {_softnet(packets=0x1FE, dropped=0, steered=0xB)}",
        f"# softnet after {_softnet(packets=0x208, dropped=3, steered=0)}",
        "# steer after CPU Pass_total Steer_total Steer_remote Steer_local",
        "# steer after 0 15 7 5 2",
        "# steer after 1 5 107 75 22",
        "# hash after CPU Com_accept Loc_accept Rem_accept Glo_accept",
        "# hash after 0 50 61 10 30",
        "# stat after cpu 110 0 180 120 15 0 11 0 0 0",
        f"# phase connections={connections} in_flight=32 seconds={seconds:.6f} ticks={ticks}",
        f"# client cpu=0 done={first} connect=0 reset=0 incomplete=0 wrong=0 late={late} local=40",
        f"# client cpu=1 done={second} connect=0 reset=0 incomplete=0 wrong=0 late=0 local=50",
        f"# server cpu=0 accepted={first} local=20 errors={errors} active=0 active_local=0",
        f"# server cpu=1 accepted={second} local=30 errors=0 active=0 active_local=0",
        *[f"# lock {line}" for line in locks],
    ]


def _softnet(packets: int, dropped: int, steered: int) -> str:
    return " ".join(f"{count:08x}" for count in (packets, dropped, *[0] * 7, steered))
