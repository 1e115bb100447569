// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest: modules=fastsocket seconds=150 variants=stock-debug,patched-debug
 *
 * Allocations fail on purpose while files are added to epoll sets: what fails
 * leaves nothing behind, and works the next time.
 */
#include "failslab.h"
#include "sets.h"
#include "slabs.h"

#define SLACK	8

static void add_all(bool nested)
{
	int sets[4], outer, fd, other, i, j, error, worked = 0, failed = 0;
	int fail_me = open("/proc/self/make-it-fail", O_WRONLY);
	bool in[4];

	outer = new_set();
	for (i = 0; i < 4; i++) {
		sets[i] = new_set();
		if (nested)
			NEED_EQ(add(outer, sets[i], i), 0);
	}
	for (j = 0; j < 500; j++) {
		fd = readable(&other);
		NEED(pwrite(fail_me, "1", 1, 0) == 1);
		for (i = 0; i < 4; i++) {
			error = add(sets[i], fd, j);
			in[i] = !error;
			worked += !error;
			failed += error == ENOMEM;
			if (error && error != ENOMEM)
				break;
		}
		/* This may be made to fail as well. */
		while (pwrite(fail_me, "0", 1, 0) != 1)
			;
		NEED_EQ(i, 4);
		for (i = 0; i < 4; i++) {
			CHECK_EQ(ready(sets[i], NULL), in[i]);
			CHECK_EQ(modify(sets[i], fd, j), in[i] ? 0 : ENOENT);
			CHECK_EQ(add(sets[i], fd, j), in[i] ? EEXIST : 0);
			CHECK(reports(sets[i], j));
		}
		close(fd);
		close(other);
		for (i = 0; i < 4; i++)
			CHECK_EQ(ready(sets[i], NULL), 0);
	}
	NOTE("%d added, %d failed", worked, failed);
	CHECK(worked > 0);
	CHECK(failed > 0);
	close(fail_me);
}

TEST_WITHIN(adding_may_fail_anywhere, 120)
{
	static const char *const slabs[] = { "eventpoll_epi", "eventpoll_pwq" };
	long before[2];

	failslab_begin(20, false);
	module_need();
	slabs_now(slabs, before, 2);
	NEED(before[0] >= 0 && before[1] >= 0);
	add_all(false);
	add_all(true);
	failslab_end();
	CHECK(slabs_back(slabs, before, 2, SLACK, 20));
}
