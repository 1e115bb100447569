# -*- coding: utf-8 -*-
# SPDX-License-Identifier: GPL-2.0-only
"""The Fastsocket module and the services that use it, on the host's side.

What is to be put where is decided on the control machine, from what `collect` finds. A plan has

  packages  RPMs that are not installed yet
  files     whole ones of ours (text, mode), or lines of ours in one of others (lines)
  module    the kernel module to be loaded, if there is one
  values    its parameters, as settings of kind "value"
  services  each with the file that starts it under libfsocket

and each package and file belongs to one of two levels that are taken back apart: "module", and
"service" for what starts services under libfsocket. Each level has its own record of what was
there before, in the form of fsdeploy_files.py.

apply: remember, install, put files, load the module or write the parameters of a loaded one,
restart services that run without the library. A service that does not come back under it is taken
back at once.
restore: the other way round. A module in use is a result and no error.
"""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

import os
import re
import time

from ansible.module_utils.fsdeploy_files import (
    CANNOT, CHANGED, FORMAT, MISSING, STATE, UNCHANGED,
    Block, Files,
    dump, file_differs, is_systemd, make_folders, put_back_file, put_file, read_record, reason_of,
    remember_file, remove_folders, result_of, write_record,
)
from ansible.module_utils.fsdeploy_rpm import Refused, Rpm, check as check_package, remove

LEVELS = ("module", "service")
SERVICES = ("nginx", "haproxy", "lighttpd")
PACKAGES = ("kmod-fastsocket", "libfsocket")
MODULE = "fastsocket"
LIBRARY = "/usr/lib64/libfsocket.so"
RFD = "/sys/module/rfd/parameters/enable_receive_flow_deliver"
UNITS = ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system",
         "/lib/systemd/system", "/run/systemd/generator.late")

# Main configuration files, and the words in them that matter to Fastsocket.
WORDS = (
    ("nginx", "/etc/nginx/nginx.conf", r"accept_mutex\s|env\s+LD_PRELOAD\b"),
    ("haproxy", "/etc/haproxy/haproxy.cfg", r"noreuseport\b"),
)

BLOCKS = dict(
    (level, Block(level, "fsdeploy rollback --level " + level)) for level in LEVELS)

# How a service runs.
UNDER = "under libfsocket"
OLD = "under a libfsocket that was replaced"
PLAIN = "without libfsocket"
MIXED = "not all of it under libfsocket"
STOPPED = "not running"


class Host(Files):
    """A host, and how long its services may take to be there after a restart."""

    def __init__(self, root="/", ask=None):
        Files.__init__(self, root, ask)
        self.patience = 0 if self.root else 20

    def rpm(self):
        return Rpm(self.ask, "/bin/rpm" if self.exists("/bin/rpm") else "rpm")


def before_of(level):
    return "%s/%s/before.json" % (STATE, level)


# Processes


def status_name(text):
    match = re.match(r"Name:\t(.*)", text)
    return match.group(1) if match else ""


def how_mapped(host, pid):
    """PLAIN, UNDER or OLD; None for a process that is gone."""
    text = host.read("/proc/%s/maps" % pid)
    if not text:
        return None
    here = [line for line in text.splitlines() if "/libfsocket.so" in line]
    if not here:
        return PLAIN
    return UNDER if [line for line in here if not line.endswith(" (deleted)")] else OLD


def how_runs(host, name):
    """How a service runs, by all processes of its name."""
    found = set()
    for pid in host.names("/proc"):
        if pid.isdigit() and status_name(host.read("/proc/%s/status" % pid) or "") == name:
            found.add(how_mapped(host, pid))
    found.discard(None)
    if not found:
        return STOPPED
    return found.pop() if len(found) == 1 else MIXED


def users(host):
    """Processes that have the library mapped or the device open, as "name (pid)"."""
    found = []
    for pid in sorted((pid for pid in host.names("/proc") if pid.isdigit()), key=int):
        uses = "/libfsocket.so" in (host.read("/proc/%s/maps" % pid) or "")
        folder = "/proc/%s/fd" % pid
        for number in host.names(folder):
            try:
                link = os.readlink(host.path("%s/%s" % (folder, number)))
            except OSError:
                continue
            uses = uses or link == "/dev/fastsocket"
        if uses:
            name = status_name(host.read("/proc/%s/status" % pid) or "")
            found.append("%s (%s)" % (name, pid))
    return found


