#!/usr/bin/python
# -*- coding: utf-8 -*-
# SPDX-License-Identifier: GPL-2.0-only
"""Puts the Fastsocket module and services under libfsocket in place, and takes them back."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

DOCUMENTATION = r"""
---
module: host_services
short_description: The Fastsocket module and services under libfsocket, undone exactly
description:
  - Collects what planning needs, brings a plan about, or takes one of its two levels back.
  - What is to be put where is decided on the control machine; C(fsdeploy services) does.
  - Everything is remembered before its first change and never written over.
options:
  state:
    description:
      - C(gathered) changes nothing and returns what the host is.
      - C(applied) brings I(plan) about; services that run without the library are restarted.
      - C(restored) takes I(level) back. A module in use, or a package that something uses, is a
        result of its own and fails nothing.
    type: str
    choices: [gathered, applied, restored]
    default: gathered
  plan:
    description: Packages, files, module, values and services; module_utils/fsdeploy_services.py.
    type: dict
  folder:
    description: Where the plan's packages are on the host; removed from there when installed.
    type: path
  level:
    description: What is taken back.
    type: str
    choices: [module, service]
  root:
    description: Folder that holds the file system; another one than C(/) is for tests.
    type: path
    default: /
author:
  - fsdeploy developers
"""

EXAMPLES = r"""
- name: Look at the host
  host_services:
  register: looked

- name: Load the module with its parameters, at each boot too
  host_services:
    state: applied
    plan: "{{ plan }}"
    folder: /var/lib/fsdeploy/packages

- name: Run services without the library again
  host_services:
    state: restored
    level: service
"""

RETURN = r"""
host:
  description: Kernel, module, packages, services and how they run.
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
from ansible.module_utils import fsdeploy_services as services
from ansible.module_utils.fsdeploy_files import Failed, diff_of


def main():
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str", "default": "gathered",
                "choices": ["gathered", "applied", "restored"]},
            "plan": {"type": "dict"},
            "folder": {"type": "path"},
            "level": {"type": "str", "choices": ["module", "service"]},
            "root": {"type": "path", "default": "/"},
        },
        required_if=[("state", "applied", ["plan", "folder"]), ("state", "restored", ["level"])],
        supports_check_mode=True,
    )
    host = services.Host(module.params["root"])
    state = module.params["state"]
    try:
        if state == "gathered":
            module.exit_json(changed=False, host=services.collect(host))
        if state == "applied":
            results, changed = services.apply_plan(
                host, module.params["plan"], module.params["folder"], module.check_mode)
            problem = services.stuck(results)
        else:
            results, changed = services.restore(host, module.params["level"], module.check_mode)
            problem = services.left(results)
    except Failed as failed:
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
