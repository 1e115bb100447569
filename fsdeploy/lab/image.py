# SPDX-License-Identifier: GPL-2.0-only
"""Disk images of lab hosts, built from packages and cached.

Two layers. The *base* is a userland of Debian packages, kept as a tar file; it costs a minute or
two and the network. An *image* is a disk made from the base: laid out like CentOS 6.5 by the host
files, with given kernel RPMs installed and GRUB 0.97 in its master boot record; it costs seconds.
Each is named by the hash of all that went into it, and is in the cache complete or not at all.
A quick guest can have a disk, too: a base of its own and nothing else.

Nothing is mounted and no loop device is used: mke2fs fills the file system from a folder, and
GRUB's own shell, run in the image's tree, installs into the disk file.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fsdeploy import paths, run, ui
from fsdeploy.errors import FsdeployError
from fsdeploy.lab import state

# Raise when the way of building changes without any of the hashed inputs changing.
_BASE_FORMAT = 1
_IMAGE_FORMAT = 1

HOSTFILES = Path(__file__).resolve().parent / "hostfiles"

# Where Debian keeps the suites that the mirrors dropped.
ARCHIVE = "http://archive.debian.org/debian"

# An image takes some 300 MB and each new kernel makes one.
_KEPT_IMAGES = 12
_KEPT_BASES = 4

_RPM_MAGIC = b"\xed\xab\xee\xdb"

_SECTOR = 512
# The first partition starts here; GRUB's stage 1.5 lives in the gap before it.
_PARTITION_START = 2048
# What GRUB 0.97 and Linux 2.6.32 can read: 128-byte inodes, none of ext4's features.
_FILE_SYSTEM = (
    *("-t", "ext3", "-I", "128", "-m", "1", "-L", "root"),
    *("-O", "none,has_journal,ext_attr,resize_inode,dir_index,filetype,sparse_super,large_file"),
)
_RED_HAT_STAGES = "usr/share/grub/x86_64-redhat"
_DEBIAN_STAGES = "usr/lib/grub/x86_64-pc"
_STAGES = ("stage1", "stage2", "e2fs_stage1_5")


@dataclass(frozen=True)
class BaseRecipe:
    """What the base is made of. `suite` is the newest whose C library runs on Linux 2.6.32.

    A base that needs nothing of another suite names none.
    """

    suite: str = "trixie"
    # The last with Python 2.7, the nearest to CentOS 6's Python 2.6.
    python2_suite: str | None = "bullseye"
    # The last with GRUB 0.97.
    grub_suite: str | None = "bookworm"
    packages: tuple[str, ...] = (
        "curl",
        "ethtool",
        "initscripts",
        "iproute2",
        "kmod",
        "libc6-i386",
        "openssh-server",
        "procps",
        "python2.7",
        "rpm",
        "systemd-standalone-sysusers",
        "systemd-standalone-tmpfiles",
        "sysv-rc",
        "sysvinit-core",
    )
    left_out: tuple[str, ...] = (
        "/usr/share/doc/*",
        "/usr/share/info/*",
        "/usr/share/locale/*",
        "/usr/share/man/*",
        "/usr/share/bash-completion/*",
        "/usr/share/zsh/*",
    )


# Servers as people run them, to be run on a quick guest's kernel.
SERVERS = BaseRecipe(
    python2_suite=None,
    grub_suite=None,
    packages=("apache2-bin", "haproxy", "lighttpd", "nginx-light", "python3"),
)


@dataclass(frozen=True)
class KernelPackage:
    """A kernel RPM: its file, package name and the `uname -r` of the kernel in it."""

    path: Path
    name: str
    release: str
    sha256: str


@dataclass(frozen=True)
class ImageRequest:
    """What an image should hold; the first kernel becomes the default entry."""

    kernels: tuple[KernelPackage, ...]
    grub_rpm: Path | None = None
    disk_mib: int = 3072


@dataclass(frozen=True)
class Image:
    """A disk image in the cache. Never written to: hosts have overlays."""

    key: str
    disk: Path
    kernels: tuple[str, ...]
    boot_loader: str


def tree_digest(folder: Path) -> str:
    """Hash of names, modes as they will be installed, and contents of all files below a folder."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            head = f"{path.relative_to(folder)}\0{_mode(data):o}\0{len(data)}\0"
            total.update(head.encode() + data)
    return total.hexdigest()


def base_key(recipe: BaseRecipe) -> str:
    """Name of a base: hash of the recipe."""
    return _key({"format": _BASE_FORMAT, "recipe": asdict(recipe)})


