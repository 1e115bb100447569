// SPDX-License-Identifier: GPL-2.0-only
/*
 * Fast epoll: its switch, and its counters, which tell that changes really are
 * made without the lock that all sets share, and without a search.
 *
 * guest: modules=fastsocket variants=patched,patched-debug
 */
#include "sets.h"

#define STAT	"/proc/net/epoll_stat"

struct counts {
	long local, global, by_file, by_tree;
};

static struct counts counted(void)
{
	struct counts sum = { 0 }, row;
	char text[16384], *line;

	ktap_read(STAT, text, sizeof(text));
	for (line = text; (line = strchr(line, '\n')) && *++line; ) {
		NEED_EQ(sscanf(line, "%*d %ld %ld %ld %ld", &row.local,
			       &row.global, &row.by_file, &row.by_tree), 4);
		sum.local += row.local;
		sum.global += row.global;
		sum.by_file += row.by_file;
		sum.by_tree += row.by_tree;
	}
	return sum;
}

static void begin(void)
{
	module_need();
	NEED(ktap_write(FAST_SWITCH, "1"));
	NEED(ktap_write(STAT, "0"));
}

#define CHECK_COUNTS(local_, global_, by_file_, by_tree_)		\
	do {								\
		struct counts now = counted();				\
									\
		CHECK_EQ(now.local, local_);				\
		CHECK_EQ(now.global, global_);				\
		CHECK_EQ(now.by_file, by_file_);			\
		CHECK_EQ(now.by_tree, by_tree_);			\
		NEED(ktap_write(STAT, "0"));				\
	} while (0)

TEST(on_unless_told_otherwise)
{
	if (module_loaded())
		NEED(module_unload());
	NEED(module_load(""));
	CHECK_EQ(ktap_read_number(FAST_SWITCH), 1);
	NEED(module_unload());
	NEED(module_load("enable_fast_epoll=0"));
	CHECK_EQ(ktap_read_number(FAST_SWITCH), 0);
	NEED(module_unload());
	CHECK(!module_load("enable_fast_epoll=2") && errno == EINVAL);
	CHECK(!module_loaded());
}

TEST(switch_takes_0_and_1_only)
{
	begin();
	CHECK(!ktap_write(FAST_SWITCH, "2") && errno == EINVAL);
	CHECK(!ktap_write(FAST_SWITCH, "-1") && errno == EINVAL);
	CHECK(!ktap_write(FAST_SWITCH, "no") && errno == EINVAL);
	CHECK_EQ(ktap_read_number(FAST_SWITCH), 1);
	NEED(ktap_write(FAST_SWITCH, "0"));
	CHECK_EQ(ktap_read_number(FAST_SWITCH), 0);
}

TEST(counters_have_the_agreed_form)
{
	char text[16384];

	begin();
	ktap_read(STAT, text, sizeof(text));
	CHECK(!strcmp(strtok(text, " \n"), "CPU"));
	CHECK(!strcmp(strtok(NULL, " \n"), "Ctl_local"));
	CHECK(!strcmp(strtok(NULL, " \n"), "Ctl_global"));
	CHECK(!strcmp(strtok(NULL, " \n"), "Find_by_file"));
	CHECK(!strcmp(strtok(NULL, " \n"), "Find_by_tree"));
	CHECK(!strcmp(strtok(NULL, " \n"), "0"));
}

TEST(a_plain_file_needs_no_global_lock_and_no_search)
{
	int set, other, fd, i;

	begin();
	set = new_set();
	for (i = 0; i < 100; i++) {
		fd = readable(&other);
		NEED_EQ(add(set, fd, 1), 0);
		NEED_EQ(modify(set, fd, 2), 0);
		if (i % 2)
			NEED_EQ(delete(set, fd), 0);
		close(fd);	/* leaves the set itself if it was not told to */
		close(other);
	}
	CHECK_COUNTS(300, 0, 250, 0);
}

TEST(off_means_off)
{
	int set, other, fd;

	begin();
	NEED(ktap_write(FAST_SWITCH, "0"));
	set = new_set();
	fd = readable(&other);
	NEED_EQ(add(set, fd, 1), 0);
	NEED_EQ(modify(set, fd, 2), 0);
	NEED_EQ(delete(set, fd), 0);
	NEED_EQ(add(set, fd, 1), 0);
	close(fd);
	CHECK_COUNTS(0, 0, 0, 0);
}

TEST(sets_in_sets_take_the_global_lock)
{
	int inner, outer, other, fd, plain;

	begin();
	inner = new_set();
	outer = new_set();
	fd = readable(&other);
	NEED_EQ(add(inner, fd, 1), 0);
	CHECK_COUNTS(1, 0, 1, 0);
	NEED_EQ(add(outer, inner, 1), 0);
	CHECK_COUNTS(0, 1, 1, 0);
	/* the inner one from now on */
	NEED_EQ(delete(inner, fd), 0);
	NEED_EQ(add(inner, fd, 1), 0);
	close(fd);
	CHECK_COUNTS(0, 3, 2, 0);
	/* but not the outer one, for a plain file */
	plain = readable(&other);
	NEED_EQ(add(outer, plain, 1), 0);
	NEED_EQ(delete(outer, plain), 0);
	CHECK_COUNTS(2, 0, 2, 0);
	NEED_EQ(delete(outer, inner), 0);
	CHECK_COUNTS(0, 1, 1, 0);
	/* it was nested once, that stays */
	NEED_EQ(add(inner, plain, 1), 0);
	CHECK_COUNTS(0, 1, 1, 0);
}

TEST(a_file_of_very_many_sets_is_searched_for)
{
	int sets[10], other, fd, i;

	begin();
	fd = readable(&other);
	for (i = 0; i < 10; i++) {
		sets[i] = new_set();
		NEED_EQ(add(sets[i], fd, i), 0);
	}
	/* the list was read to its end, as long as it was shorter than 8 */
	CHECK_COUNTS(10, 0, 8, 2);
	NEED_EQ(modify(sets[0], fd, 100), 0);
	NEED_EQ(modify(sets[7], fd, 100), 0);
	CHECK_COUNTS(2, 0, 2, 0);
	NEED_EQ(modify(sets[8], fd, 100), 0);
	NEED_EQ(modify(sets[9], fd, 100), 0);
	CHECK_COUNTS(2, 0, 0, 2);
}

TEST(unloading_switches_off)
{
	int set, other, fd;

	begin();
	NEED(module_unload());
	set = new_set();
	fd = readable(&other);
	NEED_EQ(add(set, fd, 1), 0);
	NEED_EQ(delete(set, fd), 0);
	NEED(module_load("enable_fast_epoll=0"));
	CHECK_COUNTS(0, 0, 0, 0);
	NEED(ktap_write(FAST_SWITCH, "1"));
	NEED_EQ(add(set, fd, 1), 0);
	CHECK_COUNTS(1, 0, 1, 0);
}
