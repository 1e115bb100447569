# -*- coding: utf-8 -*-
# SPDX-License-Identifier: GPL-2.0-only
"""Tuning on the host's side: collects a snapshot, applies settings, keeps them, restores them.

What is to be set is decided on the control machine; here nothing is computed. A setting is a dict:

  kind    target                                 value
  interrupt   name in the last column of         a CPU mask as the kernel writes it
          /proc/interrupts
  mask    a file that holds a CPU mask           the same
  value   a file that holds words                the words, one blank between two
  coalesce    an interface                       NAME=NUMBER ..., the names of ethtool -C
  irqbalance  its configuration file             names of interrupts that it leaves alone

Interrupts are named and never numbered: a number holds until the next boot at most.

apply: remember what each target holds (once; what is remembered is never written over), let
irqbalance go of the interrupts, write what differs, read everything back. A target that cannot be
written, or keeps its value, is a result and no error.
restore: write back what was remembered and remove every file that came with the tuning.

A host applies its plan again at boot and when an interface comes up, by a program of its own: that
is fsdeploy_files.py, and behind it what stands below the mark in this file. It imports nothing but
the standard library, and runs on Python 2.6, 2.7 and 3.
"""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

from ansible.module_utils import fsdeploy_files
from ansible.module_utils.fsdeploy_files import (
    CANNOT, CHANGED, FORMAT, MISSING, UNCHANGED,
    Block, Failed, Files,
    dump, file_differs, is_systemd, load, make_folders, new_record, put_back_file, put_file,
    read_record, reason_of, remember_file, remove_folders, result_of, source_of, write_record,
)

# From here on it is part of the program.

import array
import errno
import fcntl
import os
import re
import socket
import struct
import sys

FOLDER = "/var/lib/fsdeploy/tuning"
PLAN = FOLDER + "/plan.json"
BEFORE = FOLDER + "/before.json"
PROGRAM = "/usr/sbin/fsdeploy-tuning"

BLOCK = Block("tuning", "fsdeploy tune --restore")

IRQBALANCE_CONFIGS = ("/etc/sysconfig/irqbalance", "/etc/default/irqbalance")
IRQBALANCE_PROGRAMS = ("/usr/sbin/irqbalance", "/sbin/irqbalance")

# What is read of a host beside its interfaces and interrupts.
FILES = (
    "/proc/sys/kernel/osrelease",
    "/proc/interrupts",
    "/proc/sys/fs/file-max",
    "/proc/sys/net/core/netdev_max_backlog",
    "/proc/sys/net/core/rps_sock_flow_entries",
    "/proc/sys/net/core/somaxconn",
    "/proc/sys/net/ipv4/ip_local_port_range",
    "/proc/sys/net/ipv4/ip_local_reserved_ports",
    "/proc/sys/net/ipv4/tcp_max_syn_backlog",
    "/sys/devices/system/cpu/online",
    "/sys/devices/system/cpu/possible",
    "/sys/module/fastsocket/parameters/enable_listen_spawn",
    "/sys/module/fastsocket/parameters/enable_receive_flow_deliver",
    "/sys/module/rfd/parameters/enable_receive_flow_deliver",
)

INIT_SCRIPT = """\
#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Written by fsdeploy tune; fsdeploy tune --restore removes it.
# chkconfig: 2345 12 88
# description: Applies fsdeploy's network tuning again, after the network and before irqbalance.
### BEGIN INIT INFO
# Provides:          fsdeploy-tuning
# Required-Start:    $network
# Default-Start:     2 3 4 5
# Default-Stop:
# Short-Description: fsdeploy's network tuning
### END INIT INFO

case "$1" in
start | restart | reload | force-reload)
\texec %(program)s
\t;;
stop | status)
\t;;
*)
\techo "Usage: $0 {start|stop|restart|reload|force-reload|status}" >&2
\texit 2
\t;;
esac
"""

UNIT = """\
# SPDX-License-Identifier: GPL-2.0-only
# Written by fsdeploy tune; fsdeploy tune --restore removes it.
[Unit]
Description=fsdeploy's network tuning
Wants=network-online.target
After=network-online.target
Before=irqbalance.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=%(program)s

[Install]
WantedBy=multi-user.target
"""

