// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest: cpus=4 seconds=200 modules=fastsocket variants=patched,patched-debug
 *
 * Random calls of the device and of everything around it, as root and as
 * nobody, in processes that fork, start threads and are killed, while CPUs go
 * and come back, switches change and the module is unloaded and loaded. The
 * kernel's own checks are what fails; in the end all that was taken is back.
 *
 * For as long as pytest's --fuzz-seconds says. The seed is printed, and
 * taken from --fuzz-seed: the same seed makes the same calls, but not the same
 * order of those of several processes.
 */
#include "fastsocket.h"
#include "module.h"
#include "slabs.h"

#include <linux/filter.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>

enum {
	SHORT	 = 60,		/* seconds of a run that TIME-WAIT outlasts */
	WORKERS	 = 6,		/* processes of the supervisor; odd ones nobody's */
	TASKS	 = 5,		/* processes and threads of a worker */
	ROUND	 = 6,		/* seconds until all end and the module goes */
	SLOTS	 = 48,		/* descriptors that a process plays with */
	PORTS	 = 16,
	FIRST_PORT = 20000,
	NOBODY	 = 65534,
};

/* What a call is counted as, whether it worked or not. */
enum { DEVICE_CALL, SPAWN_CALL, ACCEPT_CALL, CONNECT_CALL, OTHER_CALL, KINDS };

static const char *const kind_names[KINDS] = {
	"device", "spawn", "accept", "connect", "other",
};

static struct common {
	volatile long calls[KINDS], worked[KINDS], faults;
	volatile int tasks[WORKERS];
	volatile int ports[PORTS];
} *common;

static int cpus, channel[2];
static volatile int *tasks;	/* of the worker that a task belongs to */

/* --- random numbers, each task its own --- */

static __thread uint64_t state;

static uint64_t any(void)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return state * 0x2545f4914f6cdd1dULL;
}

static unsigned int below(unsigned int limit)
{
	return (any() >> 33) % limit;
}

static bool chance(unsigned int percent)
{
	return below(100) < percent;
}

#define ONE_OF(values)	((values)[below(sizeof(values) / sizeof((values)[0]))])

static bool count(int kind, long result)
{
	__sync_fetch_and_add(&common->calls[kind], 1);
	if (result >= 0)
		__sync_fetch_and_add(&common->worked[kind], 1);
	else if (errno == EFAULT)
		__sync_fetch_and_add(&common->faults, 1);
	return result >= 0;
}

/* --- what calls are given --- */

static int slots[SLOTS];	/* of a process: its threads race for them */
static char *low, *edge;	/* below 4 GB; the end of what is mapped */

/* A descriptor, mostly one of ours; never one of the log's. */
static int some_fd(void)
{
	static const int wrong[] = { -1, 70000, 255, 1 << 30, -2147483647 - 1 };

	if (chance(90))
		return slots[below(SLOTS)];
	return chance(50) ? ONE_OF(wrong) : (int)(3 + below(64));
}

/* Keep a descriptor in place of another, which is closed, or not. */
static void keep(int fd)
{
	int *slot = &slots[below(SLOTS)], old = *slot;

	if (fd < 0)
		return;
	*slot = fd;
	if (old > 2 && old != fd && chance(95))
		close(old);
}

/* A place for an argument: good, misaligned, half mapped, none. */
static void *some_place(size_t size)
{
	static const uintptr_t wrong[] = {
		0, 8, 4095, 0x7ffffffff000, 0xffff880000000000,
		0xffffffff81000000, 0xffffffffffffffff, 0x800000000000,
	};

	if (chance(85))
		return low + 64 * below(16);
	if (chance(50))
		return edge - below(size + 1);
	return (void *)ONE_OF(wrong);
}

static bool usable(const void *place)
{
	return (char *)place >= low && (char *)place < low + 4096 - 256;
}

static socklen_t some_address(union address *address)
{
	int port = chance(70) ? common->ports[below(PORTS)] :
				(int)(FIRST_PORT + below(64));
	int family = chance(70) ? AF_INET : AF_INET6;
	socklen_t length;

	if (chance(5))
		port = below(1024);
	length = loopback(address, family, port);
	if (chance(5))
		address->any.sa_family = chance(50) ? AF_UNSPEC : below(45);
	if (chance(20) && family == AF_INET)
		address->in.sin_addr.s_addr = chance(50) ? 0 :
			htonl(0x7f000000 + below(4));
	if (chance(10) && family == AF_INET6)
		memset(&address->in6.sin6_addr, 0, 16);
	return chance(95) ? length : below(128);
}

/* A core: one there is, choose one, or none there is. */
static int some_cpu(void)
{
	static const int wrong[] = { -2, 4096, 64, 63, 1 << 30 };

	if (chance(60))
		return FSOCKET_CPU_ANY;
	return chance(80) ? (int)below(cpus) : ONE_OF(wrong);
}

