// SPDX-License-Identifier: GPL-2.0-only
/*
 * Threads that add, change, delete and close the same files and sets at the
 * same time. Whatever the order, the answers are those of some order, and what
 * is in the sets in the end is what was put there.
 *
 * guest: modules=fastsocket cpus=4 seconds=240
 */
#include "sets.h"

#include <pthread.h>
#include <sched.h>

#define THREADS	4

struct thread {
	pthread_t id;
	unsigned int seed;
	void (*work)(struct thread *self);
};

static volatile bool stop;
static volatile int changes;

static unsigned int random_of(struct thread *self, unsigned int below)
{
	return (rand_r(&self->seed) >> 8) % below;
}

static void *run(void *thread)
{
	struct thread *self = thread;

	while (!stop)
		self->work(self);
	return NULL;
}

/*
 * Works side by side until so many changes are made, or for some seconds on a
 * machine that is slow at it; but always some.
 */
static void side_by_side(void (*const *work)(struct thread *), int count,
			 int enough)
{
	double until = ktap_now() + 8;
	struct thread threads[8];
	int i, last = 0;

	stop = false;
	changes = 0;
	for (i = 0; i < count; i++) {
		threads[i].seed = i * 7919 + 1;
		threads[i].work = work[i];
		NEED(!pthread_create(&threads[i].id, NULL, run, &threads[i]));
	}
	while (changes < enough && (ktap_now() < until || changes < 100)) {
		usleep(10 * 1000);
		/* the switch, where there is one, changes nothing */
		if (!access(FAST_SWITCH, W_OK))
			ktap_write(FAST_SWITCH, last++ % 4 ? "1" : "0");
	}
	stop = true;
	for (i = 0; i < count; i++)
		pthread_join(threads[i].id, NULL);
	if (!access(FAST_SWITCH, W_OK))
		NEED(ktap_write(FAST_SWITCH, "1"));
	NOTE("%d changes", changes);
}

/*
 * Files are replaced under their numbers. fget() of 2.6.32 may see the old one
 * just when it is gone: there is no such descriptor for a moment, in stock too.
 */
static bool replaced;

static void did(int error, int one, int other)
{
	NEED(!error || error == one || error == other ||
	     (replaced && ktap_target_is("el6") && error == EBADF));
	__sync_fetch_and_add(&changes, 1);
}

#define SETS	3
#define FILES	4

static int sets[SETS], fds[FILES], others[FILES];

static void any_change(struct thread *self)
{
	int set = sets[random_of(self, SETS)];
	int file = random_of(self, FILES);

	switch (random_of(self, 4)) {
	case 0:
	case 1:
		did(add(set, fds[file], file), EEXIST, 0);
		break;
	case 2:
		did(delete(set, fds[file]), ENOENT, 0);
		break;
	default:
		did(modify(set, fds[file], file), ENOENT, 0);
	}
}

static void look(struct thread *self)
{
	struct epoll_event events[FILES];
	int count, i;

	count = epoll_wait(sets[random_of(self, SETS)], events, FILES, 0);
	NEED(count >= 0);
	for (i = 0; i < count; i++)
		NEED(events[i].data.u64 < FILES);
}

/* Empty, then full: the sets and the files agree. */
static void check_sets(void)
{
	int set, file, count;

	for (set = 0; set < SETS; set++) {
		count = ready(sets[set], NULL);
		for (file = 0; file < FILES; file++)
			count -= delete(sets[set], fds[file]) == 0;
		CHECK_EQ(count, 0);
		CHECK_EQ(ready(sets[set], NULL), 0);
		for (file = 0; file < FILES; file++)
			CHECK_EQ(add(sets[set], fds[file], file), 0);
		CHECK_EQ(ready(sets[set], NULL), FILES);
	}
}

static void open_all(void)
{
	int i;

	for (i = 0; i < SETS; i++)
		sets[i] = new_set();
	for (i = 0; i < FILES; i++)
		fds[i] = readable(&others[i]);
}

TEST_WITHIN(same_files_and_sets_from_all_sides, 60)
{
	static void (*const work[])(struct thread *) = {
		any_change, any_change, any_change, look,
	};

	module_need();
	open_all();
	side_by_side(work, THREADS, 200000);
	check_sets();
}

/* A number may be another file by the time it is used. */
static void reopen(struct thread *self)
{
	int file = random_of(self, FILES), other, fd = readable(&other);

	/* in one step, so that nobody else gets the number */
	NEED(dup2(fd, fds[file]) == fds[file]);
	close(fd);
	NEED(dup2(other, others[file]) == others[file]);
	close(other);
	__sync_fetch_and_add(&changes, 1);
}

TEST_WITHIN(files_are_closed_meanwhile, 60)
{
	static void (*const work[])(struct thread *) = {
		any_change, any_change, reopen, look,
	};

	module_need();
	replaced = true;
	open_all();
	side_by_side(work, THREADS, 50000);
	check_sets();
}

static void renew_set(struct thread *self)
{
	int which = random_of(self, SETS), set = new_set(), file;

	for (file = 0; file < FILES; file++)
		add(set, fds[file], file);
	NEED(dup2(set, sets[which]) == sets[which]);
	close(set);
	__sync_fetch_and_add(&changes, 1);
}

TEST_WITHIN(files_and_sets_are_closed_meanwhile, 60)
{
	static void (*const work[])(struct thread *) = {
		any_change, renew_set, reopen, reopen,
	};

	module_need();
	replaced = true;
	open_all();
	side_by_side(work, THREADS, 50000);
	check_sets();
}

