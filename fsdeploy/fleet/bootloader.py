# SPDX-License-Identifier: GPL-2.0-only
"""Reads and edits boot loader files on the control machine; starts nothing and asks no host.

The host module `boot_entry` does this on hosts that have a working Python. This is for the others
(rollback over plain SSH) and for the checks. Three mechanisms are told apart:

- Red Hat's GRUB 0.97: grub.conf with a numeric `default=`; a single boot is a 32-bit word in
  stage2, 0x10000 | N << 8 | saved entry, that GRUB clears before it loads the kernel.
- Debian's GRUB 0.97: `default saved` takes the entry from the file `default`; a single boot is the
  trial's number in that file and `savedefault OLD` as the trial entry's first command, which
  writes the old number back before the kernel is loaded.
- GRUB 2: `saved_entry` and `next_entry` in grubenv.
"""

from __future__ import annotations

import posixpath
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from fsdeploy.errors import FsdeployError

ONCE_OFFSET = 0x20C
_ONCE_FLAG = 0x10000
_VERSION_OFFSET = 0x212  # "0.97", then the name of the configuration file, both ended by a zero
GRUBENV_SIZE = 1024
_GRUBENV_HEAD = "# GRUB Environment Block\n"

_DEFAULT_FILE_TAIL = "#\n" * 10 + (
    "# WARNING: If you want to edit this file directly, do not remove any line\n"
    "# from this file, including this warning. Using `grub-set-default' is\n"
    "# strongly recommended.\n"
)


class Kind(StrEnum):
    """A boot loader and the way it boots an entry once."""

    REDHAT_LEGACY = "grub-0.97-redhat"
    DEBIAN_LEGACY = "grub-0.97-debian"
    GRUB2 = "grub-2"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Entry:
    """One entry of a boot menu. `release` is empty when it starts no Linux kernel."""

    index: int
    title: str
    release: str
    kernel: str
    initrd: str
    arguments: tuple[str, ...]
    path: str = ""  # GRUB 2: what grub2-set-default takes, also inside submenus


@dataclass(frozen=True)
class BootState:
    """What a host's boot loader will do."""

    kind: Kind
    config: str
    entries: tuple[Entry, ...]
    default_release: str
    once_release: str

    def entry(self, release: str) -> Entry:
        """The first entry that starts a release; FsdeployError when there is none."""
        for entry in self.entries:
            if entry.release == release:
                return entry
        known = ", ".join(entry.release for entry in self.entries if entry.release)
        raise FsdeployError(
            f"{self.config} has no entry for {release}", hint=f"it has entries for: {known}"
        )

    @property
    def releases(self) -> tuple[str, ...]:
        """Releases that can be booted, in menu order."""
        return tuple(dict.fromkeys(entry.release for entry in self.entries if entry.release))


def release_of(kernel: str) -> str:
    """The release in a kernel's path: /boot/vmlinuz-RELEASE."""
    name = posixpath.basename(kernel)
    return name[len("vmlinuz-") :] if name.startswith("vmlinuz-") else ""


# GRUB 0.97


_COMMAND = re.compile(r"^\s*([A-Za-z0-9_]+)(?:\s*=\s*|\s+|$)(.*?)\s*$")


def _command(line: str) -> tuple[str, str]:
    """A line's command and its argument; `default=1` and `default 1` are the same."""
    if line.lstrip().startswith("#"):
        return "", ""
    match = _COMMAND.match(line)
    return (match.group(1).lower(), match.group(2)) if match else ("", "")


@dataclass(frozen=True)
class LegacyConfig:
    """A grub.conf or menu.lst. `default` and `fallback` as written, empty when there is no line."""

    entries: tuple[Entry, ...]
    default: str
    fallback: str


def parse_legacy(text: str) -> LegacyConfig:
    """Parse a GRUB 0.97 configuration."""
    default = fallback = ""
    entries: list[Entry] = []
    for line in text.splitlines():
        word, value = _command(line)
        if word == "title":
            entries.append(Entry(len(entries), value, "", "", "", ()))
        elif not entries and word == "default":
            default = value
        elif not entries and word == "fallback":
            fallback = value
        elif entries and word == "kernel" and not entries[-1].kernel:
            words = [part for part in value.split() if not part.startswith("--")]
            kernel = words[0] if words else ""
            entries[-1] = replace(
                entries[-1],
                kernel=kernel,
                release=release_of(kernel),
                arguments=tuple(words[1:]),
            )
        elif entries and word == "initrd":
            entries[-1] = replace(entries[-1], initrd=value)
    return LegacyConfig(tuple(entries), default, fallback)


