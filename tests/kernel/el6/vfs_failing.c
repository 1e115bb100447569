// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest: seconds=150 variants=stock-debug,patched-debug
 *
 * Allocations fail on purpose while sockets, pipes and anonymous files are
 * made: every way out of their creation is walked, nothing is left behind and
 * nothing is freed twice (the debug kernel watches).
 */
#include "failslab.h"
#include "files.h"

static void tries(const struct kind *kind, long *made, long *failed)
{
	int fds[2], i, count, fail_me;

	fail_me = open("/proc/self/make-it-fail", O_WRONLY);
	NEED(fail_me >= 0);
	NEED_EQ(write(fail_me, "1", 1), 1);
	for (i = 0; i < 500; i++) {
		count = kind->make(fds);
		if (!count) {
			++*failed;
			continue;
		}
		++*made;
		while (count--)
			close(fds[count]);
	}
	/* This may be made to fail as well. */
	while (pwrite(fail_me, "0", 1, 0) != 1)
		;
	close(fail_me);
}

TEST_WITHIN(creation_may_fail_anywhere, 120)
{
	long made, failed, inodes_before, dentries_before;
	int i;

	failslab_begin(15, false);
	drop_caches();
	inodes_before = inodes();
	dentries_before = dentries();
	for (i = 0; i < KINDS; i++) {
		made = failed = 0;
		tries(&kinds[i], &made, &failed);
		NOTE("%s: %ld made, %ld failed", kinds[i].name, made, failed);
		CHECK(made > 0);
		CHECK(failed > 0);
	}
	failslab_end();
	CHECK(WAIT_FOR(({
		drop_caches();
		inodes() <= inodes_before + 40;
	}), 20));
	CHECK(WAIT_FOR(dentries() <= dentries_before + 40, 20));
	CHECK(inodes() >= inodes_before - 40);
	CHECK(dentries() >= dentries_before - 40);
	NOTE("inodes %ld, then %ld; dentries %ld, then %ld", inodes_before,
	     inodes(), dentries_before, dentries());
}
