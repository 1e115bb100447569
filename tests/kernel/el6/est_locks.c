// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest: modules=fastsocket seconds=240 variants=patched-debug
 *
 * How often the locks of the tables of established connections are taken, by
 * the kernel's own count (/proc/lock_stat): those that all cores share not at
 * all while connections stand in their cores' tables, or the count counts
 * nothing; and those of a core by that core only.
 */
#include "est.h"

#define LOCK_STAT	"/proc/lock_stat"
#define SHARED		"&hashinfo->ehash_locks[i]"
#define OWN		"&est->lock[i]"
#define SHARED_ROW	"tcp_death_row.death_lock"
#define OWN_ROW		"&row->death_lock"

struct lock {
	long contentions, bounces, taken;
};

static int resetter = -1;

static void reset(void)
{
	NEED(write(resetter, "0", 1) == 1);
}

/*
 * "  NAME:  con-bounces contentions min max total acq-bounces acquisitions"
 * since the reset. A lock that nobody took has no line.
 */
static struct lock lock_named(const char *name)
{
	static char text[1 << 20];
	struct lock found = { 0, 0, 0 };
	char *line, *colon;

	ktap_read(LOCK_STAT, text, sizeof(text));
	NEED(strlen(text) < sizeof(text) - 1);
	NEED(strstr(text, "&dentry->d_lock:") != NULL);
	for (line = text; line; line = strchr(line, '\n')) {
		line += strspn(line, " \n");
		colon = strchr(line, ':');
		if (!colon || (size_t)(colon - line) != strlen(name) ||
		    strncmp(line, name, strlen(name)))
			continue;
		NEED_EQ(sscanf(colon + 1, "%*s %ld %*s %*s %*s %ld %ld",
			       &found.contentions, &found.bounces,
			       &found.taken), 3);
		break;
	}
	NOTE("%s: %ld taken, %ld after another CPU, %ld contended", name,
	     found.taken, found.bounces, found.contentions);
	return found;
}

/* Connections that live on one CPU, on each in turn. */
static void connections(int count, bool time_wait)
{
	int listening = listener(), client, server, i;

	for (i = 0; i < count; i++) {
		pin(i % 2);
		client = connect_to(AF_INET, port_of(listening));
		NEED(client >= 0);
		server = taken_from(listening);
		NEED(says(client, server));
		if (time_wait) {
			close_in_order(server, client);
		} else {
			drop(client);
			close(server);
		}
	}
	close(listening);
}

TEST_WITHIN(cores_share_no_lock, 120)
{
	enum { COUNT = 400 };
	struct lock lock;

	if (access(LOCK_STAT, R_OK))
		SKIP("no lock_stat in this kernel");
	ktap_write("/proc/sys/kernel/lock_stat", "1");
	resetter = open(LOCK_STAT, O_WRONLY);
	NEED(resetter >= 0);

	est_begin(0, 1);
	reset();
	connections(COUNT, false);
	CHECK(lock_named(SHARED).taken >= 4 * COUNT);
	CHECK_EQ(lock_named(OWN).taken, 0);

	/* The first time a lock comes to its core from where it was made. */
	set_switch(EST_SWITCH, 1);
	connections(COUNT, false);
	reset();
	connections(COUNT, false);
	CHECK_EQ(lock_named(SHARED).taken, 0);
	lock = lock_named(OWN);
	CHECK(lock.taken >= 4 * COUNT);
	CHECK_EQ(lock.contentions, 0);
	CHECK_EQ(lock.bounces, 0);

	/* And TIME-WAIT. */
	connections(COUNT, true);
	reset();
	connections(COUNT, true);
	CHECK_EQ(lock_named(SHARED).taken, 0);
	/* Only by a timer, for what was there before. */
	CHECK(lock_named(SHARED_ROW).taken < COUNT / 10);
	lock = lock_named(OWN_ROW);
	CHECK(lock.taken >= COUNT);
	CHECK_EQ(lock.contentions, 0);
	CHECK_EQ(lock.bounces, 0);
}
