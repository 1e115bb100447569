// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest: seconds=360 modules=fastsocket variants=patched-debug
 *
 * Each allocation fails in turn where a listening socket is armed, a clone is
 * made or made anew, where the device makes and accepts sockets, and where the
 * module is loaded: the call has an error of its own or none, whoever has no
 * clone is served by the global queue, and nothing is left behind.
 */
#include "failslab.h"
#include "fastsocket.h"
#include "module.h"
#include "slabs.h"

#include <sys/klog.h>

/* Numbers of syslog(2). */
enum { SYSLOG_READ_ALL = 3, SYSLOG_CLEAR = 5 };

/*
 * The one that fails is that which so many bytes of others have gone before:
 * steps no larger than the smallest object come to each, up to where none fails.
 */
enum { STEP = 32, LIMIT = 1 << 17, NONE_FAILED = 3 };

static const char *const slabs[] = {
	"TCP", "TCPv6", "request_sock_TCP", "tcp_bind_bucket",
	"sock_inode_cache", "filp", "size-512", "size-1024", "size-2048",
};

#define SLABS	((int)(sizeof(slabs) / sizeof(slabs[0])))
#define SLACK	30

static int switch_fd = -1;

/* It is open all the time: to write to it allocates nothing. */
static void fail_switch(const char *percent)
{
	ssize_t length = strlen(percent);

	NEED(write(switch_fd, percent, length) == length);
}

/* The next allocation but for so many bytes fails, of whomever. */
static void fail_after(long bytes)
{
	if (switch_fd < 0) {
		failslab_begin(0, true);
		switch_fd = open(FAILSLAB "probability", O_WRONLY | O_CLOEXEC);
		NEED(switch_fd >= 0);
	}
	failslab_set("space", bytes);
	failslab_set("times", 1);
	fail_switch("100");
}

static bool hit;

/* Nothing fails any longer. Whether something did is noted. */
static void fail_no_more(void)
{
	int error = errno;

	fail_switch("0");
	hit = ktap_read_number(FAILSLAB "times") == 0;
	errno = error;
}

/*
 * Call something with each allocation failing in turn. It calls fail_after() and
 * fail_no_more(), and says whether all was well.
 */
static void each_fails(const char *what, int step, bool (*call)(long bytes))
{
	int hits = 0, missed = 0;
	long bytes;

	for (bytes = 0; bytes < LIMIT && missed < NONE_FAILED; bytes += step) {
		if (!CHECK(call(bytes))) {
			NOTE("%s: after %ld bytes", what, bytes);
			break;
		}
		hits += hit;
		missed = hit ? 0 : missed + 1;
	}
	NOTE("%s: failed %d times, up to %ld bytes", what, hits, bytes);
	CHECK(hits > 0);
	CHECK(bytes < LIMIT);
}

/* Only errors that the system calls have in want of memory. */
static bool is_want(int error)
{
	return error == ENOMEM || error == ENOBUFS || error == ENFILE;
}

static int channel;

static long call(int number, struct fsocket_ioctl_arg *arg)
{
	return ioctl(channel, number, arg);
}