def restart(host, name):
    """What a restart said, one line."""
    if is_systemd(host):
        answer = host.ask(["systemctl", "restart", name])
    else:
        # With nothing in its environment, as `service` does it.
        answer = host.ask([
            "/usr/bin/env", "-i", "PATH=/sbin:/usr/sbin:/bin:/usr/bin", "TERM=dumb",
            "/etc/init.d/" + name, "restart"])
    lines = [line.strip() for line in answer[1].splitlines() if line.strip()]
    return lines[-1] if lines else "it ended with code %d" % answer[0]


def runs_after(host, name, wanted):
    """How a service runs, as soon as that is what is wanted or its time is over."""
    deadline = time.time() + host.patience
    while True:
        now = how_runs(host, name)
        if now == wanted or time.time() >= deadline:
            return now
        time.sleep(0.2)


def enforces(host):
    """Whether SELinux does. In a service with a domain of its own ld.so then ignores LD_PRELOAD."""
    places = ("/sys/fs/selinux/enforce", "/selinux/enforce")
    return "1" in [(host.read(path) or "").strip() for path in places]


def reload_units(host):
    if is_systemd(host):
        host.run(["systemctl", "daemon-reload"])


# Looking


def own_file(host, name):
    """The file by which a service's init script takes its environment; empty when there is none."""
    script = host.read("/etc/init.d/" + name) or ""
    # Nearly all of them read /etc/sysconfig/network, too.
    match = re.search(
        r"/etc/(sysconfig|default)/[\"']?(?:\$\{?\w+\}?|%s(?![\w.-]))" % re.escape(name), script)
    return "/etc/%s/%s" % (match.group(1), name) if match else ""


def find_services(host):
    found = {}
    for name in SERVICES:
        unit = [folder for folder in UNITS if host.exists("%s/%s.service" % (folder, name))]
        script = host.exists("/etc/init.d/" + name)
        if unit or script:
            found[name] = {
                "unit": bool(unit), "file": own_file(host, name), "runs": how_runs(host, name)}
    return found


def installed(host):
    """What is installed of our packages, by name."""
    rpm, found = host.rpm(), {}
    for name in PACKAGES:
        code, text = rpm.run("-q", "--qf", "%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}\\n", name)
        found[name] = text.split() if code == 0 else []
    return found


def parameters_of(host, module):
    folder = "/sys/module/%s/parameters" % module
    return dict(
        (name, (host.read("%s/%s" % (folder, name)) or "").strip())
        for name in host.names(folder))


def is_loaded(host, module):
    return host.is_folder("/sys/module/" + module)


def collect(host):
    """All that planning needs. Nothing is changed."""
    release = (host.read("/proc/sys/kernel/osrelease") or "").strip()
    known = host.read("/lib/modules/%s/modules.dep" % release) or ""
    words = {}
    for name, path, pattern in WORDS:
        text = host.read(path)
        if text is not None:
            lines = [line.split("#")[0].strip() for line in text.splitlines()]
            words[name] = [line for line in lines if re.search(r"(^|[{;]\s*)(%s)" % pattern, line)]
    return {
        "format": FORMAT,
        "release": release,
        "systemd": is_systemd(host),
        "sysconfig": host.is_folder("/etc/sysconfig"),
        "available": re.search(r"(^|/)%s\.ko" % MODULE, known, re.MULTILINE) is not None,
        "loaded": is_loaded(host, MODULE),
        "parameters": parameters_of(host, MODULE),
        "rfd": (host.read(RFD) or "").strip(),
        "packages": installed(host),
        "library": host.exists(LIBRARY),
        "services": find_services(host),
        "words": words,
    }


# Packages


