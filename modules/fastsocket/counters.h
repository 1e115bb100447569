/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef FASTSOCKET_COUNTERS_H
#define FASTSOCKET_COUNTERS_H

#include <linux/types.h>

/*
 * A table of counters in /proc/net: one row a CPU, one column a counter; a
 * write resets it. A CPU adds to its own counters without a lock, so nobody
 * else may write them: a reset moves the point they are shown from instead.
 */
struct fs_counters {
	const char *name;		/* of the file */
	const char * const *columns;
	int width;			/* how many columns */
	unsigned long (*count)(int cpu, int column);

	unsigned long *base;		/* of all CPUs at the last reset */
};

int fs_counters_add(struct fs_counters *table);
void fs_counters_remove(struct fs_counters *table);

#endif
