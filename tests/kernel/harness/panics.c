// SPDX-License-Identifier: GPL-2.0-only
/* Broken on purpose: takes the kernel with it. Its report is cut off. */
#include "ktap.h"

TEST(is_fine)
{
	CHECK(true);
}

TEST(takes_the_kernel_with_it)
{
	CHECK(true);
	ktap_write("/proc/sys/kernel/sysrq", "1");
	ktap_write("/proc/sysrq-trigger", "c");
	pause();
}
