# -*- coding: utf-8 -*-
# SPDX-License-Identifier: GPL-2.0-only
"""RPM files on a host: refused when they are damaged or not signed as they must be.

What rpm says becomes one sentence.
"""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

import hashlib
import os
import shutil
import tempfile

PIECE = 1024 * 1024


def sha256_of(path):
    digest = hashlib.sha256()
    handle = open(path, "rb")
    try:
        while True:
            block = handle.read(PIECE)
            if not block:
                return digest.hexdigest()
            digest.update(block)
    finally:
        handle.close()


def remove(path):
    if os.path.exists(path):
        os.unlink(path)


class Refused(Exception):
    """Something that rpm refused, with what it said."""

    def __init__(self, what, text):
        Exception.__init__(self, what)
        lines = [line.strip() for line in text.splitlines()
                 if line.strip() and not line.startswith("warning:")]
        self.sentence = "%s: %s" % (what, "; ".join(lines[:3]) or "rpm gave no reason")


class Rpm:
    """The rpm program. `execute` takes words and gives the exit code and what was said."""

    def __init__(self, execute, program="rpm"):
        self.execute = execute
        self.program = program

    def run(self, *words):
        answer = self.execute([self.program] + list(words))
        return answer[0], "".join(answer[1:]).strip()

    def must(self, what, *words):
        code, text = self.run(*words)
        if code != 0:
            raise Refused(what, text)
        return text


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
            raise Refused(problem, "rpm says: " + answer)

    def give(self):
        """Let the host's own keyring have the key."""
        name = self.rpm.must("rpm lost the public key", *self.own + ("-q", "gpg-pubkey"))
        if self.rpm.run("-q", name)[0] != 0:
            self.rpm.must("rpm on the host could not keep the public key", "--import", self.file)


def check(rpm, path, sha256, how, key=""):
    """Refuse a package that is not what was sent, or that could not be installed in that way.

    `how` are rpm's words for it; with `key`, header and payload must be signed with that.
    """
    folder = tempfile.mkdtemp(prefix="fsdeploy-")
    try:
        keyring = Keyring(rpm, folder, key) if key else None
        if keyring:
            # Before the checksum: it tells more than two numbers that differ.
            keyring.demand_signature(path)
        found = sha256_of(path)
        if found != sha256:
            remove(path)
            raise Refused(
                "the package arrived damaged and was not installed",
                "its sha256 is %s, it should be %s" % (found, sha256))
        rpm.must("the package is damaged", "-K", "--nosignature", path)
        if keyring:
            keyring.give()
    finally:
        shutil.rmtree(folder, True)
    # Space and dependencies, as rpm itself sees them.
    rpm.must("the package cannot be installed", *tuple(how) + ("--test", path))