# A card that appears later, or whose driver is loaded anew. Before the unit has run this does
# nothing.
UDEV_RULE = """\
# Written by fsdeploy tune; fsdeploy tune --restore removes it.
ACTION=="add", SUBSYSTEM=="net", RUN+="/bin/systemctl --no-block try-restart fsdeploy-tuning"
"""

DISPATCHER = """\
#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Written by fsdeploy tune; fsdeploy tune --restore removes it.
[ "$2" = up ] || exit 0
exec %(program)s
"""

IF_UP = """\
#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Written by fsdeploy tune; fsdeploy tune --restore removes it.
exec %(program)s
"""

# CentOS's ifup calls this file, when there is one, for every interface it has brought up.
IFUP_LOCAL = "/sbin/ifup-local"


class Ethtool:
    """Interrupt coalescing by ioctl: the host may have no ethtool program."""

    SIOCETHTOOL = 0x8946
    GET = 0x0E
    SET = 0x0F
    # struct ethtool_coalesce behind its command, by the names of ethtool -C.
    FIELDS = (
        "rx-usecs", "rx-frames", "rx-usecs-irq", "rx-frames-irq",
        "tx-usecs", "tx-frames", "tx-usecs-irq", "tx-frames-irq",
        "stats-block-usecs", "adaptive-rx", "adaptive-tx",
        "pkt-rate-low", "rx-usecs-low", "rx-frames-low", "tx-usecs-low", "tx-frames-low",
        "pkt-rate-high", "rx-usecs-high", "rx-frames-high", "tx-usecs-high", "tx-frames-high",
        "sample-interval",
    )
    LAYOUT = "=%dI" % (len(FIELDS) + 1)

    def _call(self, interface, numbers):
        data = array.array("B", bytearray(struct.pack(self.LAYOUT, *numbers)))
        request = struct.pack("16sP16x", interface.encode("ascii"), data.buffer_info()[0])
        channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            fcntl.ioctl(channel.fileno(), self.SIOCETHTOOL, request)
        finally:
            channel.close()
        return struct.unpack(self.LAYOUT, bytes(bytearray(data)))

    def get(self, interface):
        numbers = self._call(interface, [self.GET] + [0] * len(self.FIELDS))
        return dict(zip(self.FIELDS, numbers[1:]))

    def set(self, interface, values):
        self._call(interface, [self.SET] + [values[name] for name in self.FIELDS])


class NoCards:
    """Interrupt coalescing where there is no card."""

    def get(self, interface):
        raise IOError(errno.ENODEV, os.strerror(errno.ENODEV))

    def set(self, interface, values):
        self.get(interface)


class Host(Files):
    """A host with its cards and interrupts."""

    def __init__(self, root="/", ethtool=None, ask=None):
        Files.__init__(self, root, ask)
        # A folder has no cards, and those of this machine are not its.
        self.ethtool = ethtool or (NoCards() if self.root else Ethtool())
        self._lines = ("", [])

    def interrupts(self):
        """The numbered lines of /proc/interrupts as they are now."""
        text = self.read("/proc/interrupts") or ""
        if text != self._lines[0]:
            self._lines = (text, interrupt_names(text))
        return self._lines[1]


# Snapshot


def interrupt_names(text):
    """From /proc/interrupts: (number, names) of every numbered line, in order.

    Shared interrupts have several names. Names come last, after two blanks at least.
    """
    found = []
    for line in text.splitlines()[1:]:
        number, colon, rest = line.partition(":")
        if not colon or not number.strip().isdigit():
            continue
        names = re.split(r"\s{2,}", rest.strip())[-1]
        found.append((int(number), [name.strip() for name in names.split(",") if name.strip()]))
    return found


def listening(text):
    """The head and the listening sockets of /proc/net/tcp; the rest may be very long."""
    lines = text.splitlines(True)
    return "".join(lines[:1] + [line for line in lines[1:] if line.split()[3:4] == ["0A"]])


def find_irqbalance(host):
    """Program, configuration and process of irqbalance; all empty where it is not installed."""
    programs = [path for path in IRQBALANCE_PROGRAMS if host.exists(path)]
    if not programs:
        return {"program": "", "config": "", "arguments": []}
    # The file is optional: then it is where the distribution looks for it.
    there = [path for path in IRQBALANCE_CONFIGS if host.exists(path)]
    there += [path for path in IRQBALANCE_CONFIGS if host.is_folder(os.path.dirname(path))]
    config = (there or list(IRQBALANCE_CONFIGS))[0]
    return {
        "program": programs[0], "config": config, "arguments": irqbalance_arguments(host) or [],
    }