static int some_backlog(void)
{
	static const int backlogs[] = { 0, 1, 2, 5, 16, 128, 70000, -1 };

	return ONE_OF(backlogs);
}

/* --- the device --- */

/* ioctl() as a 32-bit program calls it: number 54 of int 0x80. */
static long ioctl_of_32_bits(int fd, unsigned int number, void *pointer)
{
	int result;

	__asm__ volatile("int $0x80" : "=a" (result)
			 : "a" (54), "b" (fd), "c" (number),
			   "d" ((unsigned int)(uintptr_t)pointer)
			 : "memory", "r8", "r9", "r10", "r11");
	if (result >= 0)
		return result;
	errno = -result;
	return -1;
}

static long device_call(unsigned int number, void *pointer)
{
	static int channel_fd;
	int fd = channel_fd;
	long result;

	/* Its number may be another file by now. */
	if (fd <= 2 || chance(3)) {
		if (fd > 2)
			close(fd);
		channel_fd = fd = open(DEVICE, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			return -1;
	}
	if (chance(5))
		result = ioctl_of_32_bits(fd, number, pointer);
	else
		result = ioctl(fd, number, pointer);
	count(DEVICE_CALL, result);
	if (result < 0 && errno == ENOTTY)
		channel_fd = -1;
	if (chance(5))
		slots[below(SLOTS)] = fd;
	return result;
}

static void device_any(void)
{
	static const unsigned int numbers[] = {
		FSOCKET_IOC_SOCKET, FSOCKET_IOC_LISTEN, FSOCKET_IOC_ACCEPT,
		FSOCKET_IOC_CLOSE, FSOCKET_IOC_SPAWN_LISTEN,
		FSOCKET_IOC_SHUTDOWN_LISTEN, FSOCKET_IOC_SPAWN_ALL_LISTEN,
		FSOCKET_IOC_VERSION,
	};
	unsigned int number = ONE_OF(numbers);
	struct fsocket_ioctl_arg *arg = some_place(sizeof(*arg));
	int i;

	if (chance(10))
		number = _IO(FSOCKET_IOC_MAGIC, below(0x40));
	else if (chance(5))
		number = _IOC(below(4), FSOCKET_IOC_MAGIC, below(256),
			      below(1 << 14));
	else if (chance(2))
		number = below(1 << 16);
	if (usable(arg)) {
		for (i = 0; i < 4; i++)
			((uint64_t *)arg)[i] = any();
		arg->fd = some_fd();
		if (number == FSOCKET_IOC_LISTEN)
			arg->backlog = some_backlog();
		if (number == FSOCKET_IOC_SOCKET && chance(90)) {
			arg->op.socket.family = chance(80) ? AF_INET : below(50);
			arg->op.socket.type = SOCK_NONBLOCK |
				(chance(80) ? SOCK_STREAM : below(12));
			arg->op.socket.protocol = chance(90) ? 0 : below(260);
		}
		if (number == FSOCKET_IOC_ACCEPT) {
			arg->op.accept.sockaddr = some_place(28);
			arg->op.accept.length = some_place(4);
			if (chance(90))
				arg->op.accept.flags = SOCK_NONBLOCK *
					below(2) | SOCK_CLOEXEC * below(2);
		}
		if (number == FSOCKET_IOC_SPAWN_LISTEN ||
		    number == FSOCKET_IOC_SPAWN_ALL_LISTEN)
			arg->op.spawn.cpu = some_cpu();
		if (number == FSOCKET_IOC_SHUTDOWN_LISTEN)
			arg->op.shutdown.how = (int)below(5) - 1;
		if (number == FSOCKET_IOC_CLOSE && (int)arg->fd >= 0 &&
		    arg->fd <= 2)
			arg->fd = -1;
	} else if (number == FSOCKET_IOC_CLOSE) {
		return;		/* might be of the log's */
	}
	i = device_call(number, arg);
	if (number == FSOCKET_IOC_SOCKET || number == FSOCKET_IOC_ACCEPT)
		keep(i);
}

static void spawn_some(int fd)
{
	struct fsocket_ioctl_arg arg = { .fd = fd, .op.spawn.cpu = some_cpu() };

	count(SPAWN_CALL, device_call(chance(90) ?
			FSOCKET_IOC_SPAWN_LISTEN :
			FSOCKET_IOC_SPAWN_ALL_LISTEN, &arg));
}

/* --- sockets --- */

static int nonblocking(void)
{
	return chance(95) ? SOCK_NONBLOCK : 0;
}

static void make_socket(void)
{
	int family = chance(50) ? AF_INET : AF_INET6, fds[2];

	switch (below(8)) {
	case 0:
		keep(socket(below(46), below(12) | SOCK_NONBLOCK, 0));
		break;
	case 1:
		keep(socket(family, SOCK_DGRAM | SOCK_NONBLOCK, 0));
		break;
	case 2:
		if (!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds)) {
			keep(fds[0]);
			keep(fds[1]);
		}
		break;
	case 3:
		if (!pipe2(fds, O_NONBLOCK)) {
			keep(fds[0]);
			keep(fds[1]);
		}
		break;
	case 4:
		keep(open("/tmp", O_RDONLY));
		break;
	default:
		keep(socket(family, SOCK_STREAM | nonblocking(), 0));
	}
}

