#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-License-Identifier: GPL-2.0-only
"""Says and sets what a host boots: its default kernel, and one kernel for a single boot.

Steps of every state: recognise the boot loader, look for what would go wrong, compute the new
content of its files in memory, write what differs (nothing in check mode), read everything back.
Kernels are named by release; entry numbers shift when a kernel is installed and are looked up at
the last moment.
"""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

DOCUMENTATION = r"""
---
module: boot_entry
short_description: Default and single-boot kernel of GRUB 0.97 and GRUB 2
description:
  - Recognises Red Hat's GRUB 0.97 (a word in stage2), Debian's GRUB 0.97 (C(default saved) and
    C(savedefault)) and GRUB 2 (grubenv), and sets by release which kernel starts.
  - A single boot is undone by the boot loader itself before it loads the kernel, so that a kernel
    that panics, or a power cut, leads back to the default.
  - What would not work is refused before anything is changed.
options:
  state:
    description:
      - C(gathered) changes nothing and returns what the boot loader will do.
      - C(armed) makes I(release) start once, with I(arguments), and the default entry the fallback.
      - C(disarmed) takes back what C(armed) did.
      - C(default) takes back what C(armed) did and makes I(release) the default.
    type: str
    choices: [gathered, armed, disarmed, default]
    default: gathered
  release:
    description: The kernel, as C(uname -r) names it.
    type: str
  arguments:
    description: Kernel arguments that the entry gets for the single boot only.
    type: list
    elements: str
    default: []
  root:
    description: Folder that holds the file system; another one than C(/) is for images and tests.
    type: path
    default: /
author:
  - fsdeploy developers
"""

EXAMPLES = r"""
- name: See what the host boots
  boot_entry:
  register: loader

- name: Try a kernel once
  boot_entry:
    state: armed
    release: 2.6.32-431.el6.fs1.0123abcd.x86_64
    arguments: [panic=10]

- name: Keep it
  boot_entry:
    state: default
    release: 2.6.32-431.el6.fs1.0123abcd.x86_64
"""

RETURN = r"""
boot:
  description: What the boot loader will do, read after all changes (in check mode, before them).
  returned: always
  type: dict
  contains:
    kind:
      description: C(grub-0.97-redhat), C(grub-0.97-debian), C(grub-2) or C(unknown).
      type: str
    config:
      description: The configuration file.
      type: str
    entries:
      description: The menu, each entry with index, title, release, kernel, initrd and arguments.
      type: list
    default_release:
      description: The kernel that starts when nobody intervenes.
      type: str
    once_release:
      description: The kernel that starts once; empty when none is armed.
      type: str
    tried_release:
      description: The kernel that was armed last and not taken back since, booted or not.
      type: str
    traps:
      description: What would go wrong, each with message and remedy.
      type: list
"""

import hashlib
import json
import os
import re
import struct

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.fsdeploy_files import replace_file

ONCE_OFFSET = 0x20C
ONCE_FLAG = 0x10000
VERSION_OFFSET = 0x212
GRUBENV_SIZE = 1024
STAGE2 = "/boot/grub/stage2"
# What was there before `armed`: lets `disarmed` put it back byte for byte.
RECORD = "/var/lib/fsdeploy/boot-entry.json"

REDHAT = "grub-0.97-redhat"
DEBIAN = "grub-0.97-debian"
GRUB2 = "grub-2"
UNKNOWN = "unknown"

DEFAULT_FILE_TAIL = (
    "#\n" * 10
    + "# WARNING: If you want to edit this file directly, do not remove any line\n"
    + "# from this file, including this warning. Using `grub-set-default' is\n"
    + "# strongly recommended.\n"
)


class Refused(Exception):
    """Something that must not be done, with what to do about it."""

    def __init__(self, message, remedy=""):
        Exception.__init__(self, message)
        self.message = message
        self.remedy = remedy

    def sentence(self):
        if self.remedy:
            return "%s; %s" % (self.message, self.remedy)
        return self.message


