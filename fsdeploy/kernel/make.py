# SPDX-License-Identifier: GPL-2.0-only
"""make in a kernel tree: the same command line and environment for every step.

Whatever wants to know when, where and by whom it is built is told the same each time, so that the
same inputs give the same bytes.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fsdeploy import run
from fsdeploy.errors import FsdeployError

ARCH = "x86_64"

_ERROR = re.compile(
    r"(: (fatal )?error:|undefined reference to|^make(\[\d+\])?: \*\*\*|: No such file or directory"
    r"|No space left on device|Killed\b)"
)


@dataclass(frozen=True)
class Make:
    """make in `tree`. `jobs` 0 is one for each core; `epoch` is the time stamp of all."""

    tree: Path
    epoch: int
    log: Path
    jobs: int = 0

    def run(
        self,
        *words: str,
        on_line: Callable[[str], None] | None = None,
        **environment: str,
    ) -> None:
        """Make some goals. Raises FsdeployError with the first lines that say why it stopped."""
        result = run.run(
            [*self._command(), *words],
            cwd=self.tree,
            env={**self._environment(), **environment},
            log=self.log,
            check=False,
            on_line=on_line,
        )
        if result.returncode != 0:
            raise FsdeployError(
                f"make {words[0]} stopped:\n" + "\n".join(first_error(result.output)),
                log=self.log,
            )

    def _command(self) -> list[str]:
        jobs = self.jobs or os.cpu_count() or 1
        compiler = "ccache gcc" if run.find("ccache") else "gcc"
        # An empty LOCALVERSION: a tree below somebody's git repository gets no "+". An empty
        # mod-fw: 2.6.32 carries firmware, which the distribution packs by itself, not with kernels.
        return ["make", f"-j{jobs}", f"ARCH={ARCH}", f"CC={compiler}", "LOCALVERSION=", "mod-fw="]

    def _environment(self) -> dict[str, str]:
        return {
            "KBUILD_BUILD_TIMESTAMP": time.strftime(
                "%a %b %d %H:%M:%S UTC %Y", time.gmtime(self.epoch)
            ),
            "KBUILD_BUILD_USER": "fsdeploy",
            "KBUILD_BUILD_HOST": "localhost",
            "KBUILD_BUILD_VERSION": "1",
            "SOURCE_DATE_EPOCH": str(self.epoch),
            # Objects are shared between builds in different folders.
            "CCACHE_BASEDIR": str(self.tree),
            "CCACHE_NOHASHDIR": "1",
        }


def first_error(output: str) -> list[str]:
    """The first lines of a build's output that say why it stopped."""
    lines = output.splitlines()
    for number, line in enumerate(lines):
        if _ERROR.search(line):
            return [text.rstrip() for text in lines[number : number + 8]]
    return [text.rstrip() for text in lines[-8:]]


def require_headers(options: Mapping[str, str]) -> None:
    """Headers that programs of the build want; make would fail late and unclearly."""
    wanted: list[tuple[str, str, str, str]] = []
    if options.get("CONFIG_OBJTOOL") == "y" or options.get("CONFIG_STACK_VALIDATION") == "y":
        wanted.append(("gelf.h", "libelf-dev", "elfutils-libelf-devel", "objtool"))
    if options.get("CONFIG_SYSTEM_TRUSTED_KEYRING") == "y":
        wanted.append(("openssl/bio.h", "libssl-dev", "openssl-devel", "the kernel's keyring"))
    for header, debian, centos, user in wanted:
        found = run.run(
            ["gcc", "-E", "-x", "c", "-o", "/dev/null", "-"],
            input_text=f"#include <{header}>\n",
            check=False,
        )
        if found.returncode != 0:
            raise FsdeployError(
                f"missing header {header}, which {user} of this configuration needs",
                hint=f"Debian: apt-get install {debian}; CentOS: yum install {centos}",
            )
