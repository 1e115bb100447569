// SPDX-License-Identifier: GPL-2.0-only
/* Fine, but leaves a process in a session of its own that holds the output. */
#include "ktap.h"

TEST(leaves_a_process)
{
	if (!fork()) {
		setsid();
		for (;;)
			pause();
	}
	CHECK(true);
}