static int armed_listener(void)
{
	int fd = listener();

	NEED(fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
	spawn(fd);
	return fd;
}

/* What the socket is for works: a clone is made, a connection is served. */
static bool serves(int fd)
{
	int one = connect_to(AF_INET, port_of(fd)), got;

	if (!CHECK(one >= 0))
		return false;
	got = accept(fd, NULL, NULL);
	/* That came before there was a clone: the next is the clone's. */
	CHECK(got >= 0);
	CHECK(accept(fd, NULL, NULL) < 0 && errno == EAGAIN);
	CHECK_EQ(clones(port_of(fd)), 1);
	drop(one);
	drop(got);
	close(fd);
	return got >= 0;
}

static bool arm(long bytes)
{
	struct fsocket_ioctl_arg arg = { .fd = listener(),
					 .op.spawn.cpu = FSOCKET_CPU_ANY };
	bool fine;

	NEED(fcntl(arg.fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
	fail_after(bytes);
	fine = !call(FSOCKET_IOC_SPAWN_LISTEN, &arg) || errno == ENOMEM;
	fail_no_more();
	spawn(arg.fd);
	return serves(arg.fd) && fine;
}

static bool clone_by_accept(long bytes)
{
	int fd = armed_listener();
	bool fine;

	fail_after(bytes);
	fine = accept(fd, NULL, NULL) < 0 && (errno == EAGAIN || is_want(errno));
	fail_no_more();
	return serves(fd) && fine;
}

/* Whether a set is told of a connection, which is accepted. */
static bool tells(int set, int fd)
{
	int one = connect_to(AF_INET, port_of(fd));
	struct epoll_event event;
	bool fine;

	fine = CHECK_EQ(epoll_wait(set, &event, 1, 10000), 1);
	drop(accept(fd, NULL, NULL));
	drop(one);
	return fine;
}

static bool clone_by_poll(long bytes)
{
	struct epoll_event event = { .events = EPOLLIN };
	int fd = armed_listener(), set = epoll_create1(EPOLL_CLOEXEC);
	bool fine;

	fail_after(bytes);
	fine = !epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) || is_want(errno);
	fail_no_more();
	CHECK(!epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) || errno == EEXIST);
	fine &= tells(set, fd);
	close(set);
	return serves(fd) && fine;
}

/* The clone comes after the set began to wait, which waits for it now. */
static bool wait_for_late_clone(long bytes)
{
	struct epoll_event event = { .events = EPOLLIN };
	int fd = armed_listener(), set = epoll_create1(EPOLL_CLOEXEC), one;
	bool fine;

	NEED(ktap_write(SPAWN_MODE, "0"));
	NEED(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0);
	one = connect_to(AF_INET, port_of(fd));
	NEED_EQ(epoll_wait(set, &event, 1, 10000), 1);
	NEED(ktap_write(SPAWN_MODE, "1"));
	drop(accept(fd, NULL, NULL));
	drop(one);
	NEED_EQ(clones(port_of(fd)), 1);
	fail_after(bytes);
	fine = epoll_wait(set, &event, 1, 0) == 0;
	fail_no_more();
	fine &= tells(set, fd);
	close(set);
	return serves(fd) && fine;
}

/* A connection waits in the clone that is to be made anew. */
static bool renew(long bytes)
{
	int fd = armed_listener(), one, got;
	bool fine;

	CHECK(accept(fd, NULL, NULL) < 0 && errno == EAGAIN);
	NEED_EQ(clones(port_of(fd)), 1);
	one = connect_to(AF_INET, port_of(fd));
	fail_after(bytes);
	fine = !setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 },
			   sizeof(int)) || is_want(errno);
	fail_no_more();
	got = accept(fd, NULL, NULL);
	fine &= CHECK(got >= 0);
	drop(one);
	drop(got);
	return serves(fd) && fine;
}

static bool make_by_device(long bytes)
{
	struct fsocket_ioctl_arg arg = {
		.op.socket = { AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0 },
	};
	int fd;

	fail_after(bytes);
	fd = call(FSOCKET_IOC_SOCKET, &arg);
	fail_no_more();
	if (fd < 0)
		return is_want(errno);
	close(fd);
	return true;
}

/* What could not be accepted is there the next time. */
static bool accept_by_device(long bytes)
{
	struct fsocket_ioctl_arg arg = { .fd = armed_listener() };
	int one, got;
	bool fine;

	CHECK(accept(arg.fd, NULL, NULL) < 0 && errno == EAGAIN);
	one = connect_to(AF_INET, port_of(arg.fd));
	fail_after(bytes);
	got = call(FSOCKET_IOC_ACCEPT, &arg);
	fail_no_more();
	fine = got >= 0 || is_want(errno);
	if (got < 0)
		got = call(FSOCKET_IOC_ACCEPT, &arg);
	fine &= CHECK(got >= 0);
	drop(one);
	drop(got);
	return serves(arg.fd) && fine;
}

/* Whether the kernel said something since its log was cleared. */
static bool said(const char *text)
{
	static char log[65536];
	int length = klogctl(SYSLOG_READ_ALL, log, sizeof(log) - 1);

	NEED(length >= 0);
	log[length] = '\0';
	return strstr(log, text) != NULL;
}

static bool late_failed;