class Files:
    """The files of a host below a root, with changes held back until `flush`.

    Texts are latin-1: every byte comes out as it went in, whatever the encoding really is.
    """

    def __init__(self, root):
        self.root = root.rstrip("/")
        self.pending = {}

    def real(self, path):
        """Where a path is, with symlinks followed inside the root."""
        here = self.root + path
        for _ in range(10):
            if not os.path.islink(here):
                break
            link = os.readlink(here)
            here = self.root + link if link.startswith("/") else os.path.join(
                os.path.dirname(here), link)
        return here

    def exists(self, path):
        return os.path.exists(self.real(path))

    def read(self, path):
        """A file's text with pending changes, or None."""
        real = self.real(path)
        if real in self.pending:
            return self.pending[real][0]
        if not os.path.isfile(real):
            return None
        handle = open(real, "rb")
        try:
            return handle.read().decode("latin-1")
        finally:
            handle.close()

    def write(self, path, text, in_place=False):
        """Hold a new content back; None removes the file."""
        self.pending[self.real(path)] = (text, in_place)

    def changes(self):
        """(path, old, new, in_place) of what really differs."""
        found = []
        for real in sorted(self.pending):
            text, in_place = self.pending[real]
            old = None
            if os.path.isfile(real):
                handle = open(real, "rb")
                old = handle.read().decode("latin-1")
                handle.close()
            if old != text:
                found.append((real, old, text, in_place))
        return found

    def flush(self, order):
        """Write what differs; `order` sorts the paths, so that a cut leaves something that boots."""
        for real, old, text, in_place in sorted(self.changes(), key=lambda item: order(item[0])):
            if text is None:
                os.unlink(real)
            elif in_place:
                self._write_in_place(real, old, text)
            else:
                if not os.path.isdir(os.path.dirname(real)):
                    os.makedirs(os.path.dirname(real), 0o755)
                replace_file(real, text, 0o600)
        self.pending = {}

    @staticmethod
    def _write_in_place(real, old, text):
        # The boot loader knows these files by their blocks: only the bytes that differ are
        # written, into the same blocks.
        new = text.encode("latin-1")
        before = (old or "").encode("latin-1")
        if len(new) != len(before):
            raise Refused("%s would change its size" % real)
        first = 0
        while new[first] == before[first]:
            first += 1
        last = len(new)
        while new[last - 1] == before[last - 1]:
            last -= 1
        handle = open(real, "r+b")
        try:
            handle.seek(first)
            handle.write(new[first:last])
            handle.flush()
            os.fsync(handle.fileno())
        finally:
            handle.close()


def release_of(kernel):
    """The release in a kernel's path: /boot/vmlinuz-RELEASE."""
    name = kernel.rsplit("/", 1)[-1]
    if name.startswith("vmlinuz-"):
        return name[len("vmlinuz-"):]
    return ""


def new_entry(index, title):
    return {"index": index, "title": title, "release": "", "kernel": "", "initrd": "",
            "arguments": []}


# GRUB 0.97: the configuration


LEGACY_COMMAND = re.compile(r"^\s*([A-Za-z0-9_]+)(?:\s*=\s*|\s+|$)(.*?)\s*$")


def legacy_command(line):
    """A line's command and its argument; `default=1` and `default 1` are the same."""
    if line.lstrip().startswith("#"):
        return "", ""
    match = LEGACY_COMMAND.match(line)
    if not match:
        return "", ""
    return match.group(1).lower(), match.group(2)


def parse_legacy(text):
    """Entries, default and fallback of a GRUB 0.97 configuration."""
    entries = []
    default = ""
    fallback = ""
    for line in text.splitlines():
        word, value = legacy_command(line)
        if word == "title":
            entries.append(new_entry(len(entries), value))
        elif not entries and word == "default":
            default = value
        elif not entries and word == "fallback":
            fallback = value
        elif entries and word == "kernel" and not entries[-1]["kernel"]:
            words = [part for part in value.split() if not part.startswith("--")]
            if words:
                entries[-1]["kernel"] = words[0]
                entries[-1]["release"] = release_of(words[0])
                entries[-1]["arguments"] = words[1:]
        elif entries and word == "initrd":
            entries[-1]["initrd"] = value
    return entries, default, fallback


