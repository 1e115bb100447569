// SPDX-License-Identifier: GPL-2.0-only
/*
 * /proc/net/hash_stat, of the core's tables in net/ipv4/inet_listen.c and
 * inet_established.c, and /proc/net/fsocket_stats, of this module.
 */

#include "counters.h"
#include "fastsocket.h"
#include "kernel.h"

#define EST(what)	(INET_LISTEN_STATS + INET_EST_ ## what)

/* What the first Fastsocket had, then the tables of established connections. */
static const char * const hash_columns[EST(STATS)] = {
	[INET_LISTEN_LOCAL_LOOKUP]	= "Loc_lst_lookup",
	[INET_LISTEN_GLOBAL_LOOKUP]	= "Glo_lst_lookup",
	[INET_LISTEN_COMMON_ACCEPT]	= "Com_accept",
	[INET_LISTEN_LOCAL_ACCEPT]	= "Loc_accept",
	[INET_LISTEN_REMOTE_ACCEPT]	= "Rem_accept",
	[INET_LISTEN_GLOBAL_ACCEPT]	= "Glo_accept",
	[EST(INSERT)]			= "Est_insert",
	[EST(LOCAL_LOOKUP)]		= "Loc_est_lookup",
	[EST(GLOBAL_LOOKUP)]		= "Glo_est_lookup",
	[EST(REMOTE_LOOKUP)]		= "Rem_est_lookup",
};

static unsigned long hash_count(int cpu, int column)
{
	if (column < INET_LISTEN_STATS)
		return per_cpu(inet_listen_cpus, cpu).stat[column];
	return per_cpu(inet_est_stats, cpu).count[column - INET_LISTEN_STATS];
}

static struct fs_counters hash_counters = {
	.name		= "hash_stat",
	.columns	= hash_columns,
	.width		= EST(STATS),
	.count		= hash_count,
};

static const char * const module_columns[FSOCKET_STATS] = {
	[FSOCKET_CALLS]		= "Calls",
	[FSOCKET_SPAWN_CALLS]	= "Spawn_calls",
	[FSOCKET_SPAWNED]	= "Spawned",
	[FSOCKET_BOUND]		= "Bound",
	[FSOCKET_SURPLUS]	= "Surplus",
	[FSOCKET_FAILED]	= "Failed",
};

static unsigned long module_count(int cpu, int column)
{
	return per_cpu(fsocket_stats, cpu)[column];
}

static struct fs_counters module_counters = {
	.name		= "fsocket_stats",
	.columns	= module_columns,
	.width		= FSOCKET_STATS,
	.count		= module_count,
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