def remember_package(host, item, record):
    known, before = record.setdefault("packages", {}), installed(host).get(item["name"], [])
    if item["nevra"] in before or item["nevra"] in known:
        return
    replaced = [] if item["beside"] else before
    for old in before:
        if not item["beside"] and old in known:
            # What was there before the first of ours.
            replaced = known.pop(old)["replaced"]
    known[item["nevra"]] = {"name": item["name"], "replaced": replaced}


def add_package(host, item, folder, check):
    """Install a package from a folder on the host."""
    setting = {"kind": "package", "target": item["name"], "value": item["nevra"]}
    before = installed(host).get(item["name"], [])
    if item["nevra"] in before:
        return result_of(setting, " ".join(before), item["nevra"], UNCHANGED)
    if check:
        return result_of(setting, " ".join(before), item["nevra"], CHANGED)
    # A module's package stands beside that of another kernel, the library's takes its place.
    how = ("-i",) if item["beside"] else ("-U", "--oldpackage")
    path, rpm = copy_of(host, item, folder), host.rpm()
    try:
        check_package(rpm, path, item["sha256"], how, item["key"])
        rpm.must("rpm could not install the package", *(how + (path,)))
    except Refused as problem:
        return result_of(setting, " ".join(before), " ".join(before), CANNOT, problem.sentence)
    except (IOError, OSError) as problem:
        return result_of(setting, "", "", CANNOT, reason_of(problem))
    return result_of(setting, " ".join(before), item["nevra"], CHANGED)


def drop_package(host, nevra, known, check):
    """Remove a package of ours; one that took another's place cannot give that back."""
    setting = {"kind": "package", "target": known["name"], "value": ""}
    if nevra not in installed(host).get(known["name"], []):
        return result_of(setting, "", "", UNCHANGED)
    if known["replaced"]:
        reason = "%s was there before it and is not at hand" % " ".join(known["replaced"])
        return result_of(setting, nevra, nevra, CANNOT, reason)
    if check:
        return result_of(setting, nevra, "", CHANGED)
    using = users(host) if known["name"] == "libfsocket" else []
    if using:
        return result_of(setting, nevra, nevra, CANNOT, "in use by " + few(using))
    try:
        host.rpm().must("rpm could not remove it", "-e", nevra)
    except Refused as problem:
        return result_of(setting, nevra, nevra, CANNOT, problem.sentence)
    return result_of(setting, nevra, "", CHANGED)


def few(names):
    more = len(names) - 4
    return ", ".join(names[:4]) + (" and %d more" % more if more > 0 else "")


# Files


def wanted_file(host, item):
    """(text, mode) of a file as it should be."""
    if "lines" not in item:
        return item["text"], item["mode"]
    old = host.read(item["path"])
    mode = 0o644
    if old is not None:
        mode = os.stat(host.path(item["path"])).st_mode & 0o7777
    return BLOCKS[item["level"]].within(old or "", item["lines"]), mode


def file_result(host, item, outcome):
    """Of a file of others only our own lines are told."""
    setting = {"kind": "file", "target": item["path"], "value": ""}
    before = host.read(item["path"]) or ""
    if "lines" in item:
        before = "".join(line + "\n" for line in BLOCKS[item["level"]].lines(before))
        after = "".join(line + "\n" for line in item["lines"])
    else:
        after = item["text"]
    setting["value"] = after
    return result_of(setting, before, after, outcome)


def settle_file(host, item, record, check):
    text, mode = wanted_file(host, item)
    if not file_differs(host, item["path"], text, mode):
        return file_result(host, item, UNCHANGED)
    result = file_result(host, item, CHANGED)
    if not check:
        make_folders(host, os.path.dirname(item["path"]), record)
        put_file(host, item["path"], text, mode)
    return result


def put_back(host, path, level, record):
    """Put a file back and forget it."""
    shared = record.setdefault("shared", [])
    put_back_file(host, path, record["files"].pop(path), BLOCKS[level] if path in shared else None)
    if path in shared:
        shared.remove(path)


# The module and its parameters