def set_header(text, name, value):
    """Set, add (value) or remove (None) a line before the first title. Keeps a line's form."""
    lines = text.splitlines(True)
    place = 0
    for number, line in enumerate(lines):
        word, old = legacy_command(line)
        if word == "title":
            break
        if word == name:
            if value is None:
                del lines[number]
            elif old != value:
                lines[number] = re.sub(
                    r"(%s(?:\s*=\s*|\s+))\S.*?(\s*)$" % name,
                    lambda match: match.group(1) + value + match.group(2), line)
            return "".join(lines)
        if word == "default":
            place = number + 1
    if value is not None:
        lines.insert(place, "%s=%s\n" % (name, value))
    return "".join(lines)


def legacy_block(lines, index):
    """First and one past the last line of an entry."""
    starts = [number for number, line in enumerate(lines) if legacy_command(line)[0] == "title"]
    end = starts[index + 1] if index + 1 < len(starts) else len(lines)
    return starts[index], end


def edit_legacy_arguments(text, index, add, remove):
    """Add arguments to an entry's kernel line, or remove them."""
    lines = text.splitlines(True)
    start, end = legacy_block(lines, index)
    for number in range(start, end):
        if legacy_command(lines[number])[0] == "kernel":
            lines[number] = edit_arguments(lines[number], add, remove)
            break
    return "".join(lines)


def edit_arguments(line, add, remove):
    """A line with words added at its end or the last such words removed."""
    body = line.rstrip()
    ending = line[len(body):]
    for word in remove:
        place = body.rfind(" " + word)
        after = place + 1 + len(word)
        if place >= 0 and (after == len(body) or body[after].isspace()):
            body = body[:place] + body[after:]
    return body + "".join(" " + word for word in add) + ending


def savedefault_of(text, index):
    """The argument of an entry's savedefault; None when it has none."""
    lines = text.splitlines()
    start, end = legacy_block(lines, index)
    for number in range(start, end):
        word, value = legacy_command(lines[number])
        if word == "savedefault":
            return value
    return None


def set_savedefault(text, index, value):
    """Make `savedefault value` an entry's first command, or remove it (None)."""
    lines = text.splitlines(True)
    start, end = legacy_block(lines, index)
    kept = [line for line in lines[start + 1:end] if legacy_command(line)[0] != "savedefault"]
    if value is not None:
        kept.insert(0, "\tsavedefault %s\n" % value)
    return "".join(lines[:start + 1] + kept + lines[end:])


def legacy_kind(stage2):
    """Whose GRUB 0.97 a stage2 is, from what is in it.

    Debian's and GNU's know `savedefault [NUM | ...]` and read menu.lst, Red Hat's reads grub.conf.
    """
    fields = stage2[VERSION_OFFSET:VERSION_OFFSET + 256].split("\0")
    if len(fields) < 2 or fields[0] != "0.97":
        return UNKNOWN
    if "savedefault [NUM" in stage2:
        return DEBIAN
    if fields[1].endswith("grub.conf"):
        return REDHAT
    return UNKNOWN


