# SPDX-License-Identifier: GPL-2.0-only
"""From a kernel source to packages: targets, sources, series, configuration, build, RPM.

Knows nothing of hosts. What identifies a build is computed by pure functions before anything is
unpacked; `build.build_kernel` then does the work.
"""