/* A listening socket that others may connect to, mostly armed. */
static void make_listener(void)
{
	int fd = socket(chance(70) ? AF_INET : AF_INET6,
			SOCK_STREAM | nonblocking(), 0), one = 1;
	union address address;
	socklen_t length = sizeof(address);

	if (fd < 0)
		return;
	if (chance(80))
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (chance(60)) {
		length = some_address(&address);
		bind(fd, &address.any, length);
	}
	if (!count(OTHER_CALL, listen(fd, some_backlog()))) {
		close(fd);
		return;
	}
	length = sizeof(address);
	if (!getsockname(fd, &address.any, &length))
		common->ports[below(PORTS)] = ntohs(address.in.sin_port);
	if (chance(90))
		spawn_some(fd);
	keep(fd);
}

static void accept_some(void)
{
	int fd = some_fd(), i, got;

	for (i = 0; i < 4; i++) {
		struct pollfd is = { .fd = fd, .events = POLLIN };

		/* What would block is done now and then, and killed. */
		if (chance(98) && poll(&is, 1, 0) != 1)
			return;
		got = accept4(fd, some_place(28), some_place(4),
			      nonblocking() | (chance(1) ? any() : 0));
		if (!count(ACCEPT_CALL, got))
			return;
		keep(got);
	}
}

static void connect_some(void)
{
	int fd, i, some = 1 + below(4);
	union address address;
	socklen_t length;

	for (i = 0; i < some; i++) {
		length = some_address(&address);
		fd = chance(80) ? socket(address.any.sa_family, SOCK_STREAM |
					 SOCK_NONBLOCK, 0) : some_fd();
		if (!count(CONNECT_CALL, connect(fd, &address.any, length)) &&
		    errno == EINPROGRESS)
			__sync_fetch_and_add(&common->worked[CONNECT_CALL], 1);
		keep(fd);
	}
}

static void move_data(void)
{
	static __thread char data[4096];
	union address address;
	size_t length = below(sizeof(data));
	int fd = some_fd();

	switch (below(5)) {
	case 0:
		send(fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL);
		break;
	case 1:
		recv(fd, data, length, MSG_DONTWAIT);
		break;
	case 2:
		recv(fd, some_place(64), 64, MSG_DONTWAIT | MSG_PEEK);
		break;
	case 3:
		length = some_address(&address);
		sendto(fd, data, below(512), MSG_DONTWAIT | MSG_NOSIGNAL,
		       &address.any, length);
		break;
	default:
		shutdown(fd, (int)below(5) - 1);
	}
}

