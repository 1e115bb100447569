# SPDX-License-Identifier: GPL-2.0-only
"""The Fastsocket module and services under libfsocket: what is to be where, from what a host is."""