def irqbalance_arguments(host):
    """The command line of the irqbalance that runs; None when none does."""
    for name in host.names("/proc"):
        if name.isdigit():
            words = (host.read("/proc/%s/cmdline" % name) or "").split("\0")
            if words[0].rsplit("/", 1)[-1] == "irqbalance":
                return [word for word in words if word]
    return None


def coalescing(host, interface):
    try:
        return host.ethtool.get(interface)
    except (IOError, OSError) as problem:
        return {"error": problem.errno}


def collect(host):
    """All that planning needs, as texts of files: nothing is interpreted here."""
    files, links, ethtool = {}, {}, {}

    def take(*names):
        for name in names:
            text = host.read(name)
            if text is not None:
                files[name] = text

    take(*FILES)
    for name in ("/proc/net/tcp", "/proc/net/tcp6"):
        text = host.read(name)
        if text is not None:
            files[name] = listening(text)
    for number, _ in interrupt_names(files.get("/proc/interrupts", "")):
        take("/proc/irq/%d/smp_affinity" % number)
    for name in host.names("/sys/devices/system/cpu"):
        if re.match(r"cpu\d+$", name):
            take("/sys/devices/system/cpu/%s/topology/thread_siblings_list" % name)
    for name in host.names("/sys/devices/system/node"):
        if re.match(r"node\d+$", name):
            take("/sys/devices/system/node/%s/cpulist" % name)
    for name in host.names("/sys/class/net"):
        base = "/sys/class/net/" + name
        if not host.exists(base + "/device"):
            continue
        device = os.path.realpath(host.path(base + "/device"))
        links[base + "/device"] = os.path.basename(device)
        driver = base + "/device/driver"
        if host.exists(driver):
            links[driver] = os.path.basename(os.path.realpath(host.path(driver)))
        take(base + "/flags", base + "/device/numa_node")
        if base + "/device/numa_node" not in files:
            # A virtio device has no node of its own; the PCI device it sits on has.
            text = host.read(base + "/device/../numa_node")
            if text is not None:
                files[base + "/device/numa_node"] = text
        for queue in host.names(base + "/queues"):
            for attribute in ("rps_cpus", "rps_flow_cnt", "xps_cpus"):
                take("%s/queues/%s/%s" % (base, queue, attribute))
        ethtool[name] = coalescing(host, name)
    return {
        "format": FORMAT, "files": files, "links": links, "ethtool": ethtool,
        "irqbalance": find_irqbalance(host),
    }


# One setting: read, compare, write


def parse_mask(text):
    """A CPU mask as a number: groups of 32 bits in hexadecimal, the highest first."""
    number = 0
    for group in text.strip().split(","):
        number = number << 32 | int(group, 16)
    return number


def parse_fields(text):
    fields = {}
    for word in text.split():
        name, _, number = word.partition("=")
        fields[name] = int(number)
    return fields


def print_fields(fields):
    return " ".join("%s=%d" % (name, fields[name]) for name in sorted(fields))


class Absent(Exception):
    """The target is not there now: an interface that is down, a feature the kernel lacks."""


class Refused(Exception):
    """The kernel or the driver does not let the target be read or written."""


def file_of(host, setting):
    """The file of a setting that is one; Absent when there is none now."""
    path = setting["target"]
    if setting["kind"] == "interrupt":
        numbers = [
            number for number, names in host.interrupts()
            if path in names]
        if not numbers:
            raise Absent("no interrupt has this name")
        path = "/proc/irq/%d/smp_affinity" % numbers[0]
    if not host.exists(path):
        raise Absent("%s is not there" % path)
    return path


def coalesce_fields(host, setting):
    try:
        return host.ethtool.get(setting["target"])
    except (IOError, OSError) as problem:
        if problem.errno == errno.ENODEV:
            raise Absent("there is no such interface")
        raise Refused(reason_of(problem))


