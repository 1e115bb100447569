// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest: seconds=240 modules=fastsocket variants=patched,patched-debug
 *
 * Loading and unloading, what is left behind, and CPUs that go.
 */
#include "fastsocket.h"

static const char *const slabs[] = {
	"TCP", "TCPv6", "request_sock_TCP", "tcp_bind_bucket",
	"sock_inode_cache", "dentry", "filp",
};

#define SLABS	((int)(sizeof(slabs) / sizeof(slabs[0])))
#define SLACK	400

static long in_use(const char *name)
{
	static char text[65536];
	char *line = ktap_read("/proc/slabinfo", text, sizeof(text));
	long used;

	for (; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, name, strlen(name)) &&
		    sscanf(line + strlen(name), " %ld", &used) == 1)
			return used;
	}
	return 0;
}

static bool unload(void)
{
	return syscall(SYS_delete_module, "fastsocket", O_NONBLOCK) == 0;
}

static bool load(void)
{
	static char image[1 << 20];
	int fd = open("/modules/fastsocket.ko", O_RDONLY);
	ssize_t length = read(fd, image, sizeof(image));

	close(fd);
	return syscall(SYS_init_module, image, length, "") == 0;
}

/* TCP sockets, bound ports and memory, as the kernel counts them. */
static void sockstat(long *inuse, long *orphans)
{
	char text[1024], *line;

	line = strstr(ktap_read("/proc/net/sockstat", text, sizeof(text)),
		      "TCP:");
	NEED(line != NULL);
	NEED_EQ(sscanf(line, "TCP: inuse %ld orphan %ld", inuse, orphans), 2);
}

TEST(unloading_is_refused_while_in_use)
{
	struct shared *shared = share();
	int fd, channel;
	pid_t owner;

	begin(1);
	channel = device();
	CHECK(!unload() && errno == EAGAIN);
	close(channel);
	fd = listener();
	spawn(fd);
	CHECK(!unload() && errno == EAGAIN);
	owner = worker(fd, 1, 0, shared, serve_by_epoll);
	CHECK(!unload());
	end(owner);
	CHECK(!unload());
}

TEST(it_goes_and_comes_back)
{
	int i;

	for (i = 0; i < 5; i++) {
		NEED(WAIT_FOR(unload(), 10));
		CHECK(access(DEVICE, F_OK) < 0);
		CHECK(access(HASH_STAT, F_OK) < 0);
		CHECK(access(MODULE, F_OK) < 0);
		NEED(load());
		CHECK(WAIT_FOR(access(DEVICE, F_OK) == 0, 10));
		CHECK(access(HASH_STAT, F_OK) == 0);
	}
	begin(2);
	CHECK_EQ(hash_stat(ALL_CPUS, LOCAL_LOOKUP), 0);
}

/* Everything that connections and clones took comes back. */
TEST_WITHIN(a_hundred_thousand_connections_leave_nothing, 200)
{
	struct shared *shared = share();
	long before[SLABS], inuse, orphans, inuse_after, orphans_after;
	int fd, i, cpu, rounds = ktap_rounds(50000);
	pid_t workers[2], clients[2];

	begin(1);
	if (access("/proc/slabinfo", R_OK) < 0)
		SKIP("no /proc/slabinfo");
	for (i = 0; i < SLABS; i++)
		before[i] = in_use(slabs[i]);
	sockstat(&inuse, &orphans);
	fd = listener();
	spawn(fd);
	for (cpu = 0; cpu < 2; cpu++)
		workers[cpu] = worker(fd, cpu + 1, cpu, shared, serve_by_epoll);
	for (cpu = 0; cpu < 2; cpu++) {
		clients[cpu] = fork();
		if (!clients[cpu]) {
			for (i = 0; i < rounds; i++)
				if (served_by(AF_INET, port_of(fd), cpu) < 0)
					_exit(1);
			_exit(0);
		}
	}
	for (cpu = 0; cpu < 2; cpu++)
		CHECK(ktap_child_fine(clients[cpu]));
	CHECK(hash_stat(ALL_CPUS, LOCAL_ACCEPT) >= 2 * rounds * 9 / 10);
	NOTE("%ld of %d from the own core", hash_stat(ALL_CPUS, LOCAL_ACCEPT),
	     2 * rounds);
	for (cpu = 0; cpu < 2; cpu++)
		end(workers[cpu]);
	close(fd);
	for (i = 0; i < SLABS; i++) {
		CHECK(WAIT_FOR(in_use(slabs[i]) <= before[i] + SLACK, 20));
		NOTE("%s: %ld before, %ld after", slabs[i], before[i],
		     in_use(slabs[i]));
	}
	sockstat(&inuse_after, &orphans_after);
	CHECK_EQ(inuse_after, inuse);
	CHECK_EQ(orphans_after, orphans);
	CHECK(WAIT_FOR(unload(), 10));
	CHECK(load());
}

/* An owner whose CPU goes serves on, and what comes finds it. */
TEST(a_cpu_goes_and_comes_back)
{
	static const char path[] = "/sys/devices/system/cpu/cpu1/online";
	struct shared *shared = share();
	int fd, i, one;

	begin(1);
	fd = listener();
	spawn(fd);
	worker(fd, 1, 1, shared, serve_by_epoll);
	CHECK_EQ(served_by(AF_INET, port_of(fd), 1), 1);
	pin(1);
	one = connect_to(AF_INET, port_of(fd));
	NEED(one >= 0);
	pin(0);
	if (!ktap_write(path, "0"))
		SKIP("CPU 1 stays");
	CHECK(answer_on(one) == 1);
	for (i = 0; i < 5; i++)
		CHECK_EQ(served_by(AF_INET, port_of(fd), 0), 1);
	NEED(ktap_write(path, "1"));
	for (i = 0; i < 5; i++)
		CHECK_EQ(served_by(AF_INET, port_of(fd), 1), 1);
}
