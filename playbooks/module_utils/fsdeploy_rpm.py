# -*- coding: utf-8 -*-
# SPDX-License-Identifier: GPL-2.0-only
"""RPM files on a host: refused when they are damaged, and what rpm says as one sentence."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

import hashlib
import os

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


def check(rpm, path, sha256, *how):
    """Refuse a package that is not what was sent, or that could not be installed in that way."""
    found = sha256_of(path)
    if found != sha256:
        remove(path)
        raise Refused(
            "the package arrived damaged and was not installed",
            "its sha256 is %s, it should be %s" % (found, sha256))
    rpm.must("the package is damaged", "-K", "--nosignature", path)
    # Space and dependencies, as rpm itself sees them.
    rpm.must("the package cannot be installed", *(how + ("--test", path)))
