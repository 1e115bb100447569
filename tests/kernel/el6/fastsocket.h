/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests of fastsocket.ko share: the device, the counters, and servers
 * whose workers say who they are. A loopback packet is received on the CPU that
 * sent it, so a client chooses the core by being bound to it.
 */
#ifndef FASTSOCKET_H
#define FASTSOCKET_H

#include "../../../modules/fastsocket/fastsocket_abi.h"
#include "ktap.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define DEVICE		"/dev/fastsocket"
#define MODULE		"/sys/module/fastsocket"
#define SPAWN_MODE	MODULE "/parameters/enable_listen_spawn"
#define HASH_STAT	"/proc/net/hash_stat"
#define MODULE_STAT	"/proc/net/fsocket_stats"

/* Columns of HASH_STAT after the CPU. A handshake looks up twice: SYN, ACK. */
enum { LOCAL_LOOKUP, GLOBAL_LOOKUP, COMMON_ACCEPT, LOCAL_ACCEPT, REMOTE_ACCEPT,
       GLOBAL_ACCEPT, COLUMNS };
/* Columns of MODULE_STAT after the CPU. */
enum { CALLS, SPAWN_CALLS, SPAWNED, BOUND, SURPLUS_SEEN, FAILED };

#define ALL_CPUS	(-1)

/* A column of a table of counters: of one CPU, or the sum of all. */
static inline long stat_of(const char *path, int cpu, int column)
{
	char text[4096], *line;
	long values[COLUMNS], sum = 0;
	int row;

	ktap_read(path, text, sizeof(text));
	NEED(*text);
	for (line = text; (line = strchr(line, '\n')) && *++line; ) {
		NEED_EQ(sscanf(line, "%d %ld %ld %ld %ld %ld %ld", &row,
			       &values[0], &values[1], &values[2], &values[3],
			       &values[4], &values[5]), COLUMNS + 1);
		if (cpu == ALL_CPUS || cpu == row)
			sum += values[column];
	}
	return sum;
}

static inline long hash_stat(int cpu, int column)
{
	return stat_of(HASH_STAT, cpu, column);
}

static inline void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	NEED(sched_setaffinity(0, sizeof(set), &set) == 0);
}

/* CPUs that the machine has, those that are offline too: sysconf() has not. */
static inline int cpus_there(void)
{
	char path[64];
	int cpu = 0;

	do {
		snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d",
			 ++cpu);
	} while (!access(path, F_OK));
	return cpu;
}

/* Whether a CPU is, or could be made to be, online or not. */
static inline bool set_online(int cpu, bool on)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/online",
		 cpu);
	return ktap_read_number(path) == on || ktap_write(path, on ? "1" : "0");
}

static inline int bound_to(void)
{
	cpu_set_t set;
	int cpu;

	NEED(sched_getaffinity(0, sizeof(set), &set) == 0);
	if (CPU_COUNT(&set) != 1)
		return -1;
	for (cpu = 0; !CPU_ISSET(cpu, &set); cpu++)
		;
	return cpu;
}

static inline int device(void)
{
	int fd = open(DEVICE, O_RDWR | O_CLOEXEC);

	NEED(fd >= 0);
	return fd;
}

/* 0 or the error of SPAWN_LISTEN */
static inline int try_spawn(int fd, int cpu)
{
	struct fsocket_ioctl_arg arg = { .fd = fd, .op.spawn.cpu = cpu };
	int channel = device();
	int error = ioctl(channel, FSOCKET_IOC_SPAWN_LISTEN, &arg) < 0 ?
		errno : 0;

	close(channel);
	return error;
}

static inline void spawn(int fd)
{
	NEED_EQ(try_spawn(fd, FSOCKET_CPU_ANY), 0);
}

/* Begin a test: counters at zero, the mode as wanted. */
static inline void begin(int mode)
{
	char text[4];

	snprintf(text, sizeof(text), "%d", mode);
	NEED(ktap_write(SPAWN_MODE, text));
	NEED(ktap_write(HASH_STAT, "0"));
	NEED(ktap_write(MODULE_STAT, "0"));
}

union address {
	struct sockaddr any;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

static inline socklen_t loopback(union address *address, int family, int port)
{
	memset(address, 0, sizeof(*address));
	address->any.sa_family = family;
	address->in.sin_port = htons(port);	/* the same place in both */
	if (family == AF_INET6) {
		address->in6.sin6_addr = in6addr_loopback;
		return sizeof(address->in6);
	}
	address->in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return sizeof(address->in);
}

static inline int port_of(int fd)
{
	union address address;
	socklen_t length = sizeof(address);

	NEED(getsockname(fd, &address.any, &length) == 0);
	return ntohs(address.in.sin_port);
}

/* A listening socket of a port of the kernel's choice. */
static inline int listener_of(int family, int backlog)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
	union address address;
	socklen_t length = loopback(&address, family, 0);

	NEED(fd >= 0);
	NEED(!setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)));
	NEED(bind(fd, &address.any, length) == 0);
	NEED(listen(fd, backlog) == 0);
	return fd;
}

static inline int listener(void)
{
	return listener_of(AF_INET, 128);
}

