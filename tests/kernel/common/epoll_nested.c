// SPDX-License-Identifier: GPL-2.0-only
/*
 * Epoll sets in epoll sets: no set may come to be in itself, chains are short,
 * and events reach the outermost set.
 *
 * guest: modules=fastsocket
 */
#include "sets.h"

#include <sched.h>

TEST(no_set_is_in_itself)
{
	int a, b, c;

	module_need();
	a = new_set();
	b = new_set();
	c = new_set();
	CHECK_EQ(add(a, a, 0), EINVAL);
	CHECK_EQ(add(a, b, 0), 0);
	CHECK_EQ(add(b, a, 0), ELOOP);
	CHECK_EQ(add(b, c, 0), 0);
	CHECK_EQ(add(c, a, 0), ELOOP);
	CHECK_EQ(add(c, b, 0), ELOOP);
	/* the other way round once the link is cut */
	CHECK_EQ(delete(a, b), 0);
	CHECK_EQ(add(c, a, 0), 0);
	CHECK_EQ(add(a, b, 0), ELOOP);
	close(c);
	CHECK_EQ(add(a, b, 0), 0);
}

/* Two that try to put their sets into each other: at most one succeeds. */
TEST(no_loop_from_two_sides)
{
	volatile int *round;
	int i, a, b, mine, theirs, rounds = ktap_rounds(1000);
	pid_t child;

	module_need();
	round = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	NEED(round != MAP_FAILED);
	a = new_set();
	b = new_set();
	child = fork();
	for (i = 1; i <= rounds; i++) {
		int self = child ? 0 : 1;

		round[self] = i;
		while (round[!self] < i)
			sched_yield();
		mine = child ? add(a, b, 0) : add(b, a, 0);
		NEED(mine == 0 || mine == ELOOP);
		round[2 + self] = mine;
		__sync_synchronize();
		round[4 + self] = i;
		while (round[4 + !self] < i)
			sched_yield();
		theirs = round[2 + !self];
		NEED(mine == 0 || theirs == 0);
		NEED(mine == ELOOP || theirs == ELOOP);
		if (!mine)
			NEED_EQ(child ? delete(a, b) : delete(b, a), 0);
		round[6 + self] = i;
		while (round[6 + !self] < i)
			sched_yield();
	}
	if (!child)
		_exit(0);
	CHECK(ktap_child_fine(child));
}

static int chain(int *sets, int most)
{
	int length;

	sets[0] = new_set();
	for (length = 1; length < most; length++) {
		sets[length] = new_set();
		if (add(sets[length], sets[length - 1], length))
			break;
	}
	return length;
}

TEST(chains_are_short_and_carry_events)
{
	int sets[20], length, i, other, fd = readable(&other);
	char byte;

	module_need();
	length = chain(sets, 20);
	NOTE("%d sets in a row", length);
	if (ktap_target_is("el6"))
		CHECK_EQ(length, 6);
	else
		CHECK(length >= 5 && length <= 7);
	CHECK_EQ(add(sets[length], sets[length - 1], 0), ELOOP);
	close(sets[--length]);
	for (i = 1; i < length; i++)
		CHECK_EQ(ready(sets[i], NULL), 0);
	CHECK_EQ(add(sets[0], fd, 77), 0);
	CHECK(reports(sets[0], 77));
	for (i = 1; i < length; i++)
		CHECK(reports(sets[i], i));
	NEED(read(fd, &byte, 1) == 1);
	for (i = 0; i < length; i++)
		CHECK_EQ(ready(sets[i], NULL), 0);
	NEED(write(other, "x", 1) == 1);
	for (i = length - 1; i > 0; i--)
		CHECK(reports(sets[i], i));
	/* cut in the middle */
	CHECK_EQ(delete(sets[2], sets[1]), 0);
	CHECK(reports(sets[1], 1));
	CHECK_EQ(ready(sets[2], NULL), 0);
	CHECK_EQ(ready(sets[length - 1], NULL), 0);
	close(fd);
	CHECK_EQ(ready(sets[1], NULL), 0);
}

/* Files come to a set and leave it while it is in another and afterwards. */
TEST(changes_in_an_inner_set)
{
	int inner, outer, i, fd, other;

	module_need();
	inner = new_set();
	outer = new_set();
	for (i = 0; i < 4; i++) {
		fd = readable(&other);
		CHECK_EQ(add(inner, fd, 1), 0);
		CHECK_EQ(add(outer, inner, 10), 0);
		CHECK(reports(outer, 10));
		CHECK_EQ(add(outer, inner, 10), EEXIST);
		CHECK_EQ(modify(outer, inner, 11), 0);
		CHECK(reports(outer, 11));
		CHECK_EQ(modify(inner, fd, 2), 0);
		CHECK(reports(inner, 2));
		switch (i) {
		case 0:
			CHECK_EQ(delete(inner, fd), 0);
			CHECK_EQ(ready(outer, NULL), 0);
			CHECK_EQ(add(inner, fd, 3), 0);
			CHECK(reports(outer, 11));
			CHECK_EQ(delete(outer, inner), 0);
			break;
		case 1:
			close(fd);
			CHECK_EQ(ready(outer, NULL), 0);
			CHECK_EQ(delete(outer, inner), 0);
			break;
		case 2:
			close(outer);
			outer = new_set();
			CHECK(reports(inner, 2));
			break;
		default:
			close(inner);
			CHECK_EQ(ready(outer, NULL), 0);
			inner = new_set();
		}
		if (i != 1)
			close(fd);
		close(other);
	}
}