static bool load(long bytes)
{
	bool loaded;
	int error;

	NEED(!klogctl(SYSLOG_CLEAR, NULL, 0));
	fail_after(bytes);
	loaded = module_load("");
	fail_no_more();
	if (loaded)
		return CHECK(WAIT_FOR(module_unload(), 10));
	error = errno;
	late_failed = said("Enable Fast Epoll");
	CHECK(!module_loaded());
	CHECK(access(HASH_STAT, F_OK) < 0);
	CHECK(access(MODULE_STAT, F_OK) < 0);
	CHECK(access("/proc/net/epoll_stat", F_OK) < 0);
	CHECK(access("/proc/net/steer_stat", F_OK) < 0);
	return is_want(error);
}

static void begin_to_fail(void)
{
	module_need();
	begin(1);
	pin(0);
	channel = device();
}

/* A function that walks all of its ways out, and what that leaves. */
static void walk(const char *what, bool (*call)(long bytes))
{
	long before[SLABS];

	begin_to_fail();
	/* What is made once and stays. */
	CHECK(call(LIMIT));
	slabs_now(slabs, before, SLABS);
	each_fails(what, STEP, call);
	CHECK(slabs_back(slabs, before, SLABS, SLACK, 20));
}

TEST_WITHIN(arming, 60)
{
	walk("SPAWN_LISTEN", arm);
}

TEST_WITHIN(a_clone_by_accept, 90)
{
	walk("accept()", clone_by_accept);
	CHECK(stat_of(MODULE_STAT, ALL_CPUS, FAILED) > 0);
}

TEST_WITHIN(a_clone_by_polling, 90)
{
	walk("epoll_ctl()", clone_by_poll);
	CHECK(stat_of(MODULE_STAT, ALL_CPUS, FAILED) > 0);
}

TEST_WITHIN(waiting_for_a_clone_that_came_late, 60)
{
	walk("epoll_wait()", wait_for_late_clone);
}

TEST_WITHIN(a_clone_made_anew, 90)
{
	walk("setsockopt()", renew);
}

TEST_WITHIN(a_socket_by_the_device, 60)
{
	walk("SOCKET", make_by_device);
}

TEST_WITHIN(a_connection_by_the_device, 60)
{
	walk("ACCEPT", accept_by_device);
}

/* A handshake that lacks memory is tried again, and comes to its end. */
TEST_WITHIN(connections_that_come_in, 60)
{
	enum { COUNT = 60, APART = 128 };
	struct shared *shared = share();
	int fd, i, fds[COUNT], made = 0, hits = 0;
	union address address;
	socklen_t length;
	pid_t server;

	begin_to_fail();
	fd = listener();
	spawn(fd);
	server = worker(fd, 1, 0, shared, serve_by_epoll);
	NEED_EQ(clones(port_of(fd)), 1);
	length = loopback(&address, AF_INET, port_of(fd));
	NEED(kill(server, SIGSTOP) == 0);
	for (i = 0; i < COUNT; i++) {
		int one = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

		fail_after(APART * i);
		if (!connect(one, &address.any, length) ||
		    errno == EINPROGRESS)
			fds[made++] = one;
		else if (CHECK(is_want(errno) || errno == EADDRNOTAVAIL))
			close(one);	/* a port could not be bound */
		fail_no_more();
		hits += hit;
	}
	NEED(kill(server, SIGCONT) == 0);
	NOTE("%d connections, failed %d times", made, hits);
	CHECK(hits > 0);
	CHECK(made > COUNT / 2);
	for (i = 0; i < made; i++)
		NEED(fcntl(fds[i], F_SETFL, O_RDWR) == 0);
	CHECK_EQ(answers_on(fds, NULL, made), made);
}

/*
 * Up to the first that fails after fast epoll was switched on. Where the device is
 * made, the last thing done, failing is an oops of this kernel's own:
 * dev_set_drvdata() has no memory, says nothing, and misc_devnode() trusts it.
 * No parameters: lockdep keeps names of a module whose loading failed after them.
 */
TEST_WITHIN(loading_the_module, 90)
{
	int hits = 0;
	long bytes;

	module_need();
	NEED(WAIT_FOR(module_unload(), 10));
	for (bytes = 0; bytes < LIMIT && !late_failed; bytes += 8 * STEP) {
		NEED(load(bytes));
		hits += hit;
	}
	NOTE("init_module(): failed %d times, up to %ld bytes", hits, bytes);
	CHECK(hits > 0);
	CHECK(late_failed);
	CHECK(module_load(""));
	CHECK(WAIT_FOR(access(DEVICE, F_OK) == 0, 10));
	CHECK(access(HASH_STAT, F_OK) == 0);
}
