// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest: variants=stock-debug,patched-debug
 *
 * Silence of a debug kernel means something only if its checks are alive.
 */
#include "ktap.h"

/* The number after a name in a table of "name: number" lines. */
static long number_of(const char *table, const char *name)
{
	const char *at = strstr(table, name);

	return at ? atol(at + strlen(name) + strspn(at + strlen(name), ": "))
		  : -1;
}

TEST(lock_order_is_watched)
{
	static char table[16384];

	ktap_read("/proc/lockdep_stats", table, sizeof(table));
	CHECK_EQ(number_of(table, "debug_locks"), 1);
	CHECK(number_of(table, "lock-classes") > 100);
	CHECK(number_of(table, "direct dependencies") > 100);
	NOTE("%ld classes of locks, %ld orders", number_of(table,
	     "lock-classes"), number_of(table, "direct dependencies"));
}
