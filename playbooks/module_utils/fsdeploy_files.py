# -*- coding: utf-8 -*-
# SPDX-License-Identifier: GPL-2.0-only
"""Files of a host that are changed and put back exactly: what tuning and services have in common.

Everything is remembered before its first change, in one JSON record below /var/lib/fsdeploy, and
what is remembered is never written over:

  values   what targets held, by "KIND TARGET"
  files    by path: content and mode, the target of a link, or nothing for one that was not there
  folders  those that had to be made, outermost first

A file of ours is put and removed whole. Into a file of others go lines of ours, between two
comments; what somebody else writes into that file meanwhile stays.

Tuning runs on a host by itself, too, and this file is the first part of that program: it imports
nothing but the standard library, and runs on Python 2.6, 2.7 and 3.
"""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

import base64
import errno
import json
import os
import re
import subprocess
import tempfile

FORMAT = 1

# Everything that fsdeploy keeps on a host.
STATE = "/var/lib/fsdeploy"

UNCHANGED = "unchanged"
CHANGED = "changed"
CANNOT = "cannot be changed"
MISSING = "not there"


class Failed(Exception):
    """Something that an operator has to look at, as one sentence."""


def load(text, path):
    try:
        return json.loads(text)
    except ValueError:
        raise Failed("%s is damaged; look at it and remove it" % path)


def dump(value):
    return json.dumps(value, sort_keys=True, indent=1) + "\n"


def reason_of(problem):
    return "%s (%s)" % (problem.strerror, errno.errorcode.get(problem.errno, problem.errno))


def diff_of(results):
    """What changed, the way Ansible shows it with --diff."""
    found = []
    for result in results:
        if result["outcome"] == CHANGED:
            head = "%s %s" % (result["kind"], result["target"])
            found.append({
                "before": result["before"] + "\n", "after": result["after"] + "\n",
                "before_header": head, "after_header": head})
    return found


def result_of(setting, before, after, outcome, reason=""):
    return {
        "kind": setting["kind"], "target": setting["target"], "wanted": setting["value"],
        "before": before, "after": after, "outcome": outcome, "reason": reason,
    }


def execute(words):
    """Run a program of the host: its exit code, 127 when there is none, and what it said.

    By way of a file: a service that it starts would keep a pipe open for as long as it runs.
    """
    quiet, said = open(os.devnull, "rb"), tempfile.TemporaryFile()
    try:
        code = subprocess.call(words, stdin=quiet, stdout=said, stderr=said, close_fds=True)
        said.seek(0)
        return code, said.read().decode("latin-1")
    except OSError:
        return 127, "there is no %s" % words[0]
    finally:
        quiet.close()
        said.close()


def replace_file(real, text, mode):
    """A file that is old or new, never half; one that is there keeps its owner and mode."""
    new = real + ".fsdeploy-new"
    handle = open(new, "wb")
    try:
        handle.write(text.encode("latin-1"))
        handle.flush()
        os.fsync(handle.fileno())
    finally:
        handle.close()
    if os.path.exists(real):
        status = os.stat(real)
        os.chown(new, status.st_uid, status.st_gid)
        mode = status.st_mode & 0o7777
    os.chmod(new, mode)
    os.rename(new, real)


class Files:
    """The files of a host below a root (another one than / is for tests), and its programs."""

    def __init__(self, root="/", ask=None):
        self.root = root.rstrip("/")
        # A folder has no services, and those of this machine are not its.
        self.ask = ask or ((lambda words: (127, "")) if self.root else execute)

    def run(self, words):
        """The exit code only."""
        return self.ask(words)[0]

    def path(self, name):
        return self.root + name

    def exists(self, name):
        return os.path.lexists(self.path(name))

    def is_folder(self, name):
        return os.path.isdir(self.path(name))

    def names(self, folder):
        try:
            return sorted(os.listdir(self.path(folder)))
        except OSError:
            return []

    def read(self, name):
        """A file's text, or None. Latin-1: every byte comes out as it went in."""
        try:
            handle = open(self.path(name), "rb")
        except (IOError, OSError):
            return None
        try:
            return handle.read().decode("latin-1")
        except (IOError, OSError):
            return None  # some files of /sys are there and cannot be read
        finally:
            handle.close()

    def set_value(self, name, text):
        """Write a file of /proc or /sys: one write(), and its error is the kernel's answer."""
        handle = os.open(self.path(name), os.O_WRONLY | os.O_TRUNC)
        try:
            os.write(handle, (text + "\n").encode("latin-1"))
        finally:
            os.close(handle)

    def put(self, name, text, mode):
        """Replace a file as a whole, keeping owner and mode of one that is there."""
        replace_file(os.path.realpath(self.path(name)), text, mode)


def is_systemd(host):
    return host.is_folder("/run/systemd/system")


# Files of others that get lines of ours


