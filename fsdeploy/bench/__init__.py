# SPDX-License-Identifier: GPL-2.0-only
"""Compares kernels by what a short TCP connection costs, in quick guests.

`plan` says what is run in which order, `guestfiles/connections.c` makes the connections, `drive`
builds the kernels and boots the guests, `measure` reads what a guest reported, `report` makes
figures and tables of it.
"""