class Legacy:
    """GRUB 0.97: what Red Hat's and Debian's have in common."""

    kind = UNKNOWN

    def __init__(self, files, config):
        self.files = files
        self.config = config
        self.load()

    def load(self):
        self.entries, self.default, self.fallback = parse_legacy(self.text())

    def text(self):
        return self.files.read(self.config) or ""

    def put(self, text):
        self.files.write(self.config, text)
        self.load()

    def default_index(self):
        if self.default.isdigit():
            return int(self.default)
        return self.saved_index() if self.default == "saved" else None

    def saved_index(self):
        return None

    def once_index(self):
        return None

    def traps(self):
        found = []
        if not self.default:
            found.append(trap(
                "%s has no default line: a single boot would stay armed" % self.config,
                "add a line default=N with the number of the entry to boot"))
        else:
            index = self.default_index()
            if index is None or not 0 <= index < len(self.entries):
                found.append(trap(
                    "the default entry %s is not in %s, which has %d entries"
                    % (self.default if index is None else index, self.config, len(self.entries)),
                    "set default to the number of an entry, counted from 0"))
        return found

    def armed_text(self, index, old, arguments):
        """The configuration for a single boot of an entry, and what it adds to that entry."""
        text = self.text()
        entry = self.entries[index]
        add = [word for word in arguments if word not in entry["arguments"]]
        text = edit_legacy_arguments(text, index, add, [])
        # Without it, a kernel that cannot be read makes GRUB wait for a key for ever.
        return set_header(text, "fallback", str(old)), add

    def remove_edits(self, record):
        """Take the edits of `arm` out one by one: the file was changed by others since."""
        text = self.text()
        for entry in self.entries:
            if entry["release"] == record["release"]:
                text = edit_legacy_arguments(text, entry["index"], [], record["added"])
                if record.get("savedefault"):
                    text = set_savedefault(text, entry["index"], None)
                break
        return set_header(text, "fallback", record["fallback"] or None)

    def set_default(self, index):
        self.put(set_header(self.text(), "default", str(index)))

    def restore(self, record):
        """Put back what `arm` changed outside the configuration."""

    def disarm_once(self):
        """Take an armed single boot away without a record."""


class RedHat(Legacy):
    """Red Hat's: a word in stage2, cleared by GRUB before it loads the kernel."""

    kind = REDHAT

    def word(self):
        stage2 = self.files.read(STAGE2).encode("latin-1")
        return struct.unpack("<I", stage2[ONCE_OFFSET:ONCE_OFFSET + 4])[0]

    def put_word(self, word):
        stage2 = self.files.read(STAGE2)
        packed = struct.pack("<I", word).decode("latin-1")
        self.files.write(
            STAGE2, stage2[:ONCE_OFFSET] + packed + stage2[ONCE_OFFSET + 4:], in_place=True)

    def saved_index(self):
        return self.word() & 0xFF

    def once_index(self):
        word = self.word()
        return word >> 8 & 0xFF if word & ONCE_FLAG else None

    def arm(self, index, old, arguments, record):
        text, record["added"] = self.armed_text(index, old, arguments)
        self.put(text)
        self.put_word(ONCE_FLAG | index << 8 | self.word() & 0xFF)

    def disarm_once(self):
        if self.word() & ONCE_FLAG:
            self.put_word(self.word() & 0xFF)


class Debian(Legacy):
    """Debian's: the number in the file `default`; the trial entry writes the old one back."""

    kind = DEBIAN

    def default_file(self):
        return os.path.dirname(self.config) + "/default"

    def saved_number(self):
        match = re.match(r"\s*(\d+)", self.files.read(self.default_file()) or "")
        return int(match.group(1)) if match else None

    def _armed(self):
        """(entry, the entry it goes back to) of an armed single boot, or None."""
        if self.default != "saved":
            return None
        number = self.saved_number()
        if number is None or number >= len(self.entries):
            return None
        back = savedefault_of(self.text(), number)
        if back and back.isdigit() and int(back) != number:
            return number, int(back)
        return None

    def saved_index(self):
        armed = self._armed()
        return armed[1] if armed else self.saved_number()

    def once_index(self):
        armed = self._armed()
        return armed[0] if armed else None

    def put_number(self, number):
        self.files.write(self.default_file(), "%d\n%s" % (number, DEFAULT_FILE_TAIL))

    def arm(self, index, old, arguments, record):
        record["default"] = self.default
        record["default_file"] = self.files.read(self.default_file())
        text, record["added"] = self.armed_text(index, old, arguments)
        record["savedefault"] = True
        text = set_savedefault(text, index, str(old))
        self.put(set_header(text, "default", "saved"))
        self.put_number(index)

    def remove_edits(self, record):
        text = Legacy.remove_edits(self, record)
        if record.get("default", "saved") != "saved":
            for entry in self.entries:
                if entry["release"] == record["back"]:
                    text = set_header(text, "default", str(entry["index"]))
                    break
        return text

    def set_default(self, index):
        if self.default == "saved":
            self.put_number(index)
        else:
            Legacy.set_default(self, index)

    def restore(self, record):
        self.files.write(self.default_file(), record.get("default_file"))

    def disarm_once(self):
        armed = self._armed()
        if armed:
            self.put_number(armed[1])


