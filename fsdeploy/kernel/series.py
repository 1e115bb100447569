# SPDX-License-Identifier: GPL-2.0-only
"""A patch series: read, lint, apply, export from and import into git.

`patches/TARGET/series` is in quilt's form. A comment `# toolchain…` or `# features…` begins a
section: toolchain patches make the tree build with the compilers of today and change nothing else,
so a stock kernel has them too.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path

from fsdeploy import run
from fsdeploy.errors import FsdeployError
from fsdeploy.kernel import store

TOOLCHAIN = "toolchain"
FEATURES = "features"

_HEADERS = ("From", "Date", "Subject", "Patch-mainline")
_NAME = re.compile(r"(\d{4})-[a-z0-9][a-z0-9_.-]*\.patch")
_SUBJECT_LENGTH = 72
_AUTHOR = "fsdeploy developers <fsdeploy@localhost>"


@dataclass(frozen=True)
class Patch:
    """One patch. `headers` has the mail headers and the trailers that lead the body."""

    path: Path
    section: str
    text: str = field(repr=False)

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.name

    @property
    def headers(self) -> dict[str, str]:
        """Mail headers, and the block of `Name: value` lines the message begins with."""
        found: dict[str, str] = {}
        last = ""
        gaps = 0
        for line in self.text.splitlines():
            match = re.match(r"([A-Z][A-Za-z-]+): ?(.*)$", line)
            if match:
                last = match[1]
                found.setdefault(last, match[2].strip())
            elif line.startswith((" ", "\t")) and last:
                found[last] += " " + line.strip()
            elif not line.strip() and gaps == 0 and found:
                # format-patch puts the mail headers first, then the message with its own block.
                gaps, last = 1, ""
            elif not line.startswith("From "):
                break
        return found

    @property
    def subject(self) -> str:
        """The subject without `[PATCH…]`."""
        return re.sub(r"^\[PATCH[^\]]*\]\s*", "", self.headers.get("Subject", ""))

    @property
    def message(self) -> str:
        """Headers and body: all before the line `---` or the diff."""
        return re.split(r"^(?:---$|diff --git |--- )", self.text, maxsplit=1, flags=re.MULTILINE)[0]

    @property
    def diff(self) -> str:
        """The diff alone."""
        match = re.search(r"^(?:diff --git |--- (?!$))", self.text, re.MULTILINE)
        return self.text[match.start() :] if match else ""

    @property
    def epoch(self) -> int:
        """Its Date in seconds since 1970; 0 when it has none that can be read."""
        try:
            return int(parsedate_to_datetime(self.headers["Date"]).timestamp())
        except (KeyError, ValueError, TypeError):
            return 0

    @property
    def digest(self) -> str:
        """sha256 of the file."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogateescape")).hexdigest()


@dataclass(frozen=True)
class Series:
    """The patches of a target in order. `lines` is the series file, for its headings."""

    folder: Path
    lines: tuple[str, ...]
    patches: tuple[Patch, ...]

    def part(self, *, stock: bool) -> tuple[Patch, ...]:
        """All patches, or for a stock kernel those of the toolchain section only."""
        return tuple(p for p in self.patches if not stock or p.section == TOOLCHAIN)


def read(folder: Path) -> Series:
    """The series in a folder; a folder without one is an empty series."""
    path = folder / "series"
    if not path.is_file():
        return Series(folder, (), ())
    lines = tuple(path.read_text(encoding="utf-8").splitlines())
    patches: list[Patch] = []
    section = FEATURES
    for line in lines:
        word = line.lstrip("# \t").partition(" ")[0].rstrip(":,;")
        if line.startswith("#") and word in (TOOLCHAIN, FEATURES):
            section = word
        name = line.partition("#")[0].strip()
        if not name:
            continue
        file = folder / name
        if not file.is_file():
            raise FsdeployError(f"{path} names {name}, which is not there")
        text = file.read_bytes().decode("utf-8", "surrogateescape")
        patches.append(Patch(file, section, text))
    return Series(folder, lines, tuple(patches))


