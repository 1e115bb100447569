# SPDX-License-Identifier: GPL-2.0-only
"""How fast nginx answers short connections: patched, with the module and libfsocket, against stock.

    python -m tests.kernel.bench_servers --cpus 2,4 --repeat 3 --output rates.json

Guests of stock and of patched el6 run one after the other, every second time in the opposite order.
Connections/s of an emulated machine mean nothing, only their ratio in one repetition does.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from fsdeploy import ui
from fsdeploy.bench.drive import GUEST_CPU
from fsdeploy.errors import FsdeployError
from fsdeploy.kernel import build
from fsdeploy.kernel.store import write_atomically
from tests.kernel.server_guests import run_servers

PROGRAM = "rate"
# As slow as a guest may be before it counts as hung.
LEAST_RATE = 20
AROUND = 60
_RATE = re.compile(r"# rate ([0-9.]+)")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cpus", default="2,4", help="virtual CPUs of the guests")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--connections", type=int, default=10000, help="measured in a guest")
    parser.add_argument("--output", type=Path, required=True, help="what was seen, as JSON")
    return parser.parse_args()


def _one(kernel: build.Build, name: str, cpus: int, connections: int) -> dict[str, Any]:
    stock = name == "stock"
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        result = run_servers(
            kernel.image,
            () if stock else (kernel.module("fastsocket"),),
            (PROGRAM,),
            Path(folder),
            cpus=cpus,
            cpu=GUEST_CPU,
            seconds=AROUND + 1.1 * connections / LEAST_RATE,
            environment={
                "SERVERS_CONNECTIONS": str(connections),
                "SERVERS_PLAIN": str(int(stock)),
            },
        )
        console = result.log.read_text(errors="replace")
    failures = list(result.failures())
    if failures:
        raise FsdeployError(f"{name}, {cpus} CPUs: {failures[0]}\n{console[-2000:]}")
    return {
        "kernel": name,
        "cpus": cpus,
        "rate": float(_RATE.findall(console)[-1]),
        "load": round(load, 2),
        "started": round(time.time()),
    }


def main() -> None:
    """Run all guests, write the file after each, and print the ratios."""
    wanted = _arguments()
    kernels = {
        name: build.build_kernel(build.request("el6", fragments=("lab",), stock=name == "stock"))
        for name in ("stock", "patched")
    }
    runs: list[dict[str, Any]] = []
    for cpus in map(int, wanted.cpus.split(",")):
        ratios = []
        for repetition in range(wanted.repeat):
            rates = {}
            for name in sorted(kernels, reverse=repetition % 2 == 0):
                run = _one(kernels[name], name, cpus, wanted.connections)
                runs.append(run)
                rates[name] = run["rate"]
                write_atomically(wanted.output, json.dumps(runs, indent=1) + "\n")
            ratios.append(rates["patched"] / rates["stock"])
        ui.say(
            f"{cpus} CPUs: patched / stock {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
