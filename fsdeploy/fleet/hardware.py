# SPDX-License-Identifier: GPL-2.0-only
"""Which hardware class a host is of: hosts that a kernel treats alike.

The inventory says it (`fsdeploy_class`), else the host itself: who made it, which model it is, and
the drivers of its network and its disks. One SSH command that needs a shell only.
"""

from __future__ import annotations

import re

# Name of the inventory variable that names a host's class.
CLASS_VARIABLE = "fsdeploy_class"

# Each line begins with a word of ours: a banner or a missing file disturbs nothing.
ASK = r"""
for f in sys_vendor product_name; do
  echo "fsdeploy $f $(cat /sys/class/dmi/id/$f 2>/dev/null)"
done
for d in /sys/class/net/*/device/driver /sys/block/*/device/driver; do
  [ -e "$d" ] && echo "fsdeploy driver $(basename "$(readlink -f "$d")")"
done
echo "fsdeploy machine $(uname -m)"
"""


def hardware_class(output: str) -> str:
    """The class from the answer to `ASK`, empty when that is not one."""
    found: dict[str, list[str]] = {}
    for word, value in re.findall(r"^fsdeploy (\w+) (.*)$", output, re.MULTILINE):
        found.setdefault(word, []).append(" ".join(value.split()))
    if not found.get("machine"):
        return ""
    model = " ".join(
        word for name in ("sys_vendor", "product_name") for word in found.get(name, []) if word
    )
    drivers = sorted(set(found.get("driver", [])))
    return ", ".join([model or found["machine"][0], *drivers])
