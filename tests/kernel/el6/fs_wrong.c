// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest: cpus=4 modules=fastsocket variants=patched,patched-debug
 *
 * What users get wrong, and limits that are reached: more workers than the cores
 * they may run on, sets of cores with holes, no descriptor left, a port that is
 * in use, a module loaded with parameters that mean nothing.
 */
#include "fastsocket.h"
#include "module.h"

#include <sys/resource.h>

/* A worker that may run on some cores, by a mask. */
static void restricted(int fd, int name, unsigned long mask,
		       struct shared *shared)
{
	int before = shared->ready;
	pid_t child = fork();

	NEED(child >= 0);
	if (!child) {
		NEED(!syscall(SYS_sched_setaffinity, 0, sizeof(mask), &mask));
		serve_by_epoll(fd, name, shared);
	}
	NEED(WAIT_FOR(shared->ready > before, 10));
}

TEST(a_worker_stays_within_a_set_with_a_hole)
{
	struct shared *shared = share();
	int fd, i;

	begin(2);
	fd = listener();
	spawn(fd);
	restricted(fd, 1, 0xa, shared);
	restricted(fd, 2, 0xa, shared);
	CHECK_EQ((1 << shared->bound[1]) | (1 << shared->bound[2]), 0xa);
	/* Both cores of its set are taken, though others are free. */
	restricted(fd, 3, 0xa, shared);
	CHECK_EQ(shared->bound[3], -1);
	CHECK_EQ(clones(port_of(fd)), 2);
	restricted(fd, 4, 0x5, shared);
	restricted(fd, 5, 0x5, shared);
	CHECK_EQ((1 << shared->bound[4]) | (1 << shared->bound[5]), 0x5);
	for (i = 0; i < 4; i++)
		CHECK(served_by(AF_INET, port_of(fd), i) > 0);
}

TEST(mode_1_wants_one_core_not_a_set)
{
	struct shared *shared = share();
	int fd;

	begin(1);
	fd = listener();
	spawn(fd);
	restricted(fd, 1, 0xa, shared);
	CHECK_EQ(clones(port_of(fd)), 0);
	restricted(fd, 2, 0x8, shared);
	CHECK_EQ(clones(port_of(fd)), 1);
	CHECK_EQ(served_by(AF_INET, port_of(fd), 3), 2);
}

/* Four may share a core; each of the rest takes from the queue of all. */
TEST(far_more_workers_than_cores_are_all_served)
{
	enum { MANY = 24 };
	struct shared *shared = share();
	int fd, i, cpu;

	begin(1);
	fd = listener();
	spawn(fd);
	for (i = 0; i < MANY; i++)
		worker(fd, i + 1, i % 4, shared, serve_by_epoll);
	CHECK_EQ(clones(port_of(fd)), 4);
	CHECK_EQ(stat_of(MODULE_STAT, ALL_CPUS, SPAWNED), 16);
	CHECK(stat_of(MODULE_STAT, ALL_CPUS, SURPLUS_SEEN) >= MANY - 16);
	for (i = 0; i < 20; i++)
		for (cpu = 0; cpu < 4; cpu++)
			CHECK(served_by(AF_INET, port_of(fd), cpu) > 0);
}