def image_key(
    base: str, hostfiles: str, kernels: tuple[str, ...], grub_rpm: str | None, disk_mib: int
) -> str:
    """Name of an image: hash of the base's name, of digests (packages in order), and the size."""
    return _key(
        {
            "format": _IMAGE_FORMAT,
            "base": base,
            "hostfiles": hostfiles,
            "kernels": kernels,
            "grub": grub_rpm,
            "disk_mib": disk_mib,
        }
    )


def _key(value: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_kernel_package(path: Path) -> KernelPackage:
    """Look at a kernel RPM. Raises FsdeployError when it is not one, or is damaged."""
    files = _rpm_query(path, "--list").splitlines()
    images = [name for name in files if name.startswith("/boot/vmlinuz-")]
    if len(images) != 1:
        raise FsdeployError(
            f"{path} is not a kernel package: it has no /boot/vmlinuz-RELEASE",
            hint="give the kernel RPM that `fsdeploy build-kernel` wrote, not its -devel package",
        )
    return KernelPackage(
        path=path.resolve(),
        name=_rpm_query(path, "--queryformat", "%{NAME}").strip(),
        release=images[0].removeprefix("/boot/vmlinuz-"),
        sha256=file_digest(path),
    )


def _rpm_query(path: Path, *words: str) -> str:
    if not path.is_file():
        raise FsdeployError(f"no such file: {path}")
    with path.open("rb") as stream:
        # rpm would take a text file for a list of packages.
        if stream.read(len(_RPM_MAGIC)) != _RPM_MAGIC:
            raise FsdeployError(f"{path} is not an RPM")
    run.require("rpm")
    check = run.run(["rpm", "--checksig", "--nosignature", path], check=False)
    answer = run.run(["rpm", "--query", "--package", *words, path], check=False)
    if check.returncode != 0 or answer.returncode != 0:
        said = (answer if answer.returncode else check).output.strip().splitlines()
        raise FsdeployError(
            f"{path} is damaged" + (f": {said[-1]}" if said else ""),
            hint="copy or build the package again",
        )
    return answer.output


def ensure(request: ImageRequest, *, log: Path | None = None) -> Image:
    """The image for a request, from the cache or built now.

    Building needs root (device nodes, chroot), and the network when the base is new. Raises
    FsdeployError for missing tools, packages that do not install, and a GRUB that does not.
    """
    recipe = BaseRecipe()
    base = base_key(recipe)
    grub = file_digest(request.grub_rpm) if request.grub_rpm else None
    hashes = tuple(kernel.sha256 for kernel in request.kernels)
    key = image_key(base, tree_digest(HOSTFILES), hashes, grub, request.disk_mib)
    final = _folder() / key
    if not final.is_dir():
        with _building() as scratch:
            if not final.is_dir():  # by another command, while we waited
                rootfs = _ensure_base(recipe, log)
                with ui.step("Building the disk image of the lab hosts"):
                    _build_image(request, rootfs, scratch, log)
                (scratch / "disk").rename(final)
                prune(_folder())
    # When it was last wanted, for `prune`.
    os.utime(final)
    return Image(
        key=key,
        disk=final / "disk.raw",
        kernels=tuple(kernel.release for kernel in request.kernels),
        boot_loader="GRUB 0.97 (Red Hat)" if request.grub_rpm else "GRUB 0.97 (Debian)",
    )


def prune(folder: Path, images: int = _KEPT_IMAGES, bases: int = _KEPT_BASES) -> None:
    """Remove all but the most lately wanted images and bases.

    A running host keeps its removed image until it is switched off.
    """
    found = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    old = [path for path in found if not path.name.startswith("base-")][images:]
    old += [path for path in found if path.name.startswith("base-")][bases:]
    for path in old:
        shutil.rmtree(path, ignore_errors=True)


def ensure_base(*, log: Path | None = None) -> Path:
    """The userland as a tar file, from the cache or built now; errors as with `ensure`."""
    recipe = BaseRecipe()
    final = _folder() / f"base-{base_key(recipe)}" / "rootfs.tar"
    if final.is_file():
        return final
    with _building():
        return _ensure_base(recipe, log)


def ensure_guest_disk(recipe: BaseRecipe, disk_mib: int = 1024, *, log: Path | None = None) -> Path:
    """A disk with a base in its only partition, from the cache or built now; never written to.

    Its programs run on 2.6.32. Nothing on it boots: a quick guest mounts it. Errors as with
    `ensure`.
    """
    limits = file_digest(HOSTFILES / "limits.c")
    key = _key(
        {
            "format": _IMAGE_FORMAT,
            "base": base_key(recipe),
            "limits": limits,
            "disk_mib": disk_mib,
        }
    )
    final = _folder() / key
    if not final.is_dir():
        with _building() as scratch:
            if not final.is_dir():  # by another command, while we waited
                rootfs = _ensure_base(recipe, log)
                with ui.step("Building the disk image of a quick guest"):
                    tree = _unpack(rootfs, scratch, log)
                    _install_limits(tree, log)
                    folder = scratch / "disk"
                    folder.mkdir()
                    make_disk(tree, folder / "disk.raw", disk_mib, log)
                folder.rename(final)
                prune(_folder())
    os.utime(final)
    return final / "disk.raw"


def _folder() -> Path:
    return paths.cache_dir() / "images"


@contextlib.contextmanager
def _building() -> Iterator[Path]:
    """A scratch folder beside the images, one builder at a time; what a killed one left is removed.

    Raises FsdeployError when we are not root.
    """
    if os.geteuid() != 0:
        raise FsdeployError(
            "building the disk image of a lab host needs root",
            hint="run `fsdeploy lab up` as root",
        )
    run.require(
        "mmdebstrap", "mke2fs", "tune2fs", "sfdisk", "rpm", "rpmbuild", "tar", "gcc", "ld", "chroot"
    )
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in folder.glob(".building-*"):
            # mmdebstrap answers the end of its caller by going on to its own.
            state.end_all_in(left)
            _discard(left)
        scratch = Path(tempfile.mkdtemp(prefix=".building-", dir=folder))
        # chroot and mmdebstrap's user look into it.
        scratch.chmod(0o755)
        try:
            yield scratch
        finally:
            state.end_all_in(scratch)
            _discard(scratch)


def _discard(folder: Path) -> None:
    """Remove a scratch folder, but never through a mount that a killed mmdebstrap left in it."""
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    inside = [line.split()[4] for line in mounts if line.split()[4].startswith(f"{folder}/")]
    if inside:
        raise FsdeployError(
            f"something is mounted in the scratch folder {folder}: {', '.join(inside)}",
            hint=f"umount {' '.join(reversed(inside))}",
        )
    shutil.rmtree(folder)


def _ensure_base(recipe: BaseRecipe, log: Path | None) -> Path:
    final = _folder() / f"base-{base_key(recipe)}"
    if not final.is_dir():
        scratch = Path(tempfile.mkdtemp(prefix=".building-", dir=_folder()))
        scratch.chmod(0o755)
        try:
            with ui.step("Building a userland from Debian packages"):
                _build_base(recipe, scratch, log)
            (scratch / "base").rename(final)
        finally:
            state.end_all_in(scratch)
            _discard(scratch)
    os.utime(final)
    return final / "rootfs.tar"


def _build_base(recipe: BaseRecipe, scratch: Path, log: Path | None) -> None:
    tree = scratch / "tree"
    # What it mounts in the tree is seen by nobody else, and gone with it even when it is killed.
    words = ["unshare", "--mount", "--propagation", _propagation()]
    words += ["mmdebstrap", "--mode=root", "--variant=essential", "--architectures=amd64"]
    words += ["--format=directory", f"--include={','.join(recipe.packages)}"]
    words += ['--aptopt=APT::Install-Recommends "false"', '--aptopt=Acquire::Languages "none"']
    # An archived suite's Release file is past its date.
    words += ['--aptopt=Acquire::Check-Valid-Until "false"']
    words += [f"--dpkgopt=path-exclude={pattern}" for pattern in recipe.left_out]
    if recipe.grub_suite:
        # Only the files: the package would bring GRUB 2's common parts and hooks into /etc/kernel.
        hook = (
            'cd "$1"/tmp && APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" '
            f"apt-get -q download grub-legacy/{recipe.grub_suite} && "
            "dpkg-deb --fsys-tarfile grub-legacy_*.deb | "
            'tar -x -C "$1" ./usr/sbin ./usr/lib/grub && '
            "rm grub-legacy_*.deb"
        )
        words += [f"--customize-hook={hook}"]
    words += [recipe.suite, str(tree)]
    mirror = machine_mirror()
    words += [
        f"deb {_mirror_of(suite, mirror)} {suite} main"
        for suite in (recipe.suite, recipe.grub_suite, recipe.python2_suite)
        if suite
    ]
    run.run(
        words,
        log=log,
        hint="the Debian mirror must be reachable, and debian-archive-keyring up to date",
    )
    (scratch / "base").mkdir()
    run.run(
        ["tar", "--numeric-owner", "--xattrs", "-cf", scratch / "base/rootfs.tar", "-C", tree, "."],
        log=log,
    )


def machine_mirror() -> str:
    """The Debian mirror this machine installs from, which is one it can reach."""
    words = ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
    found = run.run([*words, "Origin: Debian", "Label: Debian", "Created-By: Packages"])
    mirrors = found.output.split()
    if not mirrors:
        raise FsdeployError(
            "apt on this machine knows no Debian mirror to build the lab hosts' userland from",
            hint="name one in /etc/apt/sources.list.d, then `apt-get update`",
        )
    return mirrors[0].rstrip("/")


def _propagation() -> str:
    """How a mount namespace may keep its mounts to itself.

    The root of a plain chroot is no mount point, and only a mount point can be made private.
    """
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return "private" if any(line.split()[4] == "/" for line in mounts) else "unchanged"


def _mirror_of(suite: str, mirror: str) -> str:
    try:
        with urllib.request.urlopen(f"{mirror}/dists/{suite}/Release", timeout=20):
            return mirror
    except urllib.error.HTTPError as answer:
        if answer.code == 404:
            return ARCHIVE
        return mirror
    except OSError:
        # apt tells best what is wrong.
        return mirror


def _mode(data: bytes) -> int:
    return 0o755 if data.startswith(b"#!") else 0o644


def _install_hostfiles(tree: Path) -> None:
    for level in range(7):
        shutil.rmtree(tree / f"etc/rc{level}.d", ignore_errors=True)
        (tree / f"etc/rc{level}.d").mkdir()
    for script in (tree / "etc/init.d").iterdir():
        script.unlink()
    for name in (
        "etc/os-release",
        "usr/lib/os-release",
        "etc/debian_version",
        "etc/ssh/sshd_config",
    ):
        (tree / name).unlink(missing_ok=True)
    for key in (tree / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    source = HOSTFILES / "root"
    for path in sorted(source.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            target = tree / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            target.chmod(_mode(data))
    for link, target_name in (
        ("etc/grub.conf", "../boot/grub/grub.conf"),
        ("boot/grub/menu.lst", "./grub.conf"),
        ("etc/rc.d/init.d", "../init.d"),
        *((f"etc/rc.d/rc{level}.d", f"../rc{level}.d") for level in range(7)),
        *((f"etc/rc{level}.d/S55sshd", "../init.d/sshd") for level in (2, 3, 4, 5)),
        ("usr/bin/python", "python2.7"),
        ("usr/bin/python2", "python2.7"),
    ):
        (tree / link).unlink(missing_ok=True)
        (tree / link).symlink_to(target_name)
    (tree / "etc/mtab").unlink(missing_ok=True)
    (tree / "etc/mtab").symlink_to("/proc/self/mounts")


def _install_limits(tree: Path, log: Path | None) -> None:
    source = HOSTFILES / "limits.c"
    common = ["gcc", "-shared", "-fPIC", "-O2", "-nostdlib", "-ffreestanding", "-Wl,-soname,limits"]
    for option, folder in (("-m64", "lib/x86_64-linux-gnu"), ("-m32", "lib32")):
        library = tree / "usr/local" / folder / "limits.so"
        library.parent.mkdir(parents=True, exist_ok=True)
        run.run([*common, option, "-o", library, source], log=log)
    # The dynamic loader puts its own library folder's name for $LIB.
    (tree / "etc/ld.so.preload").write_text("/usr/local/$LIB/limits.so\n", encoding="ascii")


def _install_release_package(tree: Path, scratch: Path, log: Path | None) -> None:
    top = scratch / "rpmbuild"
    run.run(
        ["rpmbuild", "-bb", "--define", f"_topdir {top}", HOSTFILES / "centos-release.spec"],
        log=log,
    )
    (package,) = top.glob("RPMS/*/*.rpm")
    _install_rpm(tree, package, log)


def _install_rpm(tree: Path, package: Path, log: Path | None, *options: str) -> None:
    inside = tree / "tmp" / package.name
    shutil.copyfile(package, inside)
    try:
        run.run(["chroot", tree, "rpm", "--install", *options, f"/tmp/{package.name}"], log=log)
    finally:
        inside.unlink()


def _unpack(rootfs: Path, scratch: Path, log: Path | None) -> Path:
    tree = scratch / "tree"
    tree.mkdir()
    run.run(["tar", "--numeric-owner", "--xattrs", "-xf", rootfs, "-C", tree], log=log)
    return tree


def _build_image(request: ImageRequest, rootfs: Path, scratch: Path, log: Path | None) -> None:
    tree = _unpack(rootfs, scratch, log)
    _install_hostfiles(tree)
    _install_limits(tree, log)
    _install_release_package(tree, scratch, log)
    if request.grub_rpm:
        replace_grub(tree, request.grub_rpm, log)
    stages = tree / (_RED_HAT_STAGES if request.grub_rpm else _DEBIAN_STAGES)
    for stage in _STAGES:
        shutil.copy(stages / stage, tree / "boot/grub" / stage)
    for kernel in request.kernels:
        _install_rpm(tree, kernel.path, log)
        # rpm only warns of a scriptlet that failed.
        if kernel.release not in (tree / "boot/grub/grub.conf").read_text(encoding="utf-8"):
            raise FsdeployError(
                f"{kernel.path.name} installed itself without a boot entry",
                hint="its %post must call /sbin/new-kernel-pkg --install",
                log=log,
            )
    folder = scratch / "disk"
    folder.mkdir()
    disk = folder / "disk.raw"
    make_disk(tree, disk, request.disk_mib, log)
    _install_boot_sector(tree, disk, log)
    facts = {
        "kernels": [kernel.release for kernel in request.kernels],
        "packages": _packages(tree),
    }
    (folder / "image.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def _packages(tree: Path) -> list[str]:
    form = "--showformat=${Package} ${Version}\n"
    answer = run.run(["chroot", tree, "dpkg-query", "--show", form])
    return answer.output.splitlines()


def replace_grub(tree: Path, package: Path, log: Path | None = None) -> None:
    """Put a CentOS GRUB package in place of Debian's GRUB in a host's tree.

    Raises FsdeployError when the package has not GRUB 0.97's stages where Red Hat keeps them.
    """
    files = _rpm_query(package, "--list").splitlines()
    wanted = ["/sbin/grub", *(f"/{_RED_HAT_STAGES}/{stage}" for stage in _STAGES)]
    missing = [name for name in wanted if name not in files]
    if missing:
        raise FsdeployError(
            f"{package} is not CentOS's GRUB 0.97: it has no {', '.join(missing)}",
            hint="take grub-0.97-*.el6.x86_64.rpm from CentOS 6",
        )
    for path in (tree / "usr/sbin").glob("grub*"):
        path.unlink()
    shutil.rmtree(tree / "usr/lib/grub", ignore_errors=True)
    # Its dependencies are there under Debian's names; its scripts only tend GNU info's index.
    _install_rpm(tree, package, log, "--nodeps", "--noscripts")


def make_disk(tree: Path, disk: Path, size_mib: int, log: Path | None = None) -> None:
    """A disk file with one bootable partition that holds a tree as an ext3 file system."""
    with disk.open("wb") as stream:
        stream.truncate(size_mib << 20)
    run.run(
        ["sfdisk", "--quiet", disk],
        input_text=f"label: dos\nstart={_PARTITION_START}, type=83, bootable\n",
        log=log,
    )
    offset = _PARTITION_START * _SECTOR
    kib = ((size_mib << 20) - offset) >> 10
    run.run(
        [
            *("mke2fs", "-q", "-F", *_FILE_SYSTEM, "-E", f"offset={offset}", "-d", tree),
            *(disk, f"{kib}k"),
        ],
        log=log,
    )
    # As CentOS's kernels do by default. A small 2.6.32 does not, and leaves garbage in files that
    # were written shortly before a power cut.
    run.run(["tune2fs", "-o", "journal_data_ordered", f"{disk}?offset={offset}"], log=log)


def _install_boot_sector(tree: Path, disk: Path, log: Path | None) -> None:
    # GRUB's shell is a 32-bit program and its libraries are in the tree, not on this machine: it
    # runs there, and sees the disk file by a second name.
    inside = tree / "disk.raw"
    inside.hardlink_to(disk)
    script = "device (hd0) /disk.raw\nroot (hd0,0)\nsetup (hd0)\nquit\n"
    try:
        answer = run.run(
            ["chroot", tree, "/sbin/grub", "--batch", "--device-map=/dev/null"],
            input_text=script,
            log=log,
        )
    finally:
        inside.unlink()
    with disk.open("rb") as stream:
        sector = stream.read(_SECTOR)
    # GRUB's shell ends with 0 whatever happened: look at what it wrote.
    if b"GRUB" not in sector or sector[510:] != b"\x55\xaa":
        raise FsdeployError(
            f"GRUB did not install itself into the disk image:\n{answer.output.strip()}", log=log
        )
