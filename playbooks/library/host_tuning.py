#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-License-Identifier: GPL-2.0-only
"""Collects what tuning is planned from, applies settings and takes them back."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

DOCUMENTATION = r"""
---
module: host_tuning
short_description: Network tuning of a host, undone exactly
description:
  - Collects a snapshot of C(/proc), C(/sys) and the drivers' interrupt coalescing, brings a list of
    settings about, or puts everything back.
  - What is to be set is decided on the control machine, from the snapshot; C(fsdeploy tune) does.
  - Every target's value is remembered before its first change and never written over.
  - A target that cannot be changed is a result of its own and fails nothing.
options:
  state:
    description:
      - C(gathered) changes nothing and returns the snapshot.
      - C(applied) brings I(settings) about, keeps them over boots and C(ifup), and puts back what
        an earlier list had and this one has not.
      - C(restored) puts everything back and removes what keeps the settings.
    type: str
    choices: [gathered, applied, restored]
    default: gathered
  settings:
    description: Each with C(kind), C(target) and C(value); module_utils/fsdeploy_tuning.py has them.
    type: list
    elements: dict
  root:
    description: Folder that holds the file system; another one than C(/) is for tests.
    type: path
    default: /
author:
  - fsdeploy developers
"""

EXAMPLES = r"""
- name: Look at the host
  host_tuning:
  register: looked

- name: Let CPU 2 serve a queue
  host_tuning:
    state: applied
    settings:
      - {kind: interrupt, target: eth0-TxRx-2, value: "4"}

- name: Put everything back
  host_tuning:
    state: restored
"""

RETURN = r"""
snapshot:
  description: Texts of files, names of devices and drivers, coalescing, irqbalance.
  returned: when state is gathered
  type: dict
results:
  description:
    - Each with kind, target, wanted, before, after, reason and outcome.
    - The outcome is C(unchanged), C(changed), C(cannot be changed) or C(not there); in check mode
      C(changed) is what would be.
  returned: when state is applied or restored
  type: list
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils import fsdeploy_tuning as tuning
from ansible.module_utils.fsdeploy_files import diff_of


def stuck(results):
    """The sentence about what could not be put back; empty when all is as it was."""
    left = [result for result in results if result["outcome"] == tuning.CANNOT]
    if not left:
        return ""
    return "%s could not be put back to %s: %s" % (
        left[0]["target"], left[0]["wanted"], left[0]["reason"])


def main():
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str", "default": "gathered",
                "choices": ["gathered", "applied", "restored"]},
            "settings": {"type": "list", "elements": "dict"},
            "root": {"type": "path", "default": "/"},
        },
        required_if=[("state", "applied", ["settings"])],
        supports_check_mode=True,
    )
    host = tuning.Host(module.params["root"])
    state = module.params["state"]
    try:
        if state == "gathered":
            module.exit_json(changed=False, snapshot=tuning.collect(host))
        if state == "applied":
            results, changed = tuning.apply_settings(
                host, module.params["settings"], module.check_mode)
            problem = ""
        else:
            results, changed = tuning.restore(host, module.check_mode)
            problem = stuck(results)
    except tuning.Failed as failed:
        module.fail_json(msg=str(failed))
    except (IOError, OSError) as failed:
        module.fail_json(msg="%s: %s" % (failed.filename, failed.strerror))
    answer = {"changed": changed, "results": results}
    if module._diff:
        answer["diff"] = diff_of(results)
    if problem:
        module.fail_json(msg=problem, **answer)
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
