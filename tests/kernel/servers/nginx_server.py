# SPDX-License-Identifier: GPL-2.0-only
"""nginx with the configuration that is tested and measured."""

from __future__ import annotations

from pathlib import Path

from .harness import BODY, CPUS, Server

PORT = 8080
# In the folder of the program that runs it.
PID = Path.cwd() / "nginx.pid"

CONFIGURATION = """
user www-data;
# For a new binary: nginx hands on nothing else.
env LD_PRELOAD;
worker_processes {workers};
worker_shutdown_timeout 10s;
pid {pid};
error_log stderr notice;
events {{ worker_connections 512; accept_mutex {mutex}; multi_accept {multi}; }}
http {{
    access_log off;
    server {{
        listen {port};
        location / {{ add_header X-Worker $pid; return 200 "{body}"; }}
    }}
}}
"""


def nginx(*, workers: int = CPUS, mutex: str = "off", multi: str = "off") -> Server:
    PID.unlink(missing_ok=True)
    path = Path.cwd() / "nginx.conf"
    path.write_text(
        CONFIGURATION.format(
            workers=workers,
            mutex=mutex,
            multi=multi,
            pid=PID,
            port=PORT,
            body=BODY.replace("\n", r"\n"),
        )
    )
    # By its whole name: a new binary is looked for in no other place.
    return Server(PORT, "/usr/sbin/nginx", "-e", "stderr", "-c", path, pid_file=PID)
