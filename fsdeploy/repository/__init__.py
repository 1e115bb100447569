# SPDX-License-Identifier: GPL-2.0-only
"""Signed packages: the keys, the signatures, and the yum repository that hosts install from."""
