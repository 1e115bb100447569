// SPDX-License-Identifier: GPL-2.0-only
/*
 * Receive Flow Deliver: its switch and its counters. What it does is in the
 * core, net/ipv4/rfd.c of the patched kernel.
 */

#include <linux/kernel.h>
#include <linux/module.h>

#include <net/rfd.h>

#include "counters.h"
#include "rfd.h"
#include "switch.h"

static struct fs_switch fs_rfd_switch = {
	.turn	= rfd_switch,
};

module_param_call(enable_receive_flow_deliver, fs_switch_set, fs_switch_get,
		  &fs_rfd_switch, 0644);
__MODULE_PARM_TYPE(enable_receive_flow_deliver, "int");
MODULE_PARM_DESC(enable_receive_flow_deliver,
		 "receive connections on the core that opened them: 0 off (default), 1 on");

static const char * const fs_rfd_columns[RFD_COUNTERS] = {
	[RFD_PASS_TOTAL]	= "Pass_total",
	[RFD_STEER_TOTAL]	= "Steer_total",
	[RFD_STEER_REMOTE]	= "Steer_remote",
	[RFD_STEER_LOCAL]	= "Steer_local",
	[RFD_STEER_ERROR]	= "Steer_error",
	[RFD_PORT_EXHAUSTED]	= "Port_exhausted",
};

static unsigned long fs_rfd_count(int cpu, int column)
{
	return per_cpu(rfd_stats, cpu).count[column];
}

static struct fs_counters fs_rfd_counters = {
	.name		= "steer_stat",
	.columns	= fs_rfd_columns,
	.width		= RFD_COUNTERS,
	.count		= fs_rfd_count,
};

int fs_rfd_init(void)
{
	int err = fs_counters_add(&fs_rfd_counters);

	if (err)
		return err;
	fs_switch_ready(&fs_rfd_switch, true);
	if (fs_rfd_switch.on)
		printk(KERN_INFO "Fastsocket: Enable Receive Flow Deliver\n");
	return 0;
}

void fs_rfd_exit(void)
{
	fs_switch_ready(&fs_rfd_switch, false);
	fs_counters_remove(&fs_rfd_counters);
}
