# SPDX-License-Identifier: GPL-2.0-only
"""Brings a file of the control machine to a host, and believes nothing about it."""

import shlex
from pathlib import PurePosixPath

from ansible.plugins.action import ActionBase

DOCUMENTATION = """
action: send_file
short_description: a file to a host, over the connection that is there
description:
  - For a file that a module checks and removes right after. Copies I(src) to I(dest), in a folder
    that is made for root only, and does no more, so that no Python has to start on the host;
    M(ansible.builtin.copy) runs two modules and reads the file three times.
"""


class ActionModule(ActionBase):
    """Makes the folder, copies."""

    _requires_connection = True

    def run(self, tmp=None, task_vars=None):
        """One command and one transfer."""
        result = super().run(tmp, task_vars)
        source, target = self._task.args["src"], self._task.args["dest"]
        result["changed"] = True
        if self._task.check_mode:
            return result
        folder = shlex.quote(str(PurePosixPath(target).parent))
        made = self._low_level_execute_command(
            f"umask 077 && mkdir -p {folder} && chmod 700 {folder}"
        )
        if made["rc"] != 0:
            said = (made["stderr"] or made["stdout"]).strip()
            return {**result, "failed": True, "msg": said or f"{folder} could not be made"}
        self._connection.put_file(source, target)
        return result
