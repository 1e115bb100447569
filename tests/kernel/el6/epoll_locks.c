// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest: modules=fastsocket seconds=240 variants=stock-debug,patched-debug
 *
 * How often epmutex, one for all epoll sets of the machine, is taken, by the
 * kernel's own count (/proc/lock_stat): with fast epoll not at all, without it
 * as often as on stock, or the count counts nothing.
 */
#include "sets.h"

#define LOCK_STAT	"/proc/lock_stat"

static int resetter = -1;

/* Acquisitions of a lock since the reset; one that nobody took has no line. */
static long taken(const char *name)
{
	static char text[1 << 20];
	char *line, *colon;
	long count = 0;

	ktap_read(LOCK_STAT, text, sizeof(text));
	NEED(strlen(text) < sizeof(text) - 1);
	NEED(strstr(text, "&dentry->d_lock:") != NULL);
	for (line = text; line; line = strchr(line, '\n')) {
		line += strspn(line, " \n");
		colon = strchr(line, ':');
		if (!colon || (size_t)(colon - line) != strlen(name) ||
		    strncmp(line, name, strlen(name)))
			continue;
		NEED_EQ(sscanf(colon + 1, "%*s %*s %*s %*s %*s %*s %ld",
			       &count), 1);
		break;
	}
	return count;
}

static void begin(void)
{
	if (access(LOCK_STAT, R_OK))
		SKIP("no lock_stat in this kernel");
	ktap_write("/proc/sys/kernel/lock_stat", "1");
	module_need();
	resetter = open(LOCK_STAT, O_WRONLY);
	NEED(resetter >= 0);
}

/*
 * What a server does with a connection: accept it, watch it, change its mind,
 * and close it, with or without a word to the set.
 */
static void connections(int count)
{
	int set = new_set(), port, listener = listen_any(&port), i, fd, client;
	char byte;

	NEED_EQ(add(set, listener, 0), 0);
	for (i = 0; i < count; i++) {
		client = connect_to(port);
		CHECK(reports(set, 0));
		fd = accept(listener, NULL, NULL);
		NEED_EQ(add(set, fd, 1), 0);
		NEED(write(client, "x", 1) == 1);
		CHECK(reports(set, 1));
		NEED_EQ(control(set, EPOLL_CTL_MOD, fd, EPOLLOUT, 2), 0);
		CHECK(reports(set, 2));
		NEED(read(fd, &byte, 1) == 1);
		if (i % 2)
			NEED_EQ(delete(set, fd), 0);
		close(fd);
		close(client);
	}
	close(set);
	close(listener);
}

static long epmutex_for(int count)
{
	long locks;

	NEED(write(resetter, "0", 1) == 1);
	connections(count);
	locks = taken("epmutex");
	NOTE("%d connections: epmutex %ld, &ep->mtx %ld, nested calls' lock %ld",
	     count, locks, taken("&ep->mtx"), taken("&ncalls->lock"));
	return locks;
}

TEST_WITHIN(connections_take_no_epmutex, 200)
{
	enum { COUNT = 300 };

	begin();
	if (ktap_patched()) {
		CHECK_EQ(epmutex_for(COUNT), 0);
		NEED(ktap_write(FAST_SWITCH, "0"));
	}
	/* once to come, once to go; the listener comes, the set is closed */
	CHECK_EQ(epmutex_for(COUNT), 2 * COUNT + 2);
	if (ktap_patched()) {
		NEED(module_unload());
		CHECK_EQ(epmutex_for(COUNT), 2 * COUNT + 2);
	}
}
