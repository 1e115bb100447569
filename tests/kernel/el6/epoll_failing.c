// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest: modules=fastsocket seconds=150 variants=stock-debug,patched-debug
 *
 * Allocations fail on purpose while files are added to epoll sets: what fails
 * leaves nothing behind, and works the next time.
 */
#include "failslab.h"
#include "sets.h"

/* Objects of a slab that are in use. */
static long in_use(const char *name)
{
	static char text[65536];
	char *line;
	long used = -1;

	ktap_read("/proc/slabinfo", text, sizeof(text));
	line = strstr(text, name);
	if (line)
		sscanf(line + strlen(name), "%ld", &used);
	return used;
}

/* Each CPU keeps some freed objects for itself, which count as used. */
#define SLACK	200

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
	long items, hooks;

	module_need();
	items = in_use("eventpoll_epi");
	hooks = in_use("eventpoll_pwq");
	NEED(items >= 0 && hooks >= 0);
	failslab(20);
	add_all(false);
	add_all(true);
	failslab(0);
	CHECK(WAIT_FOR(in_use("eventpoll_epi") <= items + SLACK, 20));
	CHECK(WAIT_FOR(in_use("eventpoll_pwq") <= hooks + SLACK, 20));
	NOTE("items %ld, then %ld; hooks %ld, then %ld", items,
	     in_use("eventpoll_epi"), hooks, in_use("eventpoll_pwq"));
}
