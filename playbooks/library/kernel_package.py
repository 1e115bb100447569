#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-License-Identifier: GPL-2.0-only
"""Installs a kernel RPM beside the running kernel, all of it or nothing.

A package that is not the one that was sent, or not signed with the key that is asked for, is
refused before anything is changed; one that could not be installed to its end is taken away again,
with all that carries its release in its name.
"""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

DOCUMENTATION = r"""
---
module: kernel_package
short_description: A kernel RPM beside the running kernel, all of it or nothing
description:
  - Checks the file's sha256 and the package's own digests, lets rpm test the installation (space,
    dependencies), installs it with C(rpm -i) and never replaces a package.
  - What a failed installation left is removed again.
  - With I(key), header and payload must be signed with it. The host's rpm checks that with a
    keyring of its own that has nothing but this key; the host's keyring gets the key when the
    package is good, so that a host whose rpm demands signatures takes it.
options:
  state:
    description:
      - C(gathered) says whether the kernel is installed.
      - C(present) installs I(file), C(absent) removes the package; the running kernel is refused.
    type: str
    choices: [gathered, present, absent]
    default: gathered
  release:
    description: The kernel, as C(uname -r) names it.
    type: str
    required: true
  file:
    description: The package on the host; removed afterwards.
    type: path
  sha256:
    description: The checksum that I(file) must have.
    type: str
  key:
    description: The public key that I(file) must be signed with; empty for none.
    type: str
    default: ""
author:
  - fsdeploy developers
"""

EXAMPLES = r"""
- name: Install the kernel
  kernel_package:
    state: present
    release: 2.6.32-431.el6.fs1.0123abcd.x86_64
    file: /var/lib/fsdeploy/packages/kernel-fastsocket-2.6.32-431.el6.fs1.0123abcd.x86_64.rpm
    sha256: "{{ checksum }}"
"""

RETURN = r"""
installed:
  description: Whether the kernel's package is installed, before this module changed anything.
  returned: always
  type: bool
package:
  description: Name, version, release and architecture of the package, empty when not installed.
  returned: always
  type: str
"""

import glob
import os
import shutil

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.fsdeploy_rpm import Refused, Rpm, check, remove

# An older kernel beside a newer one is meant.
HOW = ("-i", "--oldpackage")

def owner(rpm, release):
    """The package that owns the kernel, empty when none does."""
    code, text = rpm.run(
        "-qf", "--qf", "%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}\\n", "/boot/vmlinuz-" + release)
    return text.splitlines()[0] if code == 0 and text else ""


def leftovers(release):
    """All that carries the release in its name: it is unique to one build."""
    found = []
    for pattern in ("/boot/*-%s*", "/lib/modules/%s*", "/usr/share/fsdeploy/%s*"):
        found += glob.glob(pattern % release)
    return found


def sweep(rpm, release):
    """Remove what a failed installation left."""
    name = owner(rpm, release)
    if name:
        rpm.run("-e", name)
        name = owner(rpm, release)
    if name:
        return
    for path in leftovers(release):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, True)
        else:
            remove(path)


def install(rpm, path, sha256, key, release):
    check(rpm, path, sha256, HOW, key)
    try:
        text = rpm.must("rpm could not install the package", *HOW + (path,))
        image = "/boot/vmlinuz-" + release
        if not os.path.isfile(image) or os.path.getsize(image) == 0:
            raise Refused("the package is installed but its kernel is not there", image)
        # rpm ends with 0 when only a script of the package failed: no boot entry, no initrd.
        if "scriptlet failed" in text:
            raise Refused("a script of the package failed", text.replace("warning: ", ""))
    except Refused:
        sweep(rpm, release)
        raise


def run(module):
    state = module.params["state"]
    release = module.params["release"]
    path = module.params["file"]
    # What rpm says is read.
    rpm = Rpm(
        lambda words: module.run_command(
            words, environ_update={"LC_ALL": "C", "LANGUAGE": "C"}),
        module.get_bin_path("rpm", required=True))
    name = owner(rpm, release)
    result = {"installed": bool(name), "package": name, "changed": False}
    if state == "present" and not name:
        result["changed"] = True
        if not module.check_mode:
            if not os.path.isfile(path):
                raise Refused("there is no package to install", path)
            try:
                install(rpm, path, module.params["sha256"], module.params["key"], release)
            finally:
                remove(path)
            result["package"] = owner(rpm, release)
    elif state == "absent" and name:
        if os.uname()[2] == release:
            raise Refused("the running kernel is not removed", release)
        result["changed"] = True
        if not module.check_mode:
            rpm.must("rpm could not remove the package", "-e", name)
            sweep(rpm, release)
    module.exit_json(**result)


def main():
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "default": "gathered",
                      "choices": ["gathered", "present", "absent"]},
            "release": {"type": "str", "required": True},
            "file": {"type": "path"},
            "sha256": {"type": "str"},
            "key": {"type": "str", "default": ""},
        },
        required_if=[("state", "present", ["file", "sha256"])],
        supports_check_mode=True,
    )
    try:
        run(module)
    except Refused as problem:
        module.fail_json(msg=problem.sentence)
    except (IOError, OSError) as problem:
        module.fail_json(msg="%s: %s" % (problem.filename, problem.strerror))


if __name__ == "__main__":
    main()
