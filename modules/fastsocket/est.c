// SPDX-License-Identifier: GPL-2.0-only
/*
 * The table of established connections of each core: its switch. What it does
 * is in the core, net/ipv4/inet_established.c of the patched kernel, and what
 * it did is in /proc/net/hash_stat.
 */

#include <linux/kernel.h>
#include <linux/module.h>

#include <net/inet_established.h>

#include "est.h"
#include "switch.h"

static struct fs_switch fs_est_switch = {
	.turn	= inet_est_switch,
};

/* The tables want memory: who switches on hears when there is none. */
static int fs_est_set(const char *val, struct kernel_param *kp)
{
	unsigned long on;
	int err;

	if (val && !strict_strtoul(val, 0, &on) && on == 1) {
		err = inet_est_prepare();
		if (err)
			return err;
	}
	return fs_switch_set(val, kp);
}

module_param_call(enable_local_established, fs_est_set, fs_switch_get,
		  &fs_est_switch, 0644);
__MODULE_PARM_TYPE(enable_local_established, "int");
MODULE_PARM_DESC(enable_local_established,
		 "a table of established connections for each core: 0 off (default), 1 on");

void fs_est_init(void)
{
	fs_switch_ready(&fs_est_switch, true);
	if (fs_est_switch.on)
		printk(KERN_INFO "Fastsocket: Enable Local Established\n");
}

/* Connections in the tables of cores go to the table of all. */
void fs_est_exit(void)
{
	fs_switch_ready(&fs_est_switch, false);
}