static void set_option(void)
{
	static const struct { int level, name; } options[] = {
		{ SOL_SOCKET, SO_REUSEADDR }, { SOL_SOCKET, 15 /* REUSEPORT */ },
		{ SOL_SOCKET, SO_KEEPALIVE }, { SOL_SOCKET, SO_LINGER },
		{ SOL_SOCKET, SO_SNDBUF }, { SOL_SOCKET, SO_RCVBUF },
		{ SOL_SOCKET, SO_RCVTIMEO }, { SOL_SOCKET, SO_TIMESTAMP },
		{ SOL_SOCKET, SO_PRIORITY }, { SOL_SOCKET, SO_RCVLOWAT },
		{ SOL_SOCKET, SO_BINDTODEVICE }, { SOL_SOCKET, SO_MARK },
		{ SOL_SOCKET, SO_TIMESTAMPING }, { SOL_SOCKET, SO_DETACH_FILTER },
		{ IPPROTO_TCP, TCP_NODELAY }, { IPPROTO_TCP, TCP_CORK },
		{ IPPROTO_TCP, TCP_MAXSEG }, { IPPROTO_TCP, TCP_DEFER_ACCEPT },
		{ IPPROTO_TCP, TCP_WINDOW_CLAMP }, { IPPROTO_TCP, TCP_SYNCNT },
		{ IPPROTO_TCP, TCP_KEEPIDLE }, { IPPROTO_TCP, TCP_CONGESTION },
		{ IPPROTO_TCP, TCP_LINGER2 }, { IPPROTO_TCP, TCP_QUICKACK },
		{ IPPROTO_IP, IP_TOS }, { IPPROTO_IP, IP_TTL },
		{ IPPROTO_IP, IP_OPTIONS }, { IPPROTO_IP, IP_RECVERR },
		{ IPPROTO_IP, IP_MTU_DISCOVER }, { IPPROTO_IP, IP_FREEBIND },
		{ IPPROTO_IP, IP_TRANSPARENT }, { IPPROTO_IP, 21 /* MINTTL */ },
		{ IPPROTO_IPV6, IPV6_V6ONLY }, { IPPROTO_IPV6, IPV6_RTHDR },
		{ IPPROTO_IPV6, IPV6_HOPOPTS }, { IPPROTO_IPV6, IPV6_TCLASS },
		{ IPPROTO_IPV6, IPV6_ADDRFORM }, { IPPROTO_IPV6, IPV6_RECVPKTINFO },
	};
	static const struct sock_filter all[] = {
		{ BPF_RET | BPF_K, 0, 0, 0xffffffff },
	};
	struct sock_fprog filter = { 1, (struct sock_filter *)all };
	int i = below(sizeof(options) / sizeof(options[0])), fd = some_fd();
	struct {
		struct sockaddr_storage address;
		uint32_t rest[26];
	} md5 = { .rest = { 4 << 16, 0, 0x64636261 } };
	uint32_t value[8];
	socklen_t length = chance(90) ? 4 * (1 + below(2)) : below(32);

	switch (below(12)) {
	case 0:
		setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter,
			   sizeof(filter));
		return;
	case 1:
		some_address((union address *)&md5.address);
		setsockopt(fd, IPPROTO_TCP, 14 /* MD5SIG */, &md5, sizeof(md5));
		return;
	case 2:
		setsockopt(fd, IPPROTO_IP, IP_OPTIONS, "\x01\x01\x01", 4);
		return;
	case 3:
		setsockopt(fd, IPPROTO_IP, IP_OPTIONS, NULL, 0);
		return;
	case 4:
		setsockopt(fd, options[i].level, options[i].name,
			   some_place(length), length);
		return;
	}
	value[0] = chance(60) ? below(2) : below(chance(50) ? 256 : 1 << 17);
	value[1] = below(3);
	count(OTHER_CALL, setsockopt(fd, options[i].level, options[i].name,
				     value, length));
	length = sizeof(value);
	getsockopt(some_fd(), options[i].level, options[i].name, value,
		   &length);
	length = sizeof(value);
	getsockopt(some_fd(), IPPROTO_TCP, TCP_INFO, some_place(8), &length);
}

/* --- descriptors --- */

static void change_descriptors(void)
{
	static const int flags[] = { 0, O_NONBLOCK, O_ASYNC,
				     O_NONBLOCK | O_ASYNC };
	int fd = some_fd(), to = 3 + below(64);

	switch (below(9)) {
	case 0:
		keep(dup(fd));
		break;
	case 1:
		dup2(fd, to);
		slots[below(SLOTS)] = to;
		break;
	case 2:
		keep(fcntl(fd, F_DUPFD_CLOEXEC, to));
		break;
	case 3:
		fcntl(fd, F_SETFL, chance(80) ? O_NONBLOCK : ONE_OF(flags));
		break;
	case 4:
		fcntl(fd, F_SETOWN, getpid());
		fcntl(fd, F_SETSIG, chance(50) ? 0 : SIGUSR2);
		break;
	case 5:
		fcntl(fd, F_SETFD, below(2));
		break;
	case 6:
		count(OTHER_CALL, listen(fd, some_backlog()));
		break;
	default:
		if (fd > 2)
			count(OTHER_CALL, close(fd));
	}
}

/* Over a socket that all workers have: root's end at nobody's and back. */
static void pass_descriptor(void)
{
	char byte = 0, space[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec data = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1,
		.msg_control = space, .msg_controllen = sizeof(space),
	};
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);
	int fd = some_fd(), over = chance(80) ? channel[below(2)] : some_fd();

	if (chance(50)) {
		if (recvmsg(over, &message, MSG_DONTWAIT) < 1)
			return;
		head = CMSG_FIRSTHDR(&message);
		if (head && head->cmsg_type == SCM_RIGHTS) {
			memcpy(&fd, CMSG_DATA(head), sizeof(fd));
			keep(fd);
		}
		return;
	}
	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(head), &fd, sizeof(int));
	count(OTHER_CALL, sendmsg(over, &message, MSG_DONTWAIT | MSG_NOSIGNAL));
}