class Block:
    """Lines of ours in files of others, between two comments that name what they belong to."""

    NO_NEWLINE = "# (the line before had no end)\n"
    # What is left of a file that held nothing but our lines.
    EMPTY = ("", "#!/bin/sh\n")

    def __init__(self, name, remover):
        self.begin = "# fsdeploy %s: begin, removed by %s" % (name, remover)
        self.end = "# fsdeploy %s: end" % name

    def without(self, text):
        """A text without our lines: byte for byte what it was before `within`."""
        begin = text.find(self.begin + "\n")
        end = text.find(self.end + "\n", begin)
        if begin < 0 or end < 0:
            return text
        head, tail = text[:begin], text[end + len(self.end) + 1:]
        # A text that did not end with a line break was given one.
        mark = self.begin + "\n" + self.NO_NEWLINE
        if text.startswith(mark, begin) and head.endswith("\n"):
            head = head[:-1]
        return head + tail

    def within(self, text, lines, after_first=False):
        """A text with our lines at its end, or behind its first line; replaces older ones."""
        text = self.without(text)
        note = ""
        if text and not text.endswith("\n"):
            text, note = text + "\n", self.NO_NEWLINE
            after_first = False
        place = text.find("\n") + 1 if after_first else len(text)
        block = self.begin + "\n" + note + "".join(line + "\n" for line in lines) + self.end + "\n"
        return text[:place] + block + text[place:]

    def lines(self, text):
        begin, end = text.find(self.begin + "\n"), text.find(self.end + "\n")
        if begin < 0 or end < begin:
            return []
        return text[begin:end].splitlines()[1:]


# The record of what was there before


def new_record():
    return {"format": FORMAT, "values": {}, "accepted": {}, "files": {}, "folders": []}


def read_record(host, path):
    text = host.read(path)
    return new_record() if text is None else load(text, path)


def write_record(host, path, record):
    make_folders(host, os.path.dirname(path), record)
    host.put(path, dump(record), 0o600)


def make_folders(host, folder, record):
    """Make a folder with its parents; those made are remembered, outermost first."""
    missing = []
    while folder != "/" and not host.is_folder(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for name in reversed(missing):
        os.mkdir(host.path(name), 0o755)
        os.chmod(host.path(name), 0o755)
        record["folders"].append(name)


def remove_folders(host, record):
    """Remove the folders that were made, as far as nothing else is in them by now."""
    for folder in list(reversed(record["folders"])) + [STATE + "/packages", STATE]:
        if host.is_folder(folder) and not host.names(folder):
            os.rmdir(host.path(folder))


def remember_file(host, path, record):
    if path in record["files"]:
        return
    if os.path.islink(host.path(path)):
        record["files"][path] = {"link": os.readlink(host.path(path))}
    elif host.exists(path):
        content = (host.read(path) or "").encode("latin-1")
        record["files"][path] = {
            "content": base64.b64encode(content).decode("ascii"),
            "mode": os.stat(host.path(path)).st_mode & 0o7777,
        }
    else:
        record["files"][path] = {}


# Files as they should be: (path, text, mode), or (path, target, None) for a link


def file_differs(host, path, text, mode):
    real = host.path(path)
    if mode is None:
        return not (os.path.islink(real) and os.readlink(real) == text)
    now = host.read(path)
    return now is None or now != text or os.stat(real).st_mode & 0o7777 != mode


def put_file(host, path, text, mode):
    real = host.path(path)
    if mode is None:
        if os.path.lexists(real):
            os.unlink(real)
        os.symlink(text, real)
        return
    host.put(path, text, mode)
    os.chmod(os.path.realpath(real), mode)


def put_back_file(host, path, before, block=None):
    """Put one file back as it was before the first change; `block`: one of others."""
    real = host.path(path)
    now = host.read(path)
    ours = block is not None and now is not None
    if "link" in before and not ours:
        if os.path.lexists(real):
            os.unlink(real)
        os.symlink(before["link"], real)
        return
    wanted = None
    if "content" in before:
        wanted = base64.b64decode(before["content"].encode("ascii")).decode("latin-1")
    if ours and block.without(now) not in (wanted,) + block.EMPTY:
        # Others have changed it since: only our lines are taken out.
        wanted = block.without(now)
    if wanted is None:
        if os.path.lexists(real):
            os.unlink(real)
        return
    if now != wanted:
        host.put(path, wanted, before.get("mode", 0o644))
    if "mode" in before:
        os.chmod(os.path.realpath(real), before["mode"])


def source_of(path, loader):
    """The text of a file of ours, wherever Ansible has unpacked it."""
    if loader is not None and hasattr(loader, "get_data"):
        return loader.get_data(re.sub(r"\.py[co]$", ".py", path)).decode("utf-8")
    handle = open(re.sub(r"\.py[co]$", ".py", path), "rb")
    try:
        return handle.read().decode("utf-8")
    finally:
        handle.close()
