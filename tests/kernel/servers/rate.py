# SPDX-License-Identifier: GPL-2.0-only
"""How fast nginx answers short connections, for bench_servers.py."""

from __future__ import annotations

import os

from .harness import CONNECTIONS, CPUS, all_answered, main, note, test
from .nginx_server import PORT, nginx


@test
def nginx_answers() -> None:
    # nginx and the load run until they wait, as the programs of `fsdeploy bench` do.
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with nginx() as server:
        server.workers(CPUS)
        all_answered(PORT, CONNECTIONS // 10)
        answers = all_answered(PORT)
        note(f"rate {answers.done / answers.seconds:.1f}")


if __name__ == "__main__":
    main()