def settle_value(host, setting, check):
    path, value = setting["target"], setting["value"]
    text = host.read(path)
    if text is None:
        return result_of(setting, "", "", MISSING, "%s is not there" % path)
    before = text.strip()
    if before == value:
        return result_of(setting, before, before, UNCHANGED)
    if check:
        return result_of(setting, before, value, CHANGED)
    try:
        host.set_value(path, value)
    except (IOError, OSError) as problem:
        return result_of(setting, before, before, CANNOT, reason_of(problem))
    after = (host.read(path) or "").strip()
    if after != value:
        return result_of(setting, before, after, CANNOT, "it was written and is %s" % after)
    return result_of(setting, before, after, CHANGED)


def last_line(text):
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason was given"


def load_module(host, module, check):
    setting = {"kind": "module", "target": module, "value": "loaded"}
    if is_loaded(host, module):
        return result_of(setting, "loaded", "loaded", UNCHANGED)
    if check:
        return result_of(setting, "", "loaded", CHANGED)
    code, said = host.ask(["/sbin/modprobe", module])
    if code != 0 or not is_loaded(host, module):
        return result_of(setting, "", "", CANNOT, last_line(said))
    return result_of(setting, "", "loaded", CHANGED)


def unload_module(host, module, check):
    """Unload it; one in use is switched off instead, as far as it can be."""
    setting = {"kind": "module", "target": module, "value": ""}
    if not is_loaded(host, module):
        return result_of(setting, "", "", UNCHANGED)
    if check:
        return result_of(setting, "loaded", "", CHANGED)
    _, said = host.ask(["/sbin/rmmod", module])
    if not is_loaded(host, module):
        return result_of(setting, "loaded", "", CHANGED)
    using = users(host)
    why = "in use by " + few(using) if using else last_line(said)
    for name in sorted(parameters_of(host, module)):
        if name.startswith("enable_") and not name.endswith("_debug"):
            target = "/sys/module/%s/parameters/%s" % (module, name)
            settle_value(host, {"kind": "value", "target": target, "value": "0"}, False)
    return result_of(
        setting, "loaded", "loaded", CANNOT, why + "; its features are off, it goes with a boot")


# Services


def settle_service(host, name, path, wanted, record, check):
    """Restart a service that does not run as wanted; one that is off stays off."""
    setting = {"kind": "service", "target": name, "value": wanted}
    before = how_runs(host, name)
    if before in (wanted, STOPPED):
        return result_of(setting, before, before, UNCHANGED)
    if check:
        return result_of(setting, before, wanted, CHANGED)
    said = restart(host, name)
    after = runs_after(host, name, wanted)
    if after == wanted:
        return result_of(setting, before, after, CHANGED)
    reason = "it was restarted and is %s: %s" % (after, said)
    if wanted == UNDER:
        put_back(host, path, "service", record)
        record["services"].pop(name)
        reload_units(host)
        if after != PLAIN:
            restart(host, name)
            after = runs_after(host, name, PLAIN)
        reason += "; taken back, now it is %s" % after
        if enforces(host):
            reason += "; SELinux enforces, and may have kept the library out"
    return result_of(setting, before, after, CANNOT, reason)


# The two things that are done


def key_of(setting):
    return "%s %s" % (setting["kind"], setting["target"])


def remember(host, plan, level, record):
    for item in plan["packages"]:
        if item["level"] == level:
            remember_package(host, item, record)
    for item in plan["files"]:
        if item["level"] == level:
            remember_file(host, item["path"], record)
            if "lines" in item and item["path"] not in record.setdefault("shared", []):
                record["shared"].append(item["path"])
    if level == "service":
        record.setdefault("services", {}).update(plan["services"])
        return
    if plan["module"] and "loaded" not in record:
        record["module"], record["loaded"] = plan["module"], is_loaded(host, plan["module"])
    # What we loaded had no values before.
    ours = plan["module"] and not record["loaded"]
    for setting in plan["values"]:
        if not ours and host.exists(setting["target"]):
            record["values"].setdefault(key_of(setting), host.read(setting["target"]).strip())


def stuck(results):
    """The first thing that could not be brought about; empty when all could."""
    for result in results:
        if result["outcome"] in (CANNOT, MISSING):
            return "%s: %s" % (result["target"], result["reason"])
    return ""