static void poll_some(void)
{
	struct epoll_event events[8] = {
		{ .events = EPOLLIN | (any() & (EPOLLOUT | EPOLLET |
						EPOLLONESHOT | EPOLLRDHUP)) },
	};
	struct timeval now = { 0 };
	struct pollfd fds[8];
	fd_set set;
	int i, fd;

	switch (below(8)) {
	case 0:
		keep(epoll_create1(chance(50) ? EPOLL_CLOEXEC : 0));
		break;
	case 1:
		for (i = 0; i < 8; i++)
			fds[i] = (struct pollfd){ some_fd(), POLLIN, 0 };
		count(OTHER_CALL, poll(fds, 8, below(3)));
		break;
	case 2:
		FD_ZERO(&set);
		for (i = 0; i < 8; i++) {
			fd = some_fd();
			if (fd >= 0 && fd < 256)
				FD_SET(fd, &set);
		}
		count(OTHER_CALL, select(256, &set, NULL, NULL, &now));
		break;
	case 3:
		epoll_ctl(some_fd(), below(5), some_fd(), some_place(12));
		break;
	case 4:
	case 5:
		count(OTHER_CALL, epoll_ctl(some_fd(), 1 + below(3), some_fd(),
					    events));
		break;
	default:
		count(OTHER_CALL, epoll_wait(some_fd(), events, 8, below(3)));
	}
}

/* A set with everything in it, waited for and served. */
static void serve_a_while(void)
{
	struct epoll_event events[8], event = { .events = EPOLLIN };
	int set = epoll_create1(EPOLL_CLOEXEC), i, found, rounds = below(20);

	for (i = 0; i < SLOTS; i++) {
		event.data.fd = slots[i];
		epoll_ctl(set, EPOLL_CTL_ADD, slots[i], &event);
	}
	while (rounds--) {
		found = epoll_wait(set, events, 8, below(4));
		for (i = 0; i < found; i++) {
			int fd = accept4(events[i].data.fd, NULL, NULL,
					 SOCK_NONBLOCK);

			count(ACCEPT_CALL, fd);
			keep(fd);
		}
		if (!found)
			connect_some();
	}
	keep(set);
}

/* --- tables that everybody may read, and ss --- */

static void read_tables(void)
{
	static const char *const tables[] = {
		HASH_STAT, MODULE_STAT, "/proc/net/steer_stat",
		"/proc/net/epoll_stat", "/proc/net/tcp", "/proc/net/tcp6",
		"/proc/net/sockstat", "/proc/self/net/tcp",
		MODULE "/parameters/enable_fast_epoll",
	};
	struct {
		struct nlmsghdr head;
		struct inet_diag_req request;
	} dump = {
		{ sizeof(dump), TCPDIAG_GETSOCK, NLM_F_REQUEST | NLM_F_ROOT, 1,
		  0 },
		{ .idiag_family = AF_INET, .idiag_states = any() },
	};
	char text[512];
	const char *table = ONE_OF(tables);
	int fd, i;

	if (chance(60)) {
		fd = open(table, chance(90) ? O_RDONLY : O_RDWR);
		for (i = below(20); i && read(fd, text, sizeof(text)) > 0; i--)
			;
		if (chance(10))
			lseek(fd, below(4096), SEEK_SET);
		if (chance(10))
			count(OTHER_CALL, write(fd, text, below(16)));
		if (chance(50))
			keep(fd);
		else if (fd > 2)
			close(fd);
		return;
	}
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK, NETLINK_INET_DIAG);
	if (fd < 0)
		return;
	count(OTHER_CALL, send(fd, &dump, sizeof(dump), 0));
	while (recv(fd, text, sizeof(text), 0) > 0 && chance(90))
		;
	close(fd);
}

/* --- tasks --- */

static void calls(int number);

/* One more task, if there are not too many. */
static bool may_start(void)
{
	if (__sync_add_and_fetch(tasks, 1) <= TASKS)
		return true;
	__sync_fetch_and_sub(tasks, 1);
	return false;
}

static void seed_task(uint64_t number)
{
	state = number * 0x9e3779b97f4a7c15ULL;
	if (!state)
		state = 1;
	any();
}

static void *thread(void *number)
{
	seed_task((uintptr_t)number);
	calls(below(200));
	__sync_fetch_and_sub(tasks, 1);
	return NULL;
}

#define EXECUTED	"FUZZ_EXECUTED=1"

/* Of this program as a task's: it is there to close what exec closes. */
__attribute__((constructor)) static void end_if_executed(void)
{
	if (getenv("FUZZ_EXECUTED"))
		_exit(0);
}