def read_setting(host, setting):
    """What a target holds, in the form of a setting's value."""
    kind = setting["kind"]
    if kind == "coalesce":
        fields = coalesce_fields(host, setting)
        return print_fields(dict((name, fields[name]) for name in parse_fields(setting["value"])))
    if kind == "irqbalance":
        return banned(host, setting)
    text = host.read(file_of(host, setting))
    if text is None:
        raise Refused("it cannot be read")
    return " ".join(text.split())


def same(kind, one, other):
    """Whether two values of a kind mean the same."""
    if kind in ("interrupt", "mask"):
        try:
            return parse_mask(one) == parse_mask(other)
        except ValueError:
            return False
    if kind == "coalesce":
        return parse_fields(one) == parse_fields(other)
    return one.split() == other.split()


def write_setting(host, setting, value):
    try:
        if setting["kind"] == "coalesce":
            fields = coalesce_fields(host, setting)
            fields.update(parse_fields(value))
            host.ethtool.set(setting["target"], fields)
        else:
            host.set_value(file_of(host, setting), value)
    except (IOError, OSError) as problem:
        raise Refused(reason_of(problem))


def key_of(setting):
    return "%s %s" % (setting["kind"], setting["target"])


def from_key(key, value):
    kind, _, target = key.partition(" ")
    return {"kind": kind, "target": target, "value": value}


# irqbalance


ARGUMENT_LINE = re.compile(r"""^\s*(?:export\s+)?(IRQBALANCE_ARGS|OPTIONS)=(["']?)(.*?)\2\s*$""")


def ban_line(text, numbers):
    """The line that adds the bans to the arguments that the configuration has already."""
    # Debian once called it OPTIONS.
    variable, arguments = "IRQBALANCE_ARGS", ""
    for line in BLOCK.without(text).splitlines():
        match = ARGUMENT_LINE.match(line)
        if match:
            variable, arguments = match.group(1), match.group(3)
    words = [arguments] if arguments else []
    words += ["--banirq=%d" % number for number in numbers]
    return '%s="%s"' % (variable, " ".join(words))


def ban_numbers(host, setting):
    wanted = setting["value"].split()
    known = host.interrupts()
    return sorted(number for number, names in known if set(names) & set(wanted))


def bans_in(words):
    return set(
        int(word.split("=", 1)[1]) for word in words
        if word.startswith("--banirq=") and word.split("=", 1)[1].isdigit())


def bans_of(text):
    """The numbers that a configuration bans, ours and those of others."""
    return bans_in(re.split(r"""[\s"'=]+(?=--)|["'\s]+""", text))


def names_of(host, setting, numbers):
    """Names of a setting that belong to one of the interrupts."""
    known = host.interrupts()
    found = set(name for number, names in known if number in numbers for name in names)
    return " ".join(name for name in setting["value"].split() if name in found)


def banned(host, setting):
    """Names of the interrupts that irqbalance is told to leave alone, and really leaves."""
    lines = BLOCK.lines(host.read(setting["target"]) or "")
    numbers = bans_of("\n".join(lines))
    running = irqbalance_arguments(host)
    if running is not None:
        numbers &= bans_in(running)
    return names_of(host, setting, numbers)


def ban(host, setting):
    """Write the bans, and restart an irqbalance that runs with others; one that is off stays off.
    """
    path = setting["target"]
    text = host.read(path) or ""
    line = ban_line(text, ban_numbers(host, setting))
    new = BLOCK.within(text, [line])
    if new != text:
        host.put(path, new, 0o644)
    restart_irqbalance(host, bans_of(line))


def restart_irqbalance(host, numbers):
    running = irqbalance_arguments(host)
    if running is None or bans_in(running) == numbers:
        return
    if is_systemd(host):
        host.run(["systemctl", "restart", "irqbalance"])
    else:
        host.run(["/etc/init.d/irqbalance", "restart"])


# What keeps the tuning over a boot and over ifup


def source():
    """The program, but for its first line."""
    ours = source_of(__file__, globals().get("__loader__"))
    files = source_of(fsdeploy_files.__file__, getattr(fsdeploy_files, "__loader__", None))
    return files + ours.split("\n# From here on it is part of the program.\n", 1)[1]