/* What cannot be accepted for want of a descriptor waits for one. */
TEST(without_a_descriptor_nothing_is_lost)
{
	struct fsocket_ioctl_arg arg = {
		.op.socket = { AF_INET, SOCK_STREAM, 0 },
	};
	int fd, channel, one, other, i;
	struct rlimit files, none;

	begin(1);
	pin(0);
	fd = listener();
	NEED(fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
	channel = device();
	one = connect_to(AF_INET, port_of(fd));
	NEED(one >= 0);
	NEED(!getrlimit(RLIMIT_NOFILE, &files));
	none = files;
	none.rlim_cur = 1;
	NEED(!setrlimit(RLIMIT_NOFILE, &none));
	CHECK(ioctl(channel, FSOCKET_IOC_SOCKET, &arg) < 0 && errno == EMFILE);
	/* To be an owner takes no descriptor. */
	memset(&arg, 0, sizeof(arg));
	arg.fd = fd;
	arg.op.spawn.cpu = FSOCKET_CPU_ANY;
	CHECK_EQ(ioctl(channel, FSOCKET_IOC_SPAWN_LISTEN, &arg), 0);
	memset(&arg.op, 0, sizeof(arg.op));
	for (i = 0; i < 5; i++) {
		CHECK(ioctl(channel, FSOCKET_IOC_ACCEPT, &arg) < 0);
		CHECK_EQ(errno, EMFILE);
	}
	NEED(!setrlimit(RLIMIT_NOFILE, &files));
	other = ioctl(channel, FSOCKET_IOC_ACCEPT, &arg);
	CHECK(other >= 0);
	CHECK(ioctl(channel, FSOCKET_IOC_ACCEPT, &arg) < 0 && errno == EAGAIN);
	CHECK_EQ(clones(port_of(fd)), 1);
	/* The same with a connection in the clone. */
	drop(one);
	one = connect_to(AF_INET, port_of(fd));
	NEED(one >= 0);
	NEED(!setrlimit(RLIMIT_NOFILE, &none));
	CHECK(ioctl(channel, FSOCKET_IOC_ACCEPT, &arg) < 0 && errno == EMFILE);
	NEED(!setrlimit(RLIMIT_NOFILE, &files));
	CHECK(ioctl(channel, FSOCKET_IOC_ACCEPT, &arg) >= 0);
}

/* A clone holds its port as its listening socket does, and no longer. */
TEST(a_port_in_use_is_refused_and_free_again)
{
	int fd, port, other = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	union address address;
	socklen_t length;

	begin(1);
	pin(0);
	fd = listener();
	port = port_of(fd);
	NEED(fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
	spawn(fd);
	CHECK(accept(fd, NULL, NULL) < 0 && errno == EAGAIN);
	CHECK_EQ(clones(port), 1);
	length = loopback(&address, AF_INET, port);
	CHECK(bind(other, &address.any, length) < 0 && errno == EADDRINUSE);
	NEED(!setsockopt(other, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)));
	CHECK(bind(other, &address.any, length) < 0 && errno == EADDRINUSE);
	close(fd);
	CHECK_EQ(bind(other, &address.any, length), 0);
	CHECK_EQ(listen(other, 5), 0);
}

TEST(loads_with_modes_there_are_only)
{
	static const char *const refused[] = {
		"enable_listen_spawn=3", "enable_listen_spawn=-1",
		"enable_listen_spawn=two", "enable_listen_spawn=",
		"enable_listen_spawn=99999999999999999999",
		"enable_listen_spawn", "enable_fastsocket_debug=loud",
	};
	unsigned int i;

	NEED(WAIT_FOR(module_unload(), 10));
	for (i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		CHECK(!module_load(refused[i]));
		NOTE("%s: %s", refused[i], strerror(errno));
		CHECK(!module_loaded());
		CHECK(access(HASH_STAT, F_OK) < 0);
	}
	/* As everywhere in this kernel; a newer one would ignore it. */
	CHECK(!module_load("enable_miracles=1") && errno == ENOENT);
	CHECK(module_load("enable_listen_spawn=1"));
	CHECK_EQ(ktap_read_number(SPAWN_MODE), 1);
	CHECK(!ktap_write(SPAWN_MODE, "99999999999999999999"));
	CHECK(!ktap_write(SPAWN_MODE, "two"));
	CHECK_EQ(ktap_read_number(SPAWN_MODE), 1);
}

/*
 * Through the device a program may close the device: what is left of the call
 * is still the module's.
 */
TEST(the_device_closes_itself)
{
	struct fsocket_ioctl_arg arg;
	int i;

	for (i = 0; i < 100; i++) {
		arg.fd = device();
		CHECK_EQ(ioctl(arg.fd, FSOCKET_IOC_CLOSE, &arg), 0);
		CHECK(fcntl(arg.fd, F_GETFD) < 0 && errno == EBADF);
	}
	CHECK(WAIT_FOR(module_unload(), 10));
	CHECK(module_load(""));
}
