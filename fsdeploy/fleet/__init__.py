# SPDX-License-Identifier: GPL-2.0-only
"""What is done to hosts: inventory, journal, plan, rollout, and the ways to reach them."""