def keepers(host):
    """Files that keep the tuning: (path, text, mode), or (path, target, None) for a link."""
    words = {"program": PROGRAM}
    # The interpreter that Ansible found works; /usr/bin/python need not be there.
    found = [(PROGRAM, "#!%s\n%s" % (sys.executable, source()), 0o755)]
    if is_systemd(host):
        unit = "/etc/systemd/system/fsdeploy-tuning.service"
        found.append((unit, UNIT % words, 0o644))
        found.append((
            "/etc/systemd/system/multi-user.target.wants/fsdeploy-tuning.service", unit, None))
        found.append(("/etc/udev/rules.d/90-fsdeploy-tuning.rules", UDEV_RULE, 0o644))
    else:
        found.append(("/etc/init.d/fsdeploy-tuning", INIT_SCRIPT % words, 0o755))
        for level in (2, 3, 4, 5):
            # What `chkconfig --add` makes of the script's head; not every host has chkconfig.
            found.append((
                "/etc/rc%d.d/S12fsdeploy-tuning" % level, "../init.d/fsdeploy-tuning", None))
    if host.is_folder("/etc/NetworkManager/dispatcher.d"):
        path = "/etc/NetworkManager/dispatcher.d/90-fsdeploy-tuning"
        found.append((path, DISPATCHER % words, 0o755))
    if host.is_folder("/etc/network/if-up.d"):
        found.append(("/etc/network/if-up.d/fsdeploy-tuning", IF_UP % words, 0o755))
    if host.is_folder("/etc/sysconfig/network-scripts"):
        old = BLOCK.without(host.read(IFUP_LOCAL) or "")
        line = PROGRAM + " || :"
        if not old:
            found.append((IFUP_LOCAL, BLOCK.within("#!/bin/sh\n", [line]), 0o755))
        elif re.match(r"#!\s*\S*/(ba|da|k)?sh\b", old):
            found.append((IFUP_LOCAL, BLOCK.within(old, [line], after_first=True), 0o755))
    return found


def put_back_irqbalance(host, path, record):
    put_back_file(host, path, record["files"].pop(path), BLOCK)
    restart_irqbalance(host, bans_of(host.read(path) or ""))


# The two things that are done


def look(host, setting):
    """(value, result): the result when there is nothing more to be done about the setting."""
    try:
        return read_setting(host, setting), None
    except Absent as problem:
        return "", result_of(setting, "", "", MISSING, str(problem))
    except Refused as problem:
        return "", result_of(setting, "", "", CANNOT, str(problem))


def settle(host, setting, record, check):
    """Bring one target to its value."""
    kind, value, key = setting["kind"], setting["value"], key_of(setting)
    if kind == "irqbalance":
        # An interface that is down has no interrupts to ban.
        value = names_of(host, setting, ban_numbers(host, setting))
    before, result = look(host, setting)
    if result:
        return result
    accepted = record["accepted"].get(key)
    if same(kind, before, value):
        return result_of(setting, before, before, UNCHANGED)
    if accepted and accepted[0] == value and same(kind, before, accepted[1]):
        return result_of(
            setting, before, before, UNCHANGED, "the driver made it of %s" % value)
    if check:
        return result_of(setting, before, value, CHANGED)
    if kind == "irqbalance":
        ban(host, setting)
        after = read_setting(host, setting)
        if not same(kind, after, value):
            return result_of(
                setting, before, after, CANNOT,
                "irqbalance was restarted and does not have the bans among its arguments")
        return result_of(setting, before, after, CHANGED)
    try:
        write_setting(host, setting, value)
        after = read_setting(host, setting)
    except (Absent, Refused) as problem:
        return result_of(setting, before, before, CANNOT, str(problem))
    if same(kind, after, value):
        return result_of(setting, before, after, CHANGED)
    if same(kind, after, before):
        return result_of(setting, before, after, CANNOT, "it was written and kept its value")
    record["accepted"][key] = [value, after]
    return result_of(setting, before, after, CHANGED, "the driver made it of %s" % value)


def remember(host, settings, record):
    """Remember what targets hold that were not seen before; whether there were any."""
    news = False
    for setting in settings:
        key = key_of(setting)
        if setting["kind"] == "irqbalance":
            news = news or setting["target"] not in record["files"]
            remember_file(host, setting["target"], record)
            continue
        if key in record["values"]:
            continue
        value, result = look(host, setting)
        if result is None:
            record["values"][key] = value
            news = True
    return news


