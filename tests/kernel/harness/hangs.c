// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest: seconds=3
 *
 * Broken on purpose: does not end within its time.
 */
#include "ktap.h"

TEST_WITHIN(never_ends, 1000)
{
	CHECK(true);
	for (;;)
		pause();
}
