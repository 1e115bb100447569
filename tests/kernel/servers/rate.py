# SPDX-License-Identifier: GPL-2.0-only
"""How fast nginx answers short connections, for bench_servers.py."""

from __future__ import annotations

from .harness import CONNECTIONS, CPUS, all_answered, main, note, test
from .nginx import PORT, nginx


@test
def nginx_answers() -> None:
    with nginx() as server:
        server.workers(CPUS)
        all_answered(PORT, CONNECTIONS // 10)
        answers = all_answered(PORT)
        note(f"rate {answers.done / answers.seconds:.1f}")


if __name__ == "__main__":
    main()