def first_irqbalance(setting):
    # It moves interrupts behind our back until it is told not to.
    return setting["kind"] != "irqbalance"


def apply_settings(host, settings, check=False, keep=True):
    """Bring every target to its value; (results, changed).

    `keep`: write the plan and what applies it again at boot and on ifup. Targets that an earlier
    plan had and this one has not get their old values back.
    """
    record = read_record(host, BEFORE)
    known = dump(record)
    wanted = set(key_of(setting) for setting in settings)
    dropped = [
        from_key(key, value) for key, value in sorted(record["values"].items())
        if key not in wanted]
    changed = False
    if not check:
        remember(host, settings, record)
        if keep:
            for path, _, _ in keepers(host):
                remember_file(host, path, record)
        if dump(record) != known:
            write_record(host, BEFORE, record)
            known = dump(record)
    results = []
    for setting in sorted(settings, key=first_irqbalance) + dropped:
        results.append(settle(host, setting, record, check))
    for setting in dropped:
        if not check:
            record["values"].pop(key_of(setting))
            record["accepted"].pop(key_of(setting), None)
    targets = set(setting["target"] for setting in settings)
    for path in IRQBALANCE_CONFIGS:
        if path in record["files"] and path not in targets:
            changed = True
            if not check:
                put_back_irqbalance(host, path, record)
    if keep:
        plan = dump({"format": FORMAT, "settings": settings})
        news = keepers(host) + [(PLAN, plan, 0o644)]
        for path, text, mode in news:
            if file_differs(host, path, text, mode):
                changed = True
                if not check:
                    make_folders(host, os.path.dirname(path), record)
                    put_file(host, path, text, mode)
        if changed and not check and is_systemd(host):
            host.run(["systemctl", "daemon-reload"])
            host.run(["udevadm", "control", "--reload"])
            # It must count as started, or the rule for cards that appear does nothing.
            host.run(["systemctl", "--no-block", "start", "fsdeploy-tuning"])
    if not check and dump(record) != known:
        write_record(host, BEFORE, record)
    changed = changed or any(result["outcome"] == CHANGED for result in results)
    return results, changed


def restore(host, check=False):
    """Put everything back; (results, changed). What cannot be put back stays remembered."""
    if host.read(BEFORE) is None:
        return [], False
    record = read_record(host, BEFORE)
    results = []
    for key, value in sorted(record["values"].items()):
        result = settle(host, from_key(key, value), new_record(), check)
        results.append(result)
    if check:
        return results, True
    if is_systemd(host):
        host.run(["systemctl", "stop", "fsdeploy-tuning"])
    for path in sorted(record["files"]):
        if path in IRQBALANCE_CONFIGS:
            put_back_irqbalance(host, path, record)
        else:
            put_back_file(
                host, path, record["files"][path], BLOCK if path == IFUP_LOCAL else None)
    if is_systemd(host):
        host.run(["systemctl", "daemon-reload"])
        host.run(["udevadm", "control", "--reload"])
    for path in (PLAN, BEFORE):
        if host.exists(path):
            os.unlink(host.path(path))
    stuck = dict(
        (key_of(result), record["values"][key_of(result)]) for result in results
        if result["outcome"] == CANNOT)
    if stuck:
        left = new_record()
        left["values"], left["folders"] = stuck, record["folders"]
        write_record(host, BEFORE, left)
        return results, True
    remove_folders(host, record)
    return results, True


def main():
    """The host's own run, at boot and when an interface comes up."""
    host = Host()
    text = host.read(PLAN)
    if text is None:
        return 0
    try:
        lock = open(host.path(PLAN))
        # An interface that comes up during the boot's own run.
        fcntl.flock(lock, fcntl.LOCK_EX)
        results, _ = apply_settings(host, load(text, PLAN)["settings"], keep=False)
    except (Failed, IOError, OSError) as problem:
        sys.stderr.write("fsdeploy-tuning: %s\n" % problem)
        return 1
    for result in results:
        if result["outcome"] in (CANNOT, MISSING):
            sys.stderr.write("fsdeploy-tuning: %s: %s: %s\n" % (
                result["target"], result["outcome"], result["reason"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