# GRUB 2


MENU = re.compile(r"""^\s*(menuentry|submenu)\s+(?:'([^']*)'|"([^"]*)"|(\S+))(.*)$""")
IDENT = re.compile(r"""(?:--id[ =]|\$menuentry_id_option\s+)\s*(?:'([^']*)'|"([^"]*)"|(\S+))""")


def parse_grub2(text):
    """Entries of a grub.cfg, and each by every name that saved_entry may have for it."""
    entries = []
    names = {}
    menus = []
    counts = [0]
    current = None
    depth = []
    for number, line in enumerate(text.splitlines()):
        match = MENU.match(line)
        if match:
            title = [part for part in match.group(2, 3, 4) if part is not None][0]
            ident = IDENT.search(match.group(5))
            name = title
            if ident:
                name = ([part for part in ident.groups() if part] or [title])[0]
            level = (title, name, counts[-1])
            counts[-1] += 1
            if match.group(1) == "submenu":
                menus.append(level)
                counts.append(0)
            else:
                current = level
            depth.append(match.group(1))
            continue
        words = line.split()
        if line.strip() == "}" and depth:
            if depth.pop() == "submenu":
                menus.pop()
                counts.pop()
            else:
                current = None
        elif current and len(words) > 1 and words[0] in ("linux", "linux16", "linuxefi"):
            chain = menus + [current]
            entry = new_entry(len(entries), current[0])
            entry["release"] = release_of(words[1])
            entry["kernel"] = words[1]
            entry["arguments"] = words[2:]
            entry["path"] = ">".join(level[1] for level in chain)
            entry["line"] = number
            entries.append(entry)
            for part in (1, 0, 2):
                names.setdefault(">".join(str(level[part]) for level in chain), entry)
            names.setdefault(current[1], entry)
        elif current and entries and len(words) > 1 and words[0] in ("initrd", "initrd16"):
            entries[-1]["initrd"] = words[1]
    return entries, names


def parse_grubenv(text):
    """[name, value] pairs of an environment block, in order."""
    return [line.split("=", 1) for line in text.splitlines()
            if "=" in line and not line.startswith("#")]


