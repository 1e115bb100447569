// SPDX-License-Identifier: GPL-2.0-only
/* Broken on purpose: the program itself dies, after a test that is fine. */
#include "ktap.h"

TEST(is_fine)
{
	CHECK(true);
}

TEST(ends_the_program)
{
	CHECK(true);
	kill(getppid(), SIGSEGV);
	pause();
}
