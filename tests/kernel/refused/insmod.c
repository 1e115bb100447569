// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module meets a kernel without the series: it is refused, for a symbol that
 * it does not find, and the kernel goes on as if nothing had been.
 */
#include "module.h"

TEST(the_module_is_refused)
{
	CHECK(!access(MODULE_FILE, R_OK));
	CHECK(!module_load(""));
	CHECK_EQ(errno, ENOENT);
	CHECK(!module_loaded());
	CHECK(access("/dev/fastsocket", F_OK) < 0);
	CHECK(access("/proc/net/hash_stat", F_OK) < 0);
}
