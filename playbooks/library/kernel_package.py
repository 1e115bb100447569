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
import hashlib
import os
import shutil
import tempfile

from ansible.module_utils.basic import AnsibleModule

BLOCK = 1024 * 1024


def sha256_of(path):
    digest = hashlib.sha256()
    handle = open(path, "rb")
    try:
        while True:
            block = handle.read(BLOCK)
            if not block:
                return digest.hexdigest()
            digest.update(block)
    finally:
        handle.close()


def remove(path):
    if os.path.exists(path):
        os.unlink(path)


class Rpm:
    """The rpm program."""

    def __init__(self, module):
        self.module = module
        self.program = module.get_bin_path("rpm", required=True)

    def run(self, *words):
        # What it says is read.
        code, out, err = self.module.run_command(
            [self.program] + list(words), environ_update={"LC_ALL": "C", "LANGUAGE": "C"})
        return code, (out + err).strip()

    def must(self, what, *words):
        code, text = self.run(*words)
        if code != 0:
            raise Failed(what, text)
        return text


class Failed(Exception):
    """Something that rpm refused, with what it said."""

    def __init__(self, what, text):
        Exception.__init__(self, what)
        lines = [line.strip() for line in text.splitlines()
                 if line.strip() and not line.startswith("warning:")]
        self.sentence = "%s: %s" % (what, "; ".join(lines[:3]) or "rpm gave no reason")


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


def signature_problem(code, answer):
    """Why a package is not signed as a whole; empty when it is.

    What `rpm -K` answers with one key only in its keyring. Before rpm 4.14 it names what it
    checked, in capitals what is wrong or cannot be told:
        rsa sha1 (md5) pgp md5 OK                                        header and payload signed
        rsa sha1 md5 OK                                                  the header only
        sha1 md5 OK                                                      nothing
        RSA sha1 ((MD5) PGP) md5 NOT OK (MISSING KEYS: (MD5) PGP#..)     another key
        rsa sha1 (MD5) PGP MD5 NOT OK                                    changed
    and since then, where a signed header has the payload's digest:
        digests signatures OK / digests OK / digests SIGNATURES NOT OK / DIGESTS SIGNATURES NOT OK
    """
    words = answer.replace("(", " ").replace(")", " ").split()
    if code == 0 and words and words[-1] == "OK" and "NOT" not in words:
        if "signatures" in words or "pgp" in words or "gpg" in words:
            return ""
        if "rsa" in words or "dsa" in words:
            return "only the package's header is signed, its payload could be another"
        return "the package is not signed"
    if "MISSING" in words or ("digests" in words and "SIGNATURES" in words):
        return "the package is not signed with the key that it must be signed with"
    return "the package is damaged, or was changed after it was signed"


class Keyring:
    """A keyring of our own in a folder, with one public key."""

    def __init__(self, rpm, folder, key):
        self.rpm = rpm
        self.file = os.path.join(folder, "key")
        handle = open(self.file, "w")
        try:
            handle.write(key + "\n")
        finally:
            handle.close()
        self.own = ("--dbpath", os.path.join(folder, "db"))
        os.mkdir(self.own[1])
        rpm.must("rpm on the host cannot read the public key", *self.own + ("--import", self.file))

    def demand_signature(self, path):
        """Refuse a package that is not signed with the key."""
        code, text = self.rpm.run(*self.own + ("-K", path))
        answers = [line[len(path) + 1:].strip() for line in text.splitlines()
                   if line.startswith(path + ":")]
        answer = answers[-1] if answers else text
        problem = signature_problem(code, answer)
        if problem:
            raise Failed(problem, "rpm says: " + answer)

    def give(self):
        """Let the host's own keyring have the key."""
        name = self.rpm.must("rpm lost the public key", *self.own + ("-q", "gpg-pubkey"))
        if self.rpm.run("-q", name)[0] != 0:
            self.rpm.must("rpm on the host could not keep the public key", "--import", self.file)


def check(rpm, path, sha256, key):
    """Refuse a package that is not what was sent."""
    folder = tempfile.mkdtemp(prefix="fsdeploy-")
    try:
        keyring = Keyring(rpm, folder, key) if key else None
        if keyring:
            # Before the checksum: it tells more than two numbers that differ.
            keyring.demand_signature(path)
        found = sha256_of(path)
        if found != sha256:
            raise Failed(
                "the package arrived damaged and was not installed",
                "its sha256 is %s, it should be %s" % (found, sha256))
        rpm.must("the package is damaged", "-K", "--nosignature", path)
        if keyring:
            keyring.give()
    finally:
        shutil.rmtree(folder, True)
    # Space and dependencies, as rpm itself sees them. An older kernel beside a newer one is meant.
    rpm.must("the package cannot be installed", "-i", "--oldpackage", "--test", path)


def install(rpm, path, sha256, key, release):
    check(rpm, path, sha256, key)
    try:
        text = rpm.must("rpm could not install the package", "-i", "--oldpackage", path)
        image = "/boot/vmlinuz-" + release
        if not os.path.isfile(image) or os.path.getsize(image) == 0:
            raise Failed("the package is installed but its kernel is not there", image)
        # rpm ends with 0 when only a script of the package failed: no boot entry, no initrd.
        if "scriptlet failed" in text:
            raise Failed("a script of the package failed", text.replace("warning: ", ""))
    except Failed:
        sweep(rpm, release)
        raise


def run(module):
    state = module.params["state"]
    release = module.params["release"]
    path = module.params["file"]
    rpm = Rpm(module)
    name = owner(rpm, release)
    result = {"installed": bool(name), "package": name, "changed": False}
    if state == "present" and not name:
        result["changed"] = True
        if not module.check_mode:
            if not os.path.isfile(path):
                raise Failed("there is no package to install", path)
            try:
                install(rpm, path, module.params["sha256"], module.params["key"], release)
            finally:
                remove(path)
            result["package"] = owner(rpm, release)
    elif state == "absent" and name:
        if os.uname()[2] == release:
            raise Failed("the running kernel is not removed", release)
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
    except Failed as problem:
        module.fail_json(msg=problem.sentence)
    except (IOError, OSError) as problem:
        module.fail_json(msg="%s: %s" % (problem.filename, problem.strerror))


if __name__ == "__main__":
    main()