/* A listener with a clone on CPU 0, where the test is bound from now on. */
static inline int with_clone(int family, int backlog)
{
	int fd;

	begin(1);
	pin(0);
	fd = listener_of(family, backlog);
	NEED(fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
	spawn(fd);
	NEED(accept(fd, NULL, NULL) < 0 && errno == EAGAIN);
	return fd;
}

static inline int connect_to(int family, int port)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	union address address;
	socklen_t length = loopback(&address, family, port);

	NEED(fd >= 0);
	if (connect(fd, &address.any, length) == 0)
		return fd;
	NOTE("connect: %s", strerror(errno));
	close(fd);
	return -1;
}

/* Close without TIME-WAIT: ports do not run out. */
static inline void drop(int fd)
{
	struct linger linger = { .l_onoff = 1 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	close(fd);
}

/* The name that the server's worker says, -1 if the connection broke. */
static inline int answer_on(int fd)
{
	struct pollfd readable = { .fd = fd, .events = POLLIN };
	char name = -1;

	if (poll(&readable, 1, 1000 * ktap_scaled(10)) == 1 &&
	    read(fd, &name, 1) != 1)
		name = -1;
	drop(fd);
	return name;
}

/*
 * Collect the answers of many connections in the order they come, and end each
 * so that its worker sees it, though others may have the descriptor. Returns
 * how many got one, and whose in names.
 */
static inline int answers_on(const int *fds, int *names, int count)
{
	struct pollfd watched[64];
	int i, got = 0, left = count;
	char name;

	NEED(count <= 64);
	for (i = 0; i < count; i++) {
		watched[i].fd = fds[i];
		watched[i].events = POLLIN;
	}
	while (left && poll(watched, count, 1000 * ktap_scaled(10)) > 0) {
		for (i = 0; i < count; i++) {
			if (!watched[i].revents)
				continue;
			if (read(fds[i], &name, 1) == 1) {
				if (names)
					names[i] = name;
				got++;
			}
			shutdown(fds[i], SHUT_RDWR);
			drop(fds[i]);
			watched[i].fd = -1;
			watched[i].revents = 0;
			left--;
		}
	}
	return got;
}

/* The worker that serves a connection which comes in on a CPU. */
static inline int served_by(int family, int port, int cpu)
{
	int fd;

	pin(cpu);
	fd = connect_to(family, port);
	return fd < 0 ? -1 : answer_on(fd);
}

/* Take a connection and say a name. False when there is none. */
static inline bool serve_one(int fd, int name)
{
	char byte = name;
	int one = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

	if (one < 0)
		return false;
	if (write(one, &byte, 1) != 1)
		NOTE("worker %d: %s", name, strerror(errno));
	/* The client closes first, so that nothing is lost. */
	while (read(one, &byte, 1) > 0)
		;
	close(one);
	return true;
}

/* What a test and its workers share. */
struct shared {
	volatile int ready, bound[64], go;
	volatile long served[64];
};

static inline struct shared *share(void)
{
	struct shared *shared = mmap(NULL, sizeof(*shared),
				     PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	NEED(shared != MAP_FAILED);
	return shared;
}

/* Wait for connections by epoll and serve them, for ever. */
static inline void serve_by_epoll(int fd, int name, struct shared *shared)
{
	struct epoll_event event = { .events = EPOLLIN };
	int set = epoll_create1(EPOLL_CLOEXEC);

	NEED(fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
	NEED(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0);
	shared->bound[name] = bound_to();
	__sync_fetch_and_add(&shared->ready, 1);
	for (;;) {
		if (epoll_wait(set, &event, 1, -1) == 1)
			while (serve_one(fd, name))
				shared->served[name]++;
	}
}

static inline void serve_by_accept(int fd, int name, struct shared *shared)
{
	shared->bound[name] = -1;
	__sync_fetch_and_add(&shared->ready, 1);
	while (serve_one(fd, name))
		shared->served[name]++;
}

/* A worker: bound to a CPU, or to none with -1. */
static inline pid_t worker(int fd, int name, int cpu, struct shared *shared,
			   void (*serve)(int, int, struct shared *))
{
	int before = shared->ready;
	pid_t child = fork();

	NEED(child >= 0);
	if (!child) {
		if (cpu >= 0)
			pin(cpu);
		serve(fd, name, shared);
		_exit(1);
	}
	NEED(WAIT_FOR(shared->ready > before, 10));
	return child;
}

static inline void end(pid_t child)
{
	int status;

	NEED(kill(child, SIGKILL) == 0);
	NEED(waitpid(child, &status, 0) == child);
}

/* Send a descriptor over a UNIX socket, or receive one, with -1. */
static inline int sent_fd(int channel, int fd)
{
	char byte = 0, space[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec data = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1,
		.msg_control = space, .msg_controllen = sizeof(space),
	};
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);

	if (fd < 0) {
		NEED(recvmsg(channel, &message, 0) == 1);
		return *(int *)CMSG_DATA(CMSG_FIRSTHDR(&message));
	}
	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(head), &fd, sizeof(int));
	NEED(sendmsg(channel, &message, 0) == 1);
	return fd;
}

/* How many sockets listen on a port, as a table of /proc shows them. */
static inline int listening(const char *table, int port)
{
	static char text[65536];
	char *line = ktap_read(table, text, sizeof(text));
	unsigned int local, state;
	int found = 0;

	for (; (line = strchr(line, '\n')) && *++line; ) {
		if (sscanf(line, " %*d: %*[0-9A-F]:%x %*[0-9A-F]:%*x %x",
			   &local, &state) == 2)
			found += local == (unsigned int)port && state == 0x0a;
	}
	return found;
}

static inline int clones(int port)
{
	return listening("/proc/self/net/tcp", port) - 1;
}

#endif