class Grub2:
    """GRUB 2: saved_entry and next_entry in grubenv; GRUB clears next_entry before the boot."""

    kind = GRUB2

    def __init__(self, files, config):
        self.files = files
        self.config = config
        self.grubenv = os.path.dirname(config) + "/grubenv"
        self.load()

    def load(self):
        self.entries, self.names = parse_grub2(self.text())

    def text(self):
        return self.files.read(self.config) or ""

    def put(self, text):
        self.files.write(self.config, text)
        self.load()

    def variable(self, name):
        return dict(parse_grubenv(self.files.read(self.grubenv) or "")).get(name, "")

    def set_variable(self, name, value):
        pairs = [pair for pair in parse_grubenv(self.files.read(self.grubenv) or "")
                 if pair[0] != name]
        if value:
            pairs.append([name, value])
        text = "# GRUB Environment Block\n" + "".join("%s=%s\n" % tuple(pair) for pair in pairs)
        if len(text) > GRUBENV_SIZE:
            raise Refused("%s is full" % self.grubenv)
        self.files.write(self.grubenv, text.ljust(GRUBENV_SIZE, "#"), in_place=True)

    def _index(self, name):
        return self.names[name]["index"] if name in self.names else None

    def default_index(self):
        if "saved_entry" in self.text():
            saved = self.variable("saved_entry")
            if saved:
                return self._index(saved)
            return 0 if self.entries else None
        match = re.search(r'^\s*set default="?(\d+)"?\s*$', self.text(), re.M)
        return self._index(match.group(1) if match else "0")

    def once_index(self):
        return self._index(self.variable("next_entry"))

    def traps(self):
        found = []
        text = self.text()
        if "saved_entry" not in text or "next_entry" not in text:
            found.append(trap(
                "%s does not start the saved entry, a single boot cannot be armed" % self.config,
                "set GRUB_DEFAULT=saved in /etc/default/grub and make grub.cfg again"))
        block = self.files.read(self.grubenv)
        if block is None or len(block) != GRUBENV_SIZE:
            found.append(trap(
                "%s is missing or not %d bytes long" % (self.grubenv, GRUBENV_SIZE),
                "make it with grub2-editenv - create (Debian: grub-editenv)"))
        index = self.default_index()
        if index is None:
            found.append(trap(
                "the saved entry %s is not in %s"
                % (self.variable("saved_entry") or "0", self.config),
                "set it with grub2-set-default (Debian: grub-set-default)"))
        return found

    def _edit_line(self, index, add, remove):
        lines = self.text().splitlines(True)
        number = self.entries[index]["line"]
        lines[number] = edit_arguments(lines[number], add, remove)
        return "".join(lines)

    def arm(self, index, old, arguments, record):
        add = [word for word in arguments if word not in self.entries[index]["arguments"]]
        record["added"] = add
        record["saved_entry"] = self.variable("saved_entry")
        self.put(self._edit_line(index, add, []))
        # By name: a number would lead elsewhere when an entry is added.
        self.set_variable("saved_entry", self.entries[old]["path"])
        self.set_variable("next_entry", self.entries[index]["path"])

    def remove_edits(self, record):
        for entry in self.entries:
            if entry["release"] == record["release"]:
                return self._edit_line(entry["index"], [], record["added"])
        return self.text()

    def set_default(self, index):
        self.set_variable("saved_entry", self.entries[index]["path"])

    def restore(self, record):
        self.set_variable("saved_entry", record["saved_entry"])

    def disarm_once(self):
        if self.variable("next_entry"):
            self.set_variable("next_entry", "")


# Recognising, and what would go wrong


def trap(message, remedy=""):
    return {"message": message, "remedy": remedy}


def find_loader(files):
    """The boot loader, and the traps that make it unusable from the start."""
    stage2 = files.read(STAGE2)
    legacy = [path for path in ("/boot/grub/grub.conf", "/boot/grub/menu.lst")
              if files.read(path) is not None]
    grub2 = [path for path in ("/boot/grub2/grub.cfg", "/boot/grub/grub.cfg")
             if files.read(path) is not None]
    found = []
    loader = None
    if files.exists("/sys/firmware/efi"):
        found.append(trap(
            "the host boots by UEFI, where a single boot is not proven to be undone",
            "boot it by its BIOS, or leave it out with --limit"))
    if legacy and stage2 is not None and grub2:
        found.append(trap(
            "files of GRUB 0.97 and of GRUB 2 are both in /boot, which one boots cannot be told",
            "remove the configuration of the one that is not used"))
    if legacy and stage2 is not None:
        kind = legacy_kind(stage2)
        if kind == REDHAT:
            loader = RedHat(files, legacy[0])
        elif kind == DEBIAN:
            loader = Debian(files, legacy[0])
        else:
            found.append(trap(
                "%s is not a GRUB 0.97 of Red Hat's or Debian's" % STAGE2,
                "install the distribution's own grub package and run grub-install"))
    elif legacy:
        found.append(trap(
            "%s is there but %s is not" % (legacy[0], STAGE2), "run grub-install"))
    elif grub2:
        loader = Grub2(files, grub2[0])
    else:
        found.append(trap(
            "no boot loader is known by its files: neither GRUB 0.97 nor GRUB 2 is in /boot",
            "leave the host out with --limit"))
    return loader, found


def mount_of(files, path):
    """(device, type, options) of the file system that holds a path, or None."""
    best = None
    for line in (files.read("/proc/mounts") or "").splitlines():
        fields = line.split()
        if len(fields) < 4 or fields[2] == "rootfs":
            continue
        point = fields[1].rstrip("/")
        if path != point and not path.startswith(point + "/"):
            continue
        # Of two on the same place the later one is seen.
        if best is None or len(point) >= len(best[1]):
            best = (fields[0], point, fields[2], fields[3].split(","))
    if best is None:
        return None
    return best[0], best[2], best[3]