def with_default(text: str, value: str) -> str:
    """The configuration with another `default`; the line keeps its form. Adds none."""
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        word, _ = _command(line)
        if word == "title":
            break
        if word == "default":
            lines[number] = re.sub(r"(default\s*[=\s]\s*)\S+", rf"\g<1>{value}", line, count=1)
            return "".join(lines)
    raise FsdeployError(
        "the GRUB configuration has no default line",
        hint="add a line default=N with the number of the entry to boot",
    )


def legacy_kind(stage2: bytes) -> Kind:
    """Whose GRUB 0.97 a stage2 is.

    Debian's and GNU's know `savedefault [NUM | …]` and read menu.lst, Red Hat's reads grub.conf.
    """
    if len(stage2) < _VERSION_OFFSET + 8:
        return Kind.UNKNOWN
    version, _, rest = stage2[_VERSION_OFFSET : _VERSION_OFFSET + 256].partition(b"\0")
    if version != b"0.97":
        return Kind.UNKNOWN
    if b"savedefault [NUM" in stage2:
        return Kind.DEBIAN_LEGACY
    if rest.partition(b"\0")[0].endswith(b"grub.conf"):
        return Kind.REDHAT_LEGACY
    return Kind.UNKNOWN


def once_word(old: int, entry: int) -> int:
    """The word that makes Red Hat's GRUB start an entry once, keeping the saved entry."""
    if not 0 <= entry < 256:
        raise ValueError(f"entry {entry} does not fit into the word")
    return _ONCE_FLAG | entry << 8 | old & 0xFF


def once_entry(word: int) -> int | None:
    """The entry that is armed in a word, or None."""
    return word >> 8 & 0xFF if word & _ONCE_FLAG else None


def stage2_word(stage2: bytes) -> int:
    """The word in a stage2."""
    return int(struct.unpack_from("<I", stage2, ONCE_OFFSET)[0])


def default_file_text(entry: int) -> str:
    """Debian's /boot/grub/default. GRUB writes into its blocks: the length must stay."""
    return f"{entry}\n{_DEFAULT_FILE_TAIL}"


def parse_default_file(data: bytes) -> int | None:
    """The entry in Debian's default file. After a savedefault a zero follows the number."""
    match = re.match(rb"\s*(\d+)", data)
    return int(match.group(1)) if match else None


def savedefault_of(text: str, index: int) -> str | None:
    """The argument of an entry's `savedefault`; empty when it has none, None without one."""
    entry = -1
    for line in text.splitlines():
        word, value = _command(line)
        if word == "title":
            entry += 1
        elif entry == index and word == "savedefault":
            return value
    return None


# GRUB 2


def parse_grubenv(data: bytes) -> dict[str, str]:
    """The variables in a GRUB environment block."""
    values = {}
    for line in data.decode("utf-8", "replace").splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            values[name] = value
    return values


def grubenv_block(values: dict[str, str]) -> bytes:
    """An environment block: its size is fixed, the rest is filled with #."""
    text = _GRUBENV_HEAD + "".join(f"{name}={value}\n" for name, value in values.items())
    data = text.encode()
    if len(data) > GRUBENV_SIZE:
        raise FsdeployError("the GRUB environment block is full")
    return data.ljust(GRUBENV_SIZE, b"#")


_MENU = re.compile(r"""^\s*(menuentry|submenu)\s+(?:'([^']*)'|"([^"]*)"|(\S+))(.*)$""")
_ID = re.compile(r"""(?:--id[ =]|\$menuentry_id_option\s+)\s*(?:'([^']*)'|"([^"]*)"|(\S+))""")


@dataclass(frozen=True)
class _Level:
    title: str
    ident: str
    index: int