# --- lint -----------------------------------------------------------------------------------------


def lint(series: Series) -> list[str]:
    """What is wrong with a series, a line each; nothing when all is well. Applies nothing."""
    problems: list[str] = []
    names = [patch.name for patch in series.patches]
    problems += [
        f"series: {name} stands there twice"
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    problems += [
        f"{file.name}: not in the series"
        for file in sorted(series.folder.glob("*"))
        if file.name not in ("series", *names)
    ]
    problems += [
        f"series: white space at the end of {line.strip()!r}"
        for line in series.lines
        if line != line.rstrip()
    ]
    sections = [patch.section for patch in series.patches]
    if sections != sorted(sections, key=(TOOLCHAIN, FEATURES).index):
        problems.append("series: toolchain patches come first, stock kernels have only them")
    for number, patch in enumerate(series.patches, 1):
        problems += [f"{patch.name}: {text}" for text in _lint_patch(patch, number)]
    return problems


def _lint_patch(patch: Patch, number: int) -> list[str]:
    problems: list[str] = []
    match = _NAME.fullmatch(patch.name)
    if not match:
        problems.append("the name is not NNNN-subsystem-short-subject.patch")
    elif int(match[1]) != number:
        problems.append(f"number {match[1]} in place {number:04d} of the series")
    headers = patch.headers
    problems += [f"no {name}: header" for name in _HEADERS if not headers.get(name)]
    if headers.get("Date") and not patch.epoch:
        problems.append(f"Date: {headers['Date']!r} is not a date")
    if len(patch.subject) > _SUBJECT_LENGTH:
        problems.append(f"subject of {len(patch.subject)} characters, {_SUBJECT_LENGTH} are enough")
    if patch.subject.endswith("."):
        problems.append("subject ends with a full stop")
    mainline = headers.get("Patch-mainline", "")
    if mainline and not re.match(r"v?\d|Never, \S|Not yet, \S|Submitted, \S", mainline):
        problems.append("Patch-mainline: is a version, or Never, and the reason")
    body = [
        line
        for line in patch.message.splitlines()
        if line.strip() and not re.match(r"(From |[A-Z][A-Za-z-]+: |\s)", line)
    ]
    if not body:
        problems.append("the message says nothing: why, what it locks, how it was tested")
    problems += _lint_diff(patch)
    return problems


def _lint_diff(patch: Patch) -> list[str]:
    problems: list[str] = []
    if not patch.diff:
        return ["there is no diff in it"]
    file = ""
    for line in patch.diff.splitlines():
        if line.startswith("+++ "):
            file = line[4:].partition("\t")[0].removeprefix("b/")
        if re.match(r"index [0-9a-f]+\.\.[0-9a-f]+", line) and not re.match(
            r"index 0+\.\.0+", line
        ):
            problems.append("index lines, which change with the tree they were made in")
        if line.startswith(("--- ", "+++ ")) and not re.match(
            r"(--- (a/|/dev/null)|\+\+\+ (b/|/dev/null))", line
        ):
            problems.append(f"{line!r}: paths begin with a/ and b/")
        if line.startswith("+") and not line.startswith("+++ ") and line != line.rstrip():
            problems.append(f"{file}: white space at the end of an added line: {line.strip()!r}")
        if line.startswith(("GIT binary patch", "Binary files")):
            problems.append("a binary file, which patch(1) cannot apply")
    return list(dict.fromkeys(problems))


# --- apply ----------------------------------------------------------------------------------------


def apply_one(patch: Patch, tree: Path, *, where: str = "", log: Path | None = None) -> None:
    """Apply one patch to a tree with zero fuzz; offsets are fine.

    Raises FsdeployError that names the patch, the file and the hunk. A tree it failed in is not
    touched: the patch is tried first.
    """
    command: list[str | Path] = [
        "patch",
        "-p1",
        "-F0",
        "-f",
        "-N",
        "--no-backup-if-mismatch",
        "-i",
        patch.path,
    ]
    dry = run.run([*command, "--dry-run"], cwd=tree, check=False, log=log)
    if dry.returncode == 0:
        done = run.run([*command, "-r", "-"], cwd=tree, check=False, log=log)
        if done.returncode == 0:
            return
        dry = done
    on = f" to {where}" if where else ""
    reasons = _rejections(dry.output)
    raise FsdeployError(
        f"{patch.name} does not apply{on}: {'; '.join(reasons)}",
        hint="the series is applied without fuzz; `fsdeploy series apply --into DIR` makes a git "
        "tree to mend it in",
        log=log,
    )


def _rejections(output: str) -> list[str]:
    """File and hunk of each failure, out of what patch(1) said."""
    reasons: list[str] = []
    file = ""
    for line in output.splitlines():
        if match := re.match(r"(?:checking|patching) file (?:'([^']+)'|(\S+))", line):
            file = match[1] or match[2]
        elif match := re.match(r"Hunk #(\d+) FAILED at (\d+)", line):
            reasons.append(f"{file}: hunk {match[1]} (line {match[2]}) does not match")
        elif match := re.match(r"\|(?:---|\+\+\+) (?:[ab]/)?(\S+)", line):
            file = match[1]
        elif "No file to patch" in line:
            reasons.append(f"{file}: hunk 1: there is no such file")
        elif match := re.match(r"The next patch would create the file '?([^',]+)'?,", line):
            reasons.append(f"{match[1]}: hunk 1 creates this file, which is there already")
        elif re.match(r"(patch: )?\*\*\*\* ", line):
            reasons.append(f"{file + ': ' if file else ''}{line.partition('**** ')[2]}")
    return list(dict.fromkeys(reasons)) or [output.strip()[-300:] or "patch(1) said nothing"]


# --- git ------------------------------------------------------------------------------------------


def into_git(patches: Sequence[Patch], pristine: Path, folder: Path) -> None:
    """Make a git tree: one commit `base`, then one for each patch. For working on the series."""
    if folder.exists() and any(folder.iterdir()):
        raise FsdeployError(f"{folder} is not empty", hint="name a folder that is not there yet")
    folder.mkdir(parents=True, exist_ok=True)
    run.run(["cp", "-a", "--reflink=auto", f"{pristine}/.", folder])
    git = _Git(folder)
    git("init", "-q", "-b", "series")
    git("config", "user.name", _AUTHOR.partition(" <")[0])
    git("config", "user.email", _AUTHOR.partition("<")[2].rstrip(">"))
    # Sources of distributions carry files that their own .gitignore names.
    git("add", "-A", "-f", ".")
    git("commit", "-q", "-m", "base")
    git("tag", "base")
    for patch in patches:
        apply_one(patch, folder)
        git("add", "-A", "-f", ".")
        headers = patch.headers
        git(
            "commit", "-q", "--allow-empty", "--cleanup=verbatim", "-F", "-",
            f"--author={headers.get('From') or _AUTHOR}",
            f"--date={headers.get('Date') or '1970-01-01T00:00:00Z'}",
            text=_commit_message(patch),
        )  # fmt: skip


def _commit_message(patch: Patch) -> str:
    lines = [
        line
        for line in patch.message.splitlines()
        if not re.match(r"(From [0-9a-f]{40} |From: |Date: |Subject: )", line)
    ]
    body = "\n".join(lines).strip("\n")
    section = f"Series-section: {patch.section}\n"
    return f"{patch.subject}\n\n{section}{body}\n"


@dataclass(frozen=True)
class Exported:
    """A patch as it comes out of git."""

    name: str
    section: str
    text: str


def export(tree: Path, revisions: str, series: Series) -> list[Exported]:
    """The commits of `BASE..HEAD` as patches, the same bytes each time.

    The section of a commit is in its `Series-section:` line (`series apply` writes it), else that
    of the patch with this subject in the present series, else features.
    """
    git = _Git(tree)
    known = {patch.subject: patch.section for patch in series.patches}
    exported: list[Exported] = []
    for number, commit in enumerate(git("rev-list", "--reverse", revisions).split(), 1):
        author, date, subject, body = git(
            "show", "-s", "--format=%an <%ae>%x00%aD%x00%s%x00%b", commit
        ).split("\0")
        match = re.search(r"^Series-section: (\w+)\n", body, re.MULTILINE)
        section = match[1] if match else known.get(subject, FEATURES)
        body = re.sub(r"^Series-section: \w+\n", "", body, flags=re.MULTILINE).strip("\n")
        options = (
            "--no-renames",
            "--no-ext-diff",
            "--no-color",
            "--src-prefix=a/",
            "--dst-prefix=b/",
        )
        stat = git("diff", *options, "--stat=80", f"{commit}^", commit)
        diff = git("diff", *options, "--diff-algorithm=myers", "-U3", f"{commit}^", commit)
        diff = re.sub(r"^index [0-9a-f]+\.\.[0-9a-f]+(?: \d+)?\n", "", diff, flags=re.MULTILINE)
        exported.append(
            Exported(
                name=f"{number:04d}-{_slug(subject)}.patch",
                section=section,
                text=f"From: {author}\nDate: {date.strip()}\nSubject: [PATCH] {subject}\n"
                f"{body}\n---\n{stat}\n{diff}",
            )
        )
    return exported


def write(folder: Path, series: Series, exported: Sequence[Exported]) -> None:
    """Make `folder` hold exactly these patches; headings of the present series are kept."""
    headings = {TOOLCHAIN: ["# toolchain"], FEATURES: ["# features"]}
    comments: list[str] = []
    for line in series.lines:
        word = line.lstrip("# \t").partition(" ")[0].rstrip(":,;")
        if line.startswith("#"):
            comments.append(line)
            if word in headings:
                headings[word] = list(comments)
        elif line.strip():
            comments = []
    lines: list[str] = []
    for section in (TOOLCHAIN, FEATURES):
        names = [patch.name for patch in exported if patch.section == section]
        if names:
            lines += [*([""] if lines else []), *headings[section], *names]
    folder.mkdir(parents=True, exist_ok=True)
    kept = {patch.name for patch in exported}
    for patch in exported:
        path = folder / patch.name
        path.write_bytes(patch.text.encode("utf-8", "surrogateescape"))
    store.write_atomically(folder / "series", "\n".join(lines) + "\n")
    for file in folder.glob("*.patch"):
        if file.name not in kept:
            file.unlink()


def _slug(subject: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", subject.lower()).strip("-")[:60].rstrip("-")


class _Git:
    """git in one tree, without the user's configuration getting in the way of stable output."""

    def __init__(self, tree: Path) -> None:
        self._tree = tree

    def __call__(self, *words: str, text: str | None = None) -> str:
        run.require("git")
        # Old kernels have files that are not UTF-8: the output is taken as bytes.
        with tempfile.TemporaryFile() as file:
            run.run(
                ["git", "-C", self._tree, "-c", "core.autocrlf=false", "-c", "core.quotePath=false",
                 "-c", "commit.gpgSign=false", *words],
                env={"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"},
                input_text=text,
                stdout=file,
            )  # fmt: skip
            file.seek(0)
            return file.read().decode("utf-8", "surrogateescape")


def clone_tree(pristine: Path, tree: Path) -> None:
    """A work tree: hard links to the pristine one.

    patch(1), git, and the kernel's build replace files and do not write into them; the seal of the
    pristine tree (source.require_intact) finds out if one day something does.
    """
    shutil.rmtree(tree, ignore_errors=True)
    tree.parent.mkdir(parents=True, exist_ok=True)
    run.run(["cp", "-al", pristine, tree])
