# SPDX-License-Identifier: GPL-2.0-only
"""`python -m fsdeploy` is the same as the `fsdeploy` program."""

import sys

from fsdeploy.cli import main

sys.exit(main())