/* The first set goes into an outer one and leaves it, all the time. */
static int outer;

static void nest(struct thread *self)
{
	int set = sets[0];

	(void)self;
	did(add(outer, set, 100), EEXIST, 0);
	ready(outer, NULL);
	did(delete(outer, set), ENOENT, 0);
}

static void renew_outer(struct thread *self)
{
	int set = new_set();

	did(add(set, sets[random_of(self, SETS)], 100), 0, 0);
	NEED(dup2(set, outer) == outer);
	close(set);
}

TEST_WITHIN(sets_are_nested_meanwhile, 60)
{
	static void (*const work[])(struct thread *) = {
		any_change, any_change, reopen, nest, renew_outer,
	};

	module_need();
	replaced = true;
	open_all();
	outer = new_set();
	side_by_side(work, 5, 50000);
	check_sets();
}

/* New sets each time, so that one is nested for the first time over and over. */
static void renew_and_nest(struct thread *self)
{
	int which = random_of(self, SETS), set = new_set();

	NEED(dup2(set, sets[which]) == sets[which]);
	did(add(outer, sets[which], 100), EEXIST, 0);
	close(set);
}

TEST_WITHIN(new_sets_are_nested_while_files_come, 60)
{
	static void (*const work[])(struct thread *) = {
		any_change, any_change, reopen, renew_and_nest, renew_outer,
	};

	module_need();
	replaced = true;
	open_all();
	outer = new_set();
	side_by_side(work, 5, 50000);
	check_sets();
}

/*
 * Two threads of which one closes all files and the other all sets, from the
 * same moment on.
 */
#define BOTH	8

static int both_sets[BOTH], both_fds[BOTH];
static volatile int go_round;
static volatile int closed;

static void *close_sets(void *unused)
{
	int round, i;

	(void)unused;
	for (round = 1; ; round++) {
		while (go_round < round)
			sched_yield();
		if (stop)
			return NULL;
		for (i = 0; i < BOTH; i++)
			close(both_sets[i]);
		__sync_fetch_and_add(&closed, 1);
	}
}

TEST_WITHIN(files_and_sets_end_at_the_same_time, 60)
{
	int round, i, j, rounds = ktap_rounds(3000), others_too[BOTH];
	double until = ktap_now() + 10;
	pthread_t closer;

	module_need();
	stop = false;
	NEED(!pthread_create(&closer, NULL, close_sets, NULL));
	for (round = 1; round <= rounds && ktap_now() < until; round++) {
		for (i = 0; i < BOTH; i++) {
			both_sets[i] = new_set();
			both_fds[i] = readable(&others_too[i]);
		}
		for (i = 0; i < BOTH; i++)
			for (j = 0; j < BOTH; j++)
				NEED_EQ(add(both_sets[i], both_fds[j], j), 0);
		closed = 0;
		go_round = round;
		for (i = 0; i < BOTH; i++)
			close(both_fds[BOTH - 1 - i]);
		while (!closed)
			sched_yield();
		for (i = 0; i < BOTH; i++)
			close(others_too[i]);
	}
	NOTE("%d rounds", round - 1);
	CHECK(round > 10);
	stop = true;
	go_round = round;
	pthread_join(closer, NULL);
}

/* Re-armed one-shot events of many bytes: none is lost, none comes twice. */
static int pipe_ends[2], one_shot_set;
static volatile int got;

static void take_one(struct thread *self)
{
	struct epoll_event event;
	char byte;

	(void)self;
	if (epoll_wait(one_shot_set, &event, 1, 50) != 1)
		return;
	/* who was told has the file to itself until it re-arms */
	NEED_EQ(read(pipe_ends[0], &byte, 1), 1);
	__sync_fetch_and_add(&got, 1);
	NEED_EQ(control(one_shot_set, EPOLL_CTL_MOD, pipe_ends[0],
			EPOLLIN | EPOLLONESHOT, 1), 0);
	__sync_fetch_and_add(&changes, 1);
}

static volatile int sent;

static void send_one(struct thread *self)
{
	(void)self;
	if (sent - got > 100) {
		sched_yield();
		return;
	}
	NEED_EQ(write(pipe_ends[1], "x", 1), 1);
	sent++;
}

TEST_WITHIN(one_shots_are_neither_lost_nor_doubled, 60)
{
	static void (*const work[])(struct thread *) = {
		take_one, take_one, take_one, send_one,
	};
	struct epoll_event event;

	module_need();
	NEED(pipe(pipe_ends) == 0);
	NEED(fcntl(pipe_ends[0], F_SETFL, O_NONBLOCK) == 0);
	one_shot_set = new_set();
	NEED_EQ(control(one_shot_set, EPOLL_CTL_ADD, pipe_ends[0],
			EPOLLIN | EPOLLONESHOT, 1), 0);
	side_by_side(work, THREADS, 20000);
	while (got < sent) {
		char byte;

		NEED_EQ(epoll_wait(one_shot_set, &event, 1, 5000), 1);
		NEED_EQ(read(pipe_ends[0], &byte, 1), 1);
		got++;
		NEED_EQ(control(one_shot_set, EPOLL_CTL_MOD, pipe_ends[0],
				EPOLLIN | EPOLLONESHOT, 1), 0);
	}
	CHECK_EQ(got, sent);
	CHECK_EQ(ready(one_shot_set, NULL), 0);
}
