# SPDX-License-Identifier: GPL-2.0-only
"""Tells fsdeploy what happens on each host, one JSON object a line."""

import json
import sys

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: fsdeploy_events
type: stdout
short_description: one JSON object a line for each result
description:
  - Every result of a task on a host becomes one line that begins with C(FSDEPLOY) and continues
    with a JSON object. fsdeploy reads these lines while the playbook runs.
"""

PREFIX = "FSDEPLOY "


class CallbackModule(CallbackBase):
    """The stdout callback that fsdeploy selects for its own runs."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "fsdeploy_events"

    def _tell(self, **event):
        sys.stdout.write(PREFIX + json.dumps(event, sort_keys=True, default=str) + "\n")
        sys.stdout.flush()

    def _result(self, status, result):
        values = dict(result._result)
        for name in ("invocation", "diff", "ansible_facts"):
            values.pop(name, None)
        self._tell(
            event="result",
            status=status,
            host=result._host.get_name(),
            task=result._task.get_name(),
            action=result._task.action,
            result=values,
        )

    def v2_playbook_on_task_start(self, task, *_args, **_kwargs):
        """A task begins."""
        self._tell(event="task", task=task.get_name())

    def v2_runner_on_ok(self, result):
        """It worked."""
        self._result("ok", result)

    def v2_runner_on_skipped(self, result):
        """It was not needed."""
        self._result("skipped", result)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        """It failed."""
        self._result("ignored" if ignore_errors else "failed", result)

    def v2_runner_on_unreachable(self, result):
        """The host does not answer."""
        self._result("unreachable", result)

    def v2_playbook_on_stats(self, stats):
        """The end: what Ansible counted."""
        hosts = sorted(stats.processed)
        self._tell(event="end", hosts={host: stats.summarize(host) for host in hosts})
