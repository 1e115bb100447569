// SPDX-License-Identifier: GPL-2.0-only
/*
 * /proc/net/hash_stat, of the listen table in the core's net/ipv4/inet_listen.c,
 * and /proc/net/fsocket_stats, of this module.
 */

#include "counters.h"
#include "fastsocket.h"
#include "kernel.h"

static const char * const hash_columns[INET_LISTEN_STATS] = {
	[INET_LISTEN_LOCAL_LOOKUP]	= "Loc_lst_lookup",
	[INET_LISTEN_GLOBAL_LOOKUP]	= "Glo_lst_lookup",
	[INET_LISTEN_COMMON_ACCEPT]	= "Com_accept",
	[INET_LISTEN_LOCAL_ACCEPT]	= "Loc_accept",
	[INET_LISTEN_REMOTE_ACCEPT]	= "Rem_accept",
	[INET_LISTEN_GLOBAL_ACCEPT]	= "Glo_accept",
};

static const unsigned long *hash_row(int cpu)
{
	return per_cpu(inet_listen_cpus, cpu).stat;
}

static struct fs_counters hash_counters = {
	.name		= "hash_stat",
	.columns	= hash_columns,
	.count		= INET_LISTEN_STATS,
	.row		= hash_row,
};

static const char * const module_columns[FSOCKET_STATS] = {
	[FSOCKET_CALLS]		= "Calls",
	[FSOCKET_SPAWN_CALLS]	= "Spawn_calls",
	[FSOCKET_SPAWNED]	= "Spawned",
	[FSOCKET_BOUND]		= "Bound",
	[FSOCKET_SURPLUS]	= "Surplus",
	[FSOCKET_FAILED]	= "Failed",
};

static const unsigned long *module_row(int cpu)
{
	return per_cpu(fsocket_stats, cpu);
}

static struct fs_counters module_counters = {
	.name		= "fsocket_stats",
	.columns	= module_columns,
	.count		= FSOCKET_STATS,
	.row		= module_row,
};

int fsocket_stat_register(void)
{
	int err = fs_counters_add(&hash_counters);

	if (err)
		return err;
	err = fs_counters_add(&module_counters);
	if (err)
		fs_counters_remove(&hash_counters);
	return err;
}

void fsocket_stat_unregister(void)
{
	fs_counters_remove(&module_counters);
	fs_counters_remove(&hash_counters);
}
