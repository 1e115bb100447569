#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-License-Identifier: GPL-2.0-only
"""Collects what must be known of a host before a kernel is brought to it. Changes nothing.

It only collects; what the values mean is decided on the control machine.
"""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

DOCUMENTATION = r"""
---
module: host_preflight
short_description: What must be known of a host before a kernel is brought to it
description:
  - Reads /proc, /sys, /boot and a few files; starts no program and changes nothing.
options:
  root:
    description: Folder that holds the file system; another one than C(/) is for tests.
    type: path
    default: /
author:
  - fsdeploy developers
"""

EXAMPLES = r"""
- name: Look at the host
  host_preflight:
  register: seen
"""

RETURN = r"""
host:
  description: What was found.
  returned: always
  type: dict
  contains:
    machine:
      description: The machine, as C(uname -m) names it.
      type: str
    running:
      description: The running kernel.
      type: str
    boot_id:
      description: Differs after every boot.
      type: str
    distribution:
      description: The distribution's own name.
      type: str
    python:
      description: Version of the Python that runs the modules.
      type: str
    boot_free:
      description: Bytes free for /boot.
      type: int
    root_free:
      description: Bytes free for /.
      type: int
    same_file_system:
      description: Whether /boot and / are one file system.
      type: bool
    installed:
      description: Releases with a kernel in /boot.
      type: list
    installonly_limit:
      description: How many kernels yum keeps; 0 without yum.
      type: int
    kmods:
      description: Loaded modules that come from extra, updates or weak-updates.
      type: list
    rpm:
      description: Path of rpm, or empty.
      type: str
    has_new_kernel_pkg:
      description: Whether /sbin/new-kernel-pkg is there.
      type: bool
    interfaces:
      description: Network interfaces with name, driver, rx_queues and tx_queues.
      type: list
"""

import os
import platform
import re

from ansible.module_utils.basic import AnsibleModule

YUM_DEFAULT_LIMIT = 3  # yum's own when its configuration does not say


def read(path):
    """A file's text, empty when it cannot be read."""
    try:
        handle = open(path, "rb")
    except (IOError, OSError):
        return ""
    try:
        return handle.read().decode("utf-8", "replace")
    except (IOError, OSError):
        return ""
    finally:
        handle.close()


def names_in(path):
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def free_bytes(path):
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def distribution(root):
    for name in ("/etc/centos-release", "/etc/redhat-release"):
        text = read(root + name).strip()
        if text:
            return text
    match = re.search(r'^PRETTY_NAME="?([^"\n]*)', read(root + "/etc/os-release"), re.M)
    return match.group(1) if match else ""


def installed(root):
    """Releases with a kernel in /boot."""
    return [name[len("vmlinuz-"):] for name in names_in(root + "/boot")
            if name.startswith("vmlinuz-") and os.path.getsize(root + "/boot/" + name) > 0]


def installonly_limit(root):
    for name in ("/etc/yum.conf", "/etc/dnf/dnf.conf"):
        if not os.path.isfile(root + name):
            continue
        match = re.search(r"^\s*installonly_limit\s*=\s*(\d+)", read(root + name), re.M)
        return int(match.group(1)) if match else YUM_DEFAULT_LIMIT
    return 0


def third_party_modules(root, release):
    """Loaded modules whose file is not one of the kernel package's."""
    loaded = set(line.split()[0] for line in read(root + "/proc/modules").splitlines() if line)
    found = set()
    for folder in ("extra", "updates", "weak-updates"):
        for _, _, files in os.walk("%s/lib/modules/%s/%s" % (root, release, folder)):
            for name in files:
                module = name.split(".ko")[0].replace("-", "_")
                if ".ko" in name and module in loaded:
                    found.add(module)
    return sorted(found)


def interfaces(root):
    found = []
    base = root + "/sys/class/net"
    for name in names_in(base):
        driver = "%s/%s/device/driver" % (base, name)
        if not os.path.islink(driver):
            continue
        queues = names_in("%s/%s/queues" % (base, name))
        found.append({
            "name": name,
            "driver": os.path.basename(os.readlink(driver)),
            "rx_queues": len([queue for queue in queues if queue.startswith("rx-")]),
            "tx_queues": len([queue for queue in queues if queue.startswith("tx-")]),
        })
    return found


def collect(root):
    base = root.rstrip("/")
    # A tree for tests says which kernel it runs; a real host's own answer is the same.
    running = read(base + "/proc/sys/kernel/osrelease").strip() or os.uname()[2]
    rpm = [path for path in ("/bin/rpm", "/usr/bin/rpm") if os.path.exists(base + path)]
    return {
        "machine": os.uname()[4],
        "running": running,
        "boot_id": read(base + "/proc/sys/kernel/random/boot_id").strip(),
        "distribution": distribution(base),
        "python": platform.python_version(),
        "boot_free": free_bytes(base + "/boot"),
        "root_free": free_bytes(root),
        "same_file_system": os.stat(base + "/boot").st_dev == os.stat(root).st_dev,
        "installed": installed(base),
        "installonly_limit": installonly_limit(base),
        "kmods": third_party_modules(base, running),
        "rpm": rpm[0] if rpm else "",
        "has_new_kernel_pkg": os.path.exists(base + "/sbin/new-kernel-pkg"),
        "interfaces": interfaces(base),
    }


def main():
    module = AnsibleModule(
        argument_spec={"root": {"type": "path", "default": "/"}}, supports_check_mode=True)
    try:
        module.exit_json(changed=False, host=collect(module.params["root"]))
    except (IOError, OSError) as problem:
        module.fail_json(msg="%s: %s" % (problem.filename, problem.strerror))


if __name__ == "__main__":
    main()