/* The pages are the process's own, its descriptors are not. */
static pid_t fork_with_descriptors(void)
{
	return syscall(SYS_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
}

static void start_task(void)
{
	static pid_t children[8];
	char *words[] = { "again", NULL }, *environment[] = { EXECUTED, NULL };
	pthread_attr_t detached;
	pthread_t id;
	pid_t child, *slot = &children[below(8)];
	uint64_t number = any();
	int i;

	/* The number of one that was reaped may be anybody's. */
	while ((child = waitpid(-1, NULL, WNOHANG)) > 0) {
		for (i = 0; i < 8; i++)
			if (children[i] == child)
				children[i] = 0;
		__sync_fetch_and_sub(tasks, 1);
	}
	if (*slot > 0) {
		kill(*slot, chance(70) ? SIGKILL : chance(50) ? SIGSTOP :
		     SIGUSR1);
		return;
	}
	if (!may_start())
		return;
	if (chance(40)) {
		pthread_attr_init(&detached);
		pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
		if (pthread_create(&id, &detached, thread, (void *)number))
			__sync_fetch_and_sub(tasks, 1);
		return;
	}
	child = chance(30) ? fork_with_descriptors() : fork();
	if (!child) {
		memset(children, 0, sizeof(children));
		seed_task(number);
		calls(below(300));
		if (chance(10))
			execve("/proc/self/exe", words, environment);
		_exit(0);
	}
	if (child < 0)
		__sync_fetch_and_sub(tasks, 1);
	else
		*slot = child;
}

static void change_task(void)
{
	struct rlimit files;
	unsigned long mask;
	int fd;

	switch (below(6)) {
	case 0:
		getrlimit(RLIMIT_NOFILE, &files);
		files.rlim_cur = chance(50) ? files.rlim_max :
					      below(files.rlim_max);
		setrlimit(RLIMIT_NOFILE, &files);
		break;
	case 1:
		if (chance(50)) {
			unshare(CLONE_FILES);
		} else if (chance(10) && !unshare(CLONE_NEWNET)) {
			struct ifreq up = { .ifr_name = "lo",
					    .ifr_flags = IFF_UP };

			fd = socket(AF_INET, SOCK_DGRAM, 0);
			ioctl(fd, SIOCSIFFLAGS, &up);
			keep(fd);
		}
		break;
	case 2:
		syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGUSR1);
		break;
	default:
		/* Sets with holes, cores that are off, none at all. */
		mask = chance(90) ? below(1 << cpus) : any();
		if (chance(40))
			mask = 1UL << below(cpus);
		syscall(SYS_sched_setaffinity, 0, sizeof(mask), &mask);
	}
}

static void calls(int number)
{
	while (number--) {
		switch (below(32)) {
		case 0 ... 3:
			device_any();
			break;
		case 4 ... 7:
			make_listener();
			break;
		case 8 ... 11:
			connect_some();
			break;
		case 12 ... 15:
			accept_some();
			break;
		case 16 ... 17:
			spawn_some(some_fd());
			break;
		case 18 ... 19:
			poll_some();
			break;
		case 20 ... 21:
			set_option();
			break;
		case 22 ... 23:
			change_descriptors();
			break;
		case 24 ... 25:
			move_data();
			break;
		case 26:
			pass_descriptor();
			break;
		case 27:
			change_task();
			break;
		case 28:
			start_task();
			break;
		case 29:
			make_socket();
			break;
		case 30:
			if (chance(20))
				read_tables();
			break;
		default:
			if (chance(20))
				serve_a_while();
		}
	}
}

static void nothing(int number)
{
	(void)number;
}

static void no_memory(const char *what)
{
	NOTE("worker: %s: %s", what, strerror(errno));
	_exit(1);
}

/* A worker of the supervisor's, in a group of its own, until it is killed. */
static void work(int number, uint64_t seed)
{
	/* Whoever waits is interrupted; a system call is not begun again. */
	struct sigaction action = { .sa_handler = nothing };
	struct itimerval often = { { 0, 50000 }, { 0, 50000 } };
	struct rlimit files = { 64, 64 }, memory = { 64 << 20, 64 << 20 };
	int i;

	setpgid(0, 0);
	tasks = &common->tasks[number];
	sigaction(SIGALRM, &action, NULL);
	sigaction(SIGUSR1, &action, NULL);
	sigaction(SIGUSR2, &action, NULL);
	sigaction(SIGIO, &action, NULL);
	setitimer(ITIMER_REAL, &often, NULL);
	setrlimit(RLIMIT_NOFILE, &files);
	setrlimit(RLIMIT_AS, &memory);
	low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE |
		   MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	edge = mmap(NULL, 8192, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (low == MAP_FAILED || edge == MAP_FAILED ||
	    mprotect(edge + 4096, 4096, PROT_NONE))
		no_memory("mmap");
	edge += 4096;
	for (i = 0; i < SLOTS; i++)
		slots[i] = -1;
	if (number & 1 && (setgid(NOBODY) || setuid(NOBODY)))
		no_memory("setuid");
	seed_task(seed);
	for (;;)
		calls(1000);
}

/* --- what only root changes, for all --- */

static void write_number(const char *path, unsigned int number)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", number);
	count(OTHER_CALL, ktap_write(path, text) - 1);
}