def parse_grub2(text: str) -> tuple[tuple[Entry, ...], dict[str, Entry]]:
    """Entries of a grub.cfg, and each by every name that `saved_entry` may have for it."""
    entries: list[Entry] = []
    names: dict[str, Entry] = {}
    menus: list[_Level] = []
    counts = [0]
    current: _Level | None = None
    depth: list[str] = []
    for line in text.splitlines():
        match = _MENU.match(line)
        if match:
            title = next(part for part in match.group(2, 3, 4) if part is not None)
            ident = _ID.search(match.group(5))
            name = next((part for part in ident.groups() if part), title) if ident else title
            level = _Level(title, name, counts[-1])
            counts[-1] += 1
            if match.group(1) == "submenu":
                menus.append(level)
                counts.append(0)
                depth.append("submenu")
            else:
                current = level
                depth.append("menuentry")
            continue
        words = line.split()
        if line.strip() == "}" and depth:
            if depth.pop() == "submenu":
                menus.pop()
                counts.pop()
            else:
                current = None
        elif current and len(words) > 1 and words[0] in ("linux", "linux16", "linuxefi"):
            chain = [*menus, current]
            entry = Entry(
                len(entries),
                current.title,
                release_of(words[1]),
                words[1],
                "",
                tuple(words[2:]),
                ">".join(level.ident for level in chain),
            )
            entries.append(entry)
            for forms in (
                [level.ident for level in chain],
                [level.title for level in chain],
                [str(level.index) for level in chain],
            ):
                names.setdefault(">".join(forms), entry)
            names.setdefault(current.ident, entry)
        elif current and entries and len(words) > 1 and words[0] in ("initrd", "initrd16"):
            entries[-1] = replace(entries[-1], initrd=words[1])
            names = {
                key: entries[-1] if value.index == entries[-1].index else value
                for key, value in names.items()
            }
    return tuple(entries), names


# The whole state

Reader = Callable[[str], bytes | None]

_LEGACY_CONFIGS = ("/boot/grub/grub.conf", "/boot/grub/menu.lst")
_GRUB2_CONFIGS = ("/boot/grub2/grub.cfg", "/boot/grub/grub.cfg")


def read_boot(read: Reader) -> BootState:
    """What the boot loader will do, from its files. `read` gives a file's bytes or None.

    The kind is `unknown` when no mechanism is recognised.
    """
    stage2 = read("/boot/grub/stage2")
    if stage2:
        for config in _LEGACY_CONFIGS:
            data = read(config)
            if data is not None:
                return _read_legacy(read, config, data.decode("utf-8", "replace"), stage2)
    for config in _GRUB2_CONFIGS:
        data = read(config)
        if data is not None:
            return _read_grub2(read, config, data.decode("utf-8", "replace"))
    return BootState(Kind.UNKNOWN, "", (), "", "")


def _at(entries: Sequence[Entry], index: int | None) -> str:
    if index is None or not 0 <= index < len(entries):
        return ""
    return entries[index].release


def _read_legacy(read: Reader, config: str, text: str, stage2: bytes) -> BootState:
    kind = legacy_kind(stage2)
    parsed = parse_legacy(text)
    default: int | None = int(parsed.default) if parsed.default.isdigit() else None
    once: int | None = None
    if kind is Kind.REDHAT_LEGACY:
        word = stage2_word(stage2)
        once = once_entry(word)
        if parsed.default == "saved":
            default = word & 0xFF
    elif kind is Kind.DEBIAN_LEGACY and parsed.default == "saved":
        default = parse_default_file(read(posixpath.dirname(config) + "/default") or b"")
        back = savedefault_of(text, default) if default is not None else None
        if back is not None and back.isdigit() and int(back) != default:
            once, default = default, int(back)
    return BootState(
        kind, config, parsed.entries, _at(parsed.entries, default), _at(parsed.entries, once)
    )


def _read_grub2(read: Reader, config: str, text: str) -> BootState:
    entries, names = parse_grub2(text)
    values = parse_grubenv(read(posixpath.dirname(config) + "/grubenv") or b"")
    saved, once = values.get("saved_entry", ""), values.get("next_entry", "")
    uses_saved = "saved_entry" in text
    number = re.search(r'^\s*set default="?(\d+)"?\s*$', text, re.MULTILINE)
    wanted = saved if uses_saved else (number.group(1) if number else "0")
    default = names.get(wanted) or (entries[0] if entries else None)
    return BootState(
        Kind.GRUB2,
        config,
        entries,
        default.release if default else "",
        names[once].release if once in names else "",
    )