def real_device(files, path):
    """The device that holds a path, where /proc/mounts says /dev/root only."""
    number = os.stat(files.root + path).st_dev
    link = "%s/sys/dev/block/%d:%d" % (files.root, os.major(number), os.minor(number))
    return "/dev/" + os.path.basename(os.readlink(link)) if os.path.islink(link) else "/dev/root"


def file_system_traps(files, kind):
    """Where the boot loader's files are, and whether they can be written for good there."""
    found = []
    mount = mount_of(files, "/boot")
    if mount is None:
        return found
    device, fstype, options = mount
    if device == "/dev/root":
        device = real_device(files, "/boot")
    name = device.rsplit("/", 1)[-1]
    if fstype in ("ext3", "ext4"):
        # Today's ext4 driver serves ext3 as well and tells its defaults only here.
        told = " ".join(files.read("/proc/fs/%s/%s/options" % (kind_of, name)) or ""
                        for kind_of in ("ext3", "ext4")).split()
        if "data=journal" in options or "data=journal" in told:
            found.append(trap(
                "/boot is on %s with data=journal: replaying the journal would arm the boot again"
                % fstype, "mount it with data=ordered"))
    if name.startswith("md"):
        found.append(trap(
            "/boot is on %s, a RAID: the boot loader would clear the single boot on one disk only"
            % device, "leave the host out with --limit"))
    if kind == GRUB2 and (name.startswith("dm-") or device.startswith("/dev/mapper/")
                          or fstype in ("btrfs", "zfs")):
        found.append(trap(
            "/boot is on %s (%s), where GRUB 2 cannot write: a single boot would stay armed"
            % (device, fstype), "leave the host out with --limit"))
    if "ro" in options:
        found.append(trap("/boot is mounted read-only", "mount it writable"))
    return found


def kernel_file(files, path):
    """Whether a file that an entry names is there; /boot may be a file system of its own."""
    path = re.sub(r"^\([^)]*\)", "", path)
    for place in (path, "/boot" + path):
        real = files.real(place)
        if os.path.isfile(real) and os.path.getsize(real) > 0:
            return True
    return False


def entry_of(loader, release):
    for entry in loader.entries:
        if entry["release"] == release:
            return entry
    known = sorted(set(entry["release"] for entry in loader.entries if entry["release"]))
    raise Refused(
        "%s has no entry for %s" % (loader.config, release),
        "it has entries for: %s" % ", ".join(known))


def release_at(loader, index):
    if index is None or not 0 <= index < len(loader.entries):
        return ""
    return loader.entries[index]["release"]


def gather(files):
    """The loader and what is returned as `boot`."""
    loader, found = find_loader(files)
    if loader is None:
        return None, {"kind": UNKNOWN, "config": "", "entries": [], "default_release": "",
                      "once_release": "", "tried_release": "", "traps": found}
    found = found + loader.traps() + file_system_traps(files, loader.kind)
    return loader, {
        "kind": loader.kind,
        "config": loader.config,
        "entries": loader.entries,
        "default_release": release_at(loader, loader.default_index()),
        "once_release": release_at(loader, loader.once_index()),
        "tried_release": tried_release(files),
        "traps": found,
    }


# The states


def digest(text):
    return hashlib.sha256(text.encode("latin-1")).hexdigest()


def read_record(files):
    text = files.read(RECORD)
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        raise Refused("%s is damaged" % RECORD, "look at the boot loader's files and remove it")


def tried_release(files):
    """The release of the record; empty when there is none or it cannot be read."""
    try:
        record = read_record(files)
    except Refused:
        return ""
    return record["release"] if record else ""


def require_files(files, entry):
    if not entry["kernel"] or not kernel_file(files, entry["kernel"]):
        raise Refused(
            "the kernel %s of the entry for %s is missing or empty"
            % (entry["kernel"], entry["release"]), "install its package again")
    for name in entry["initrd"].split():
        if not kernel_file(files, name):
            raise Refused(
                "the initrd %s of the entry for %s is missing or empty"
                % (name, entry["release"]), "make it with new-kernel-pkg or dracut")


