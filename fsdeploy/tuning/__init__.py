# SPDX-License-Identifier: GPL-2.0-only
"""Network tuning, planned: from what a host looks like to a list of settings.

Nothing here asks or changes a host. The host's side is playbooks/module_utils/fsdeploy_tuning.py.
"""
