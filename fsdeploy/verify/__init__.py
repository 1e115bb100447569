# SPDX-License-Identifier: GPL-2.0-only
"""The checks that ship: a testinfra suite and what runs it."""