def refuse_traps(boot):
    if boot["traps"]:
        first = boot["traps"][0]
        raise Refused(first["message"], first["remedy"])


def disarm(files, loader):
    """Take back what `arm` did, in memory."""
    record = read_record(files)
    if record is not None:
        if digest(loader.text()) == record["after"]:
            loader.put(record["before"])
        else:
            loader.put(loader.remove_edits(record))
        loader.restore(record)
        files.write(RECORD, None)
    loader.disarm_once()


def arm(files, loader, release, arguments):
    """Start a release once, in memory."""
    # Armed before: what is there now carries our edits.
    disarm(files, loader)
    entry = entry_of(loader, release)
    old = loader.default_index()
    if entry["index"] == old:
        raise Refused("%s is the default already, a trial would have no way back" % release)
    if entry["index"] > 255:
        raise Refused(
            "the entry for %s is number %d, a single boot can name 255 at most"
            % (release, entry["index"]), "remove entries that are not used")
    back = release_at(loader, old)
    if not back:
        raise Refused("the default entry starts no kernel that can be recognised")
    require_files(files, entry)
    require_files(files, loader.entries[old])
    before = loader.text()
    record = {"release": release, "back": back, "before": before,
              "fallback": getattr(loader, "fallback", "")}
    loader.arm(entry["index"], old, arguments, record)
    record["after"] = digest(loader.text())
    files.write(RECORD, json.dumps(record, sort_keys=True) + "\n")
    return back


def set_default(files, loader, release):
    """Make a release the default, in memory."""
    disarm(files, loader)
    entry = entry_of(loader, release)
    require_files(files, entry)
    if loader.default_index() != entry["index"]:
        loader.set_default(entry["index"])


def write_order(path):
    """The record first, what arms the boot last: a cut in between leaves the old default."""
    if path.endswith("boot-entry.json"):
        return 0, path
    if path.endswith(("/stage2", "/grubenv")):
        return 3, path
    return (1 if path.endswith("/default") else 2), path


def expect_state(boot, default, once):
    """What was read back must be what was wanted."""
    if boot["default_release"] != default or boot["once_release"] != once:
        raise Refused(
            "the boot loader's files read back otherwise than written: default %s, once %s"
            % (boot["default_release"] or "none", boot["once_release"] or "none"),
            "look at %s" % boot["config"])


def run(module):
    state = module.params["state"]
    release = module.params["release"]
    files = Files(module.params["root"])
    loader, boot = gather(files)
    if state == "gathered":
        module.exit_json(changed=False, boot=boot)
    refuse_traps(boot)
    once = ""
    if state == "armed":
        default = arm(files, loader, release, module.params["arguments"])
        once = release
    elif state == "disarmed":
        disarm(files, loader)
        default = release_at(loader, loader.default_index())
    else:
        set_default(files, loader, release)
        default = release
    changes = files.changes()
    result = {"changed": bool(changes), "boot": boot}
    if module._diff:
        result["diff"] = [
            {"before": old or "", "after": new or "", "before_header": path, "after_header": path}
            for path, old, new, in_place in changes if not in_place]
    if changes and not module.check_mode:
        files.flush(write_order)
        module.run_command(["sync"])
        boot = gather(Files(module.params["root"]))[1]
        expect_state(boot, default, once)
        result["boot"] = boot
    module.exit_json(**result)


def main():
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "default": "gathered",
                      "choices": ["gathered", "armed", "disarmed", "default"]},
            "release": {"type": "str"},
            "arguments": {"type": "list", "elements": "str", "default": []},
            "root": {"type": "path", "default": "/"},
        },
        required_if=[("state", "armed", ["release"]), ("state", "default", ["release"])],
        supports_check_mode=True,
    )
    try:
        run(module)
    except Refused as problem:
        module.fail_json(msg=problem.sentence())
    except (IOError, OSError) as problem:
        module.fail_json(msg="%s: %s" % (problem.filename, problem.strerror))


if __name__ == "__main__":
    main()
