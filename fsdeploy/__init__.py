# SPDX-License-Identifier: GPL-2.0-only
"""fsdeploy: builds, deploys, verifies and rolls back the Fastsocket kernel on a fleet."""

__version__ = "0.1.0"
