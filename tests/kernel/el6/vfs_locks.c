// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest: seconds=420 variants=stock-debug,patched-debug
 *
 * How often inode_lock and dcache_lock are taken by sockets, pipes and
 * anonymous files, from create to close, by the kernel's own count
 * (/proc/lock_stat). With the fast path: not at all. Stock must show several
 * a connection, or the count counts nothing.
 */
#include "files.h"

#include <sched.h>

#define LOCK_STAT	"/proc/lock_stat"
#define STOCK_LEAST	2	/* acquisitions a file that stock needs */

struct lock {
	long contentions, acquisitions;
};

struct locks {
	struct lock inode, dcache;
};

static int resetter = -1;	/* open all the time: resetting takes no lock */
static struct locks own;	/* what reading the counts costs */
static char text[1 << 20];

static void reset(void)
{
	NEED(write(resetter, "0", 1) == 1);
}

/*
 * "  NAME:  con-bounces contentions min max total acq-bounces acquisitions".
 * A lock that nobody took has no line.
 */
static struct lock lock_named(const char *name)
{
	struct lock found = { 0, 0 };
	char *line, *colon;
	size_t length;

	for (line = text; line; line = strchr(line, '\n')) {
		line += strspn(line, " \n");
		colon = strchr(line, ':');
		length = strlen(name);
		if (!colon || (size_t)(colon - line) != length ||
		    strncmp(line, name, length))
			continue;
		NEED_EQ(sscanf(colon + 1, "%*s %ld %*s %*s %*s %*s %ld",
			       &found.contentions, &found.acquisitions), 2);
		break;
	}
	return found;
}

/* What was taken since the reset. The picture is taken when it is opened. */
static struct locks taken(void)
{
	struct locks locks;

	ktap_read(LOCK_STAT, text, sizeof(text));
	NEED(strlen(text) < sizeof(text) - 1);
	/* The lookup of this very file takes it, which proves that it counts. */
	NEED(strstr(text, "&dentry->d_lock:") != NULL);
	locks.inode = lock_named("inode_lock");
	locks.dcache = lock_named("dcache_lock");
	locks.inode.acquisitions -= own.inode.acquisitions;
	locks.dcache.acquisitions -= own.dcache.acquisitions;
	return locks;
}

/* Start counting; everything that needs a path lookup is done before. */
static void begin(void)
{
	int i;

	if (access(LOCK_STAT, R_OK))
		SKIP("no lock_stat in this kernel");
	ktap_write("/proc/sys/kernel/lock_stat", "1");
	/* Nobody else shall take inode_lock meanwhile. */
	NEED(ktap_write("/proc/sys/vm/dirty_writeback_centisecs", "0"));
	sync();
	resetter = open(LOCK_STAT, O_WRONLY);
	NEED(resetter >= 0);
	/* The first time fills caches. */
	for (i = 0; i < 3; i++) {
		memset(&own, 0, sizeof(own));
		reset();
		own = taken();
	}
	NOTE("to read the counts: inode_lock %ld, dcache_lock %ld",
	     own.inode.acquisitions, own.dcache.acquisitions);
}

static void judge(const char *what, long count, struct locks locks)
{
	NOTE("%ld %s: inode_lock %ld taken %ld contended, dcache_lock %ld taken %ld contended",
	     count, what, locks.inode.acquisitions, locks.inode.contentions,
	     locks.dcache.acquisitions, locks.dcache.contentions);
	if (ktap_patched()) {
		/* One in a thousand would be somebody else. */
		CHECK(locks.inode.acquisitions * 1000 <= count);
		CHECK(locks.dcache.acquisitions * 1000 <= count);
		CHECK_EQ(locks.inode.contentions, 0);
		CHECK_EQ(locks.dcache.contentions, 0);
	} else {
		CHECK(locks.dcache.acquisitions >= STOCK_LEAST * count);
	}
}

static void count_kind(int kind, long count)
{
	struct locks locks;
	int fds[2], i, used;

	reset();
	for (i = 0; i < count; i++) {
		used = kinds[kind].make(fds);
		while (used--)
			close(fds[used]);
	}
	locks = taken();
	judge(kinds[kind].name, count, locks);
	/* Anonymous files share an inode for ever, so take no inode_lock. */
	if (!ktap_patched() && !kinds[kind].anonymous)
		CHECK(locks.inode.acquisitions >= STOCK_LEAST * count);
}

TEST_WITHIN(every_kind_alone, 60)
{
	int i;

	begin();
	for (i = 0; i < KINDS; i++) {
		/* It has an inode and a dentry for all, made once. */
		if (!strcmp(kinds[i].name, "inotify"))
			continue;
		count_kind(i, 1000);
	}
}

/* What the processes of the bench share; they only spin and yield on it. */
struct bench {
	volatile int ready, done, go;
	volatile int port[8];
};

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	NEED_EQ(sched_setaffinity(0, sizeof(set), &set), 0);
}

static void wait_for_go(struct bench *bench)
{
	__sync_fetch_and_add(&bench->ready, 1);
	while (!bench->go)
		sched_yield();
}

/* Stays until the count is read: its end would be counted too. */
static void stay(struct bench *bench)
{
	__sync_fetch_and_add(&bench->done, 1);
	for (;;)
		pause();
}

static void serve(struct bench *bench, int cpu, int connections)
{
	int port, listener = listen_any(&port), fd;
	char byte[64];

	pin(cpu);
	bench->port[cpu] = port;
	wait_for_go(bench);
	while (connections--) {
		fd = accept(listener, NULL, NULL);
		NEED(fd >= 0);
		NEED(read(fd, byte, sizeof(byte)) == 64);
		NEED(write(fd, byte, sizeof(byte)) == 64);
		close(fd);
	}
	stay(bench);
}

static void ask(struct bench *bench, int cpu, int connections)
{
	char byte[64] = { 0 };
	int fd;

	pin(cpu);
	wait_for_go(bench);
	while (connections--) {
		fd = connect_to(bench->port[cpu]);
		NEED(write(fd, byte, sizeof(byte)) == 64);
		NEED(read(fd, byte, sizeof(byte)) == 64);
		close(fd);
	}
	stay(bench);
}

TEST_WITHIN(twenty_thousand_short_connections, 330)
{
	enum { CONNECTIONS = 20000 };
	int cpus = sysconf(_SC_NPROCESSORS_ONLN), cpu;
	struct locks locks;
	struct bench *bench;
	double took;

	begin();
	bench = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	NEED(bench != MAP_FAILED && cpus <= 8);
	for (cpu = 0; cpu < cpus; cpu++) {
		if (!fork())
			serve(bench, cpu, CONNECTIONS / cpus);
		if (!fork())
			ask(bench, cpu, CONNECTIONS / cpus);
	}
	NEED(WAIT_FOR(bench->ready == 2 * cpus, 20));
	reset();
	took = ktap_now();
	bench->go = 1;
	NEED(WAIT_FOR(bench->done == 2 * cpus, 300));
	took = ktap_now() - took;
	locks = taken();
	NOTE("%d connections on %d CPUs in %.1f s", CONNECTIONS, cpus, took);
	judge("connections", CONNECTIONS, locks);
	if (!ktap_patched())
		CHECK(locks.inode.acquisitions >= STOCK_LEAST * CONNECTIONS);
}