static void change_world(void)
{
	static const char *const switches[] = {
		MODULE "/parameters/enable_listen_spawn",
		MODULE "/parameters/enable_listen_spawn",
		MODULE "/parameters/enable_fast_epoll",
		MODULE "/parameters/enable_receive_flow_deliver",
		MODULE "/parameters/enable_fastsocket_debug",
	};
	char text[32];

	switch (below(8)) {
	case 0:
	case 1:
		write_number(ONE_OF(switches), below(4));
		break;
	case 2:
		write_number(ONE_OF(switches), any());
		break;
	case 3:
		snprintf(text, sizeof(text), "%x", below(1 << cpus));
		ktap_write("/sys/class/net/lo/queues/rx-0/rps_cpus", text);
		break;
	case 4:
		count(OTHER_CALL,
		      set_online(1 + below(cpus - 1), chance(60)) - 1);
		break;
	case 5:
		/* Refused while somebody uses it. */
		module_unload();
		if (!module_loaded())
			count(OTHER_CALL, module_load("") - 1);
		break;
	case 6:
		write_number("/proc/sys/net/ipv4/tcp_syncookies", below(2));
		write_number("/proc/sys/net/core/somaxconn", 1 + below(200));
		write_number("/proc/sys/net/ipv4/tcp_max_syn_backlog",
			     1 + below(200));
		break;
	default:
		snprintf(text, sizeof(text), "%u %u", 32768 + below(1000),
			 34000 + below(20000));
		ktap_write("/proc/sys/net/ipv4/ip_local_port_range", text);
	}
}

static void changes(uint64_t seed)
{
	setpgid(0, 0);
	seed_task(seed);
	for (;;) {
		change_world();
		usleep(1000 * below(100));
	}
}

/* Settings that change, and what they were. */
static struct { const char *path; char was[64]; } settings[] = {
	{ .path = "/sys/class/net/lo/queues/rx-0/rps_cpus" },
	{ .path = "/proc/sys/net/core/somaxconn" },
	{ .path = "/proc/sys/net/core/warnings" },
	{ .path = "/proc/sys/net/ipv4/tcp_syncookies" },
	{ .path = "/proc/sys/net/ipv4/tcp_max_syn_backlog" },
	{ .path = "/proc/sys/net/ipv4/tcp_max_tw_buckets" },
	{ .path = "/proc/sys/net/ipv4/tcp_fin_timeout" },
	{ .path = "/proc/sys/net/ipv4/tcp_orphan_retries" },
	{ .path = "/proc/sys/net/ipv4/ip_local_port_range" },
};

#define SETTINGS	((int)(sizeof(settings) / sizeof(settings[0])))

static void remember_world(void)
{
	int i;

	for (i = 0; i < SETTINGS; i++) {
		ktap_read(settings[i].path, settings[i].was,
			  sizeof(settings[i].was));
		NEED(*settings[i].was);
	}
}

static void world_as_it_was(void)
{
	int i;

	for (i = 1; i < cpus; i++)
		NEED(set_online(i, true));
	for (i = 0; i < SETTINGS; i++)
		NEED(ktap_write(settings[i].path, settings[i].was));
}

/* --- the supervisor --- */

static const char *const slabs[] = {
	"TCP", "TCPv6", "UDP", "UNIX", "request_sock_TCP", "request_sock_TCPv6",
	"tw_sock_TCP", "tw_sock_TCPv6", "tcp_bind_bucket", "sock_inode_cache",
	"filp", "files_cache", "eventpoll_epi", "eventpoll_pwq", "dentry",
};

#define SLABS	((int)(sizeof(slabs) / sizeof(slabs[0])))
#define SLACK	8

static pid_t start(int number, uint64_t seed)
{
	pid_t child;

	if (number < WORKERS)
		common->tasks[number] = 0;
	child = fork();
	NEED(child >= 0);
	if (!child) {
		if (number < WORKERS)
			work(number, seed);
		else
			changes(seed);
	}
	return child;
}

/* Whether a worker is reaped and nobody of its group is left. */
static bool group_gone(pid_t group)
{
	if (!waitpid(group, NULL, WNOHANG))
		return false;
	return kill(-group, SIGKILL) < 0 && errno == ESRCH;
}

static void show_who_is_left(void)
{
	NOTE("somebody does not go: see what each task does");
	ktap_write("/proc/sysrq-trigger", "w");
}

static bool stop(pid_t child)
{
	bool gone;

	/* It may not have made its group yet. */
	kill(child, SIGKILL);
	gone = WAIT_FOR(group_gone(child), 60);
	if (!gone)
		show_who_is_left();
	return gone;
}

static uint64_t first_seed(void)
{
	const char *given = getenv("GUEST_FUZZ_SEED");
	uint32_t random = 0;
	int fd = open("/dev/urandom", O_RDONLY);

	if (given && atoll(given))
		return atoll(given);
	NEED_EQ(read(fd, &random, sizeof(random)), sizeof(random));
	close(fd);
	return random | 1;
}

