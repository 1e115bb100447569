# SPDX-License-Identifier: GPL-2.0-only
"""Virtual hosts and quick guests under QEMU."""
