// SPDX-License-Identifier: GPL-2.0-only
/* Broken on purpose: a test for each way to fail, and some that do not. */
#include "ktap.h"

TEST(a_check_fails)
{
	CHECK_EQ(1 + 1, 3);
}

TEST(a_child_fails_a_check)
{
	pid_t child = fork();

	if (!child) {
		CHECK(false);
		_exit(0);
	}
	waitpid(child, NULL, 0);
}

TEST(checks_nothing)
{
}

TEST(dies)
{
	CHECK(true);
	abort();
}

TEST(ends_early)
{
	CHECK(true);
	_exit(3);
}

TEST_WITHIN(hangs, 1)
{
	CHECK(true);
	for (;;)
		pause();
}

TEST(passes)
{
	CHECK(true);
	/* Left behind: dies with the test. */
	if (!fork())
		for (;;)
			pause();
}

TEST(skips)
{
	SKIP("nothing to do");
}