/* A server of a worker a core gets what is its own. */
static void serve_cores(void)
{
	struct shared *shared = share();
	pid_t workers[64];
	int fd, cpu;

	begin(1);
	fd = listener();
	spawn(fd);
	for (cpu = 0; cpu < cpus; cpu++)
		workers[cpu] = worker(fd, cpu + 1, cpu, shared, serve_by_epoll);
	/* One that a busy machine keeps waiting is served by others. */
	for (cpu = 0; cpu < cpus; cpu++)
		CHECK(WAIT_FOR(served_by(AF_INET, port_of(fd), cpu) == cpu + 1,
			       10));
	for (cpu = 0; cpu < cpus; cpu++)
		end(workers[cpu]);
	_exit(0);
}

static void serves(void)
{
	pid_t child = fork();

	NEED(child >= 0);
	if (!child)
		serve_cores();
	NEED(ktap_child_fine(child));
}

/* What is still there when nothing should be, and in which state. */
static void note_sockets(const char *table)
{
	static char text[65536];
	char *line = ktap_read(table, text, sizeof(text)), *next;

	for (; line && *line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		ktap_note("%s", line);
	}
}

/* Nobody is left, so nothing holds the module, or something leaked. */
static void module_goes_and_comes(void)
{
	static const char *const parameters[] = {
		"", "enable_listen_spawn=1", "enable_receive_flow_deliver=1",
		"enable_fast_epoll=0",
	};

	if (module_loaded())
		NEED(WAIT_FOR(module_unload(), 20));
	NEED(module_load(ONE_OF(parameters)));
	NEED(WAIT_FOR(access(DEVICE, F_OK) == 0, 10));
}

/* All workers, some of which are killed and begun anew; then all end. */
static long one_round(double until)
{
	pid_t running[WORKERS + 1];
	long killed = 0;
	int i;

	NEED(!socketpair(AF_UNIX, SOCK_DGRAM, 0, channel));
	for (i = 0; i <= WORKERS; i++)
		running[i] = start(i, any());
	while (ktap_now() < until) {
		usleep(1000 * below(100));
		i = below(WORKERS + 1);
		if (i == WORKERS && chance(90))
			continue;
		NEED(stop(running[i]));
		killed++;
		running[i] = start(i, any());
	}
	for (i = 0; i <= WORKERS; i++)
		NEED(stop(running[i]));
	close(channel[0]);
	close(channel[1]);
	module_goes_and_comes();
	return killed;
}

TEST_WITHIN(random_calls, 180)
{
	uint64_t seed = first_seed();
	long before[SLABS], killed = 0;
	double until;
	int i, rounds;

	if (!ktap_fuzz_seconds())
		SKIP("random calls are made when pytest is told --fuzz-seconds");
	until = ktap_now() + ktap_fuzz_seconds();
	common = mmap(NULL, sizeof(*common), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	NEED(common != MAP_FAILED);
	for (i = 0; i < PORTS; i++)
		common->ports[i] = FIRST_PORT + i;
	NOTE("seed %llu, %.0f s", (unsigned long long)seed, ktap_fuzz_seconds());
	cpus = cpus_there();
	module_need();
	remember_world();
	/*
	 * TIME_WAIT takes a minute to go, which a short run does not have: there
	 * all end without. Half-closed ones go at once.
	 */
	write_number("/proc/sys/net/ipv4/tcp_max_tw_buckets",
		     ktap_fuzz_seconds() > SHORT ? 200 : 0);
	write_number("/proc/sys/net/ipv4/tcp_fin_timeout", 1);
	/*
	 * A closed socket whose peer's filter drops all would send its FIN for
	 * a minute and a half, and keep its namespace as long.
	 */
	write_number("/proc/sys/net/ipv4/tcp_orphan_retries", 1);
	/* It would say all the time that there are too many of them. */
	write_number("/proc/sys/net/core/warnings", 0);
	/* What is made once and stays is there before it is counted. */
	serves();
	slabs_now(slabs, before, SLABS);
	seed_task(seed);
	for (rounds = 0; ktap_now() < until; rounds++)
		killed += one_round(ktap_now() + ROUND);
	world_as_it_was();
	for (i = 0; i < KINDS; i++) {
		NOTE("%s: %ld calls, %ld worked", kind_names[i],
		     common->calls[i], common->worked[i]);
		CHECK(common->worked[i] > 0);
		CHECK(common->worked[i] < common->calls[i]);
	}
	NOTE("%ld bad pointers, %d rounds, %ld workers killed", common->faults,
	     rounds, killed);
	CHECK(common->faults > 0);
	serves();
	if (!slabs_back(slabs, before, SLABS, SLACK, 75)) {
		note_sockets("/proc/net/tcp");
		note_sockets("/proc/net/tcp6");
		CHECK(!"slabs are where they were");
	}
	module_goes_and_comes();
	serves();
}
