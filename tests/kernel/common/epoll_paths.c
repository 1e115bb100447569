// SPDX-License-Identifier: GPL-2.0-only
/*
 * From one file to sets in sets there are no more than 500 ways of two steps,
 * whichever link comes last. Stock 2.6.32 writes to a freed item when it
 * refuses one, so its debug kernel is left out.
 *
 * guest: modules=fastsocket variants=stock,patched,patched-debug seconds=120
 */
#include "sets.h"

#define LIMIT	500

static void many_descriptors(void)
{
	struct rlimit limit = { 4096, 4096 };

	NEED(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

/* Ways of one step have no limit. */
TEST_WITHIN(any_number_of_sets_watch_a_file, 60)
{
	int other, fd = readable(&other), set = -1, i;

	module_need();
	many_descriptors();
	for (i = 0; i < 1500; i++) {
		set = new_set();
		NEED_EQ(add(set, fd, i), 0);
	}
	CHECK(reports(set, 1499));
}

TEST_WITHIN(link_of_the_sets_comes_last, 60)
{
	int other, fd = readable(&other), inner, outer[LIMIT + 1], i;

	module_need();
	many_descriptors();
	inner = new_set();
	NEED_EQ(add(inner, fd, 1), 0);
	for (i = 0; i <= LIMIT; i++) {
		outer[i] = new_set();
		if (i < LIMIT)
			NEED_EQ(add(outer[i], inner, i), 0);
	}
	CHECK_EQ(add(outer[LIMIT], inner, LIMIT), EINVAL);
	CHECK_EQ(ready(outer[LIMIT], NULL), 0);
	CHECK_EQ(delete(outer[LIMIT], inner), ENOENT);
	CHECK(reports(outer[LIMIT - 1], LIMIT - 1));
	/* one less, and it goes */
	CHECK_EQ(delete(outer[3], inner), 0);
	CHECK_EQ(add(outer[LIMIT], inner, LIMIT), 0);
	CHECK(reports(outer[LIMIT], LIMIT));
	CHECK_EQ(add(outer[3], inner, 3), EINVAL);
}

/* The set was made an inner one before: a file in it must be looked at. */
TEST_WITHIN(link_of_the_file_comes_last, 60)
{
	int other, fd = readable(&other), inner, outer[LIMIT + 1], i;

	module_need();
	many_descriptors();
	inner = new_set();
	for (i = 0; i <= LIMIT; i++) {
		outer[i] = new_set();
		NEED_EQ(add(outer[i], inner, i), 0);
	}
	CHECK_EQ(add(inner, fd, 1), EINVAL);
	CHECK_EQ(ready(inner, NULL), 0);
	CHECK_EQ(delete(inner, fd), ENOENT);
	CHECK_EQ(delete(outer[3], inner), 0);
	CHECK_EQ(add(inner, fd, 2), 0);
	CHECK(reports(inner, 2));
	CHECK_EQ(add(outer[3], inner, 3), EINVAL);
}

/* Over two inner sets: the second has the rest. */
TEST_WITHIN(ways_over_two_sets_add_up, 60)
{
	int other, fd = readable(&other), inner[2], i;

	module_need();
	many_descriptors();
	inner[0] = new_set();
	inner[1] = new_set();
	NEED_EQ(add(inner[0], fd, 1), 0);
	for (i = 0; i < LIMIT - 1; i++)
		NEED_EQ(add(new_set(), inner[0], 1), 0);
	NEED_EQ(add(new_set(), inner[1], 1), 0);
	NEED_EQ(add(new_set(), inner[1], 1), 0);
	CHECK_EQ(add(inner[1], fd, 1), EINVAL);
	CHECK_EQ(add(inner[0], fd, 1), EEXIST);
	CHECK(reports(inner[0], 1));
}