def left(results):
    """The same of what was to be taken back: a module or a package in use may stay."""
    return stuck([
        result for result in results
        if result["kind"] not in ("module", "package") and result["outcome"] != MISSING])


def apply_level(host, plan, level, folder, record, check):
    results = []
    for item in plan["packages"]:
        if item["level"] == level:
            results.append(add_package(host, item, folder, check))
    if stuck(results):
        return results
    wanted = [item for item in plan["files"] if item["level"] == level]
    paths = set(item["path"] for item in wanted)
    dropped = [path for path in sorted(record["files"]) if path not in paths]
    for item in wanted:
        results.append(settle_file(host, item, record, check))
    for path in dropped:
        results.append(result_of(
            {"kind": "file", "target": path, "value": ""}, "", "as before", CHANGED))
        if not check:
            put_back(host, path, level, record)
    if level == "module":
        if plan["module"]:
            results.append(load_module(host, plan["module"], check))
        for setting in plan["values"]:
            if check and plan["module"] and not is_loaded(host, plan["module"]):
                results.append(result_of(setting, "", setting["value"], CHANGED))
            else:
                results.append(settle_value(host, setting, check))
        return results
    if not check:
        reload_units(host)
    for name, path in sorted(plan["services"].items()):
        results.append(settle_service(host, name, path, UNDER, record, check))
    for name, path in sorted(record.get("services", {}).items()):
        if name not in plan["services"]:
            results.append(settle_service(host, name, path, PLAIN, record, check))
            if not check:
                record["services"].pop(name)
    return results


def copy_of(host, item, folder):
    return host.path(os.path.join(folder, os.path.basename(item["file"])))


def apply_plan(host, plan, folder, check=False):
    """Bring a plan about; (results, changed). It stops at a level that cannot be brought about."""
    try:
        results = apply_levels(host, plan, folder, check)
    finally:
        for item in plan["packages"]:
            remove(copy_of(host, item, folder))
    return results, any(result["outcome"] == CHANGED for result in results)


def apply_levels(host, plan, folder, check):
    results = []
    for level in LEVELS:
        path = before_of(level)
        record = read_record(host, path)
        known = dump(record)
        mine = [item for item in plan["files"] + plan["packages"] if item["level"] == level]
        if not mine and host.read(path) is None:
            continue
        if not check:
            remember(host, plan, level, record)
            if dump(record) != known:
                write_record(host, path, record)
                known = dump(record)
        results += apply_level(host, plan, level, folder, record, check)
        if not check and dump(record) != known:
            write_record(host, path, record)
        if stuck(results):
            break
    return results


def restore(host, level, check=False):
    """Take a level back; (results, changed). What cannot be taken back stays remembered."""
    path = before_of(level)
    if host.read(path) is None:
        return [], False
    record = read_record(host, path)
    results, left = [], {}
    for key, value in sorted(record["values"].items()):
        kind, _, target = key.partition(" ")
        result = settle_value(host, {"kind": kind, "target": target, "value": value}, check)
        results.append(result)
        if result["outcome"] == CANNOT:
            left[key] = value
    if not check:
        for name in sorted(record["files"]):
            put_back(host, name, level, record)
        reload_units(host)
    services = dict(record.get("services", {}))
    for name, file_name in sorted(services.items()):
        result = settle_service(host, name, file_name, PLAIN, record, check)
        results.append(result)
        if result["outcome"] != CANNOT:
            services.pop(name)
    gone = True
    if record.get("loaded") is False:
        results.append(unload_module(host, record["module"], check))
        gone = results[-1]["outcome"] != CANNOT
    packages = dict(record.get("packages", {}))
    for nevra, known in sorted(record.get("packages", {}).items()):
        if not gone:
            continue  # a loaded module stays the package's
        results.append(drop_package(host, nevra, known, check))
        if results[-1]["outcome"] != CANNOT or known["replaced"]:
            packages.pop(nevra)
    if check:
        return results, True
    if left or services or packages or not gone:
        record.update(values=left, services=services, packages=packages)
        write_record(host, path, record)
        return results, True
    os.unlink(host.path(path))
    remove_folders(host, record)
    return results, True
