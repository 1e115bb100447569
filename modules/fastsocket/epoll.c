// SPDX-License-Identifier: GPL-2.0-only
/*
 * Fast epoll: its switch and its counters. What it does is in the core,
 * fs/eventpoll.c of the patched kernel.
 */

#include <linux/eventpoll_fast.h>
#include <linux/kernel.h>
#include <linux/module.h>

#include "counters.h"
#include "epoll.h"
#include "switch.h"

static struct fs_switch fs_epoll_switch = {
	.turn	= eventpoll_switch_fast,
	.on	= 1,
};

module_param_call(enable_fast_epoll, fs_switch_set, fs_switch_get,
		  &fs_epoll_switch, 0644);
__MODULE_PARM_TYPE(enable_fast_epoll, "int");
MODULE_PARM_DESC(enable_fast_epoll,
		 "change epoll sets without a lock that all share: 0 off, 1 on (default)");

static const char * const fs_epoll_columns[EP_FAST_COUNTERS] = {
	[EP_FAST_LOCAL]		= "Ctl_local",
	[EP_FAST_GLOBAL]	= "Ctl_global",
	[EP_FAST_BY_FILE]	= "Find_by_file",
	[EP_FAST_BY_TREE]	= "Find_by_tree",
};

static unsigned long fs_epoll_count(int cpu, int column)
{
	return per_cpu(ep_fast_stats, cpu).count[column];
}

static struct fs_counters fs_epoll_counters = {
	.name		= "epoll_stat",
	.columns	= fs_epoll_columns,
	.width		= EP_FAST_COUNTERS,
	.count		= fs_epoll_count,
};

int fs_epoll_init(void)
{
	int err = fs_counters_add(&fs_epoll_counters);

	if (err)
		return err;
	fs_switch_ready(&fs_epoll_switch, true);
	if (fs_epoll_switch.on)
		printk(KERN_INFO "Fastsocket: Enable Fast Epoll\n");
	return 0;
}

void fs_epoll_exit(void)
{
	fs_switch_ready(&fs_epoll_switch, false);
	fs_counters_remove(&fs_epoll_counters);
}
