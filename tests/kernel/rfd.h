/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests of Receive Flow Deliver share: the switch, the counters, and
 * connections whose both ends are run from one process that moves between
 * CPUs.
 */
#ifndef RFD_H
#define RFD_H

#include "ktap.h"
#include "module.h"

#include <arpa/inet.h>
#include <linux/tcp.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>

/* Built in on one target, of a module on the other. */
#define SWITCH	(ktap_target_is("el6") ?				       \
		 "/sys/module/fastsocket/parameters/enable_receive_flow_deliver" : \
		 "/sys/module/rfd/parameters/enable_receive_flow_deliver")
#define STAT	"/proc/net/steer_stat"
#define RANGE	"/proc/sys/net/ipv4/ip_local_port_range"
#define RESERVED "/proc/sys/net/ipv4/ip_local_reserved_ports"
#define TW_REUSE "/proc/sys/net/ipv4/tcp_tw_reuse"

#define MAX_CPUS	64

struct stat_row {
	unsigned long long pass, total, remote, local, error, exhausted;
};

static int stat_fd = -1;	/* of the first network namespace */

/* One more than the highest number in a list of CPUs such as 0-2,5. */
static inline int cpus_in(const char *path)
{
	char text[256], *last;

	ktap_read(path, text, sizeof(text));
	for (last = text + strlen(text); last > text; last--)
		if (last[-1] == '-' || last[-1] == ',')
			break;
	return atoi(last) + 1;
}

static inline int cpus(void)
{
	return cpus_in("/sys/devices/system/cpu/possible");
}

/* N - 1 of the contract: the bits of a port that are the number of a core. */
static inline unsigned int port_mask(void)
{
	unsigned int n = 1;

	while (n < (unsigned int)cpus())
		n *= 2;
	return n - 1;
}

static inline void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	NEED(sched_setaffinity(0, sizeof(set), &set) == 0);
	NEED_EQ(sched_getcpu(), cpu);
}

static inline void steer(bool on)
{
	NEED(ktap_write(SWITCH, on ? "1" : "0"));
	NEED_EQ(ktap_read_number(SWITCH), on);
}

static inline void stat_reset(void)
{
	NEED(write(stat_fd, "0", 1) == 1);
}

/* All rows of the counters, and their sum. */
static inline struct stat_row stat_rows(struct stat_row *rows)
{
	struct stat_row sum = { 0 }, row;
	char text[16384], *line;
	ssize_t length;
	int cpu;

	length = pread(stat_fd, text, sizeof(text) - 1, 0);
	NEED(length > 0);
	text[length] = '\0';
	for (line = text; (line = strchr(line, '\n')) && *++line; ) {
		NEED_EQ(sscanf(line, "%d %llu %llu %llu %llu %llu %llu", &cpu,
			       &row.pass, &row.total, &row.remote, &row.local,
			       &row.error, &row.exhausted), 7);
		sum.pass += row.pass;
		sum.total += row.total;
		sum.remote += row.remote;
		sum.local += row.local;
		sum.error += row.error;
		sum.exhausted += row.exhausted;
		if (rows && cpu < MAX_CPUS)
			rows[cpu] = row;
	}
	return sum;
}

static inline struct stat_row stat_sum(void)
{
	return stat_rows(NULL);
}

static inline void stat_note(const char *what)
{
	struct stat_row sum = stat_sum();

	NOTE("%s: pass %llu, steer %llu: remote %llu local %llu error %llu; exhausted %llu",
	     what, sum.pass, sum.total, sum.remote, sum.local, sum.error,
	     sum.exhausted);
}

/* A column of a CPU's row in softnet_stat, the first of both is 0. */
static inline unsigned int softnet(int cpu, int column)
{
	char text[16384], *line = text, *word;

	ktap_read("/proc/net/softnet_stat", text, sizeof(text));
	while (cpu-- && line)
		line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL;
	NEED(line);
	for (word = line; column--; word++)
		NEED((word = strchr(word, ' ')));
	return strtoul(word, NULL, 16);
}

/*
 * How many packets a CPU has received; 2.6.32 counts those that it queues as
 * well.
 */
static inline unsigned int processed(int cpu)
{
	return softnet(cpu, 0);
}

/*
 * How many packets found a CPU's backlog full; on 2.6.32 those that this CPU
 * wanted to queue to any.
 */
static inline unsigned int dropped(int cpu)
{
	return softnet(cpu, 1);
}

/* How often a CPU was called to take packets over from another. */
static inline unsigned int taken_over(int cpu)
{
	return softnet(cpu, 9);
}

static inline void up_with(const char *device, int flags)
{
	struct ifreq request = { .ifr_flags = IFF_UP | IFF_RUNNING | flags };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	snprintf(request.ifr_name, IFNAMSIZ, "%s", device);
	NEED(fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &request) == 0);
	close(fd);
}

static inline void up(const char *device)
{
	up_with(device, 0);
}

/* Begin a test in the network namespace we are in. */
static inline void begin_here(bool on)
{
	/* connections that nobody accepts wait in the queue of a listener */
	NEED(ktap_write("/proc/sys/net/core/somaxconn", "4096"));
	up("lo");
	pin(0);
	steer(on);
	stat_reset();
}

static inline void open_stat(void)
{
	module_need();
	stat_fd = open(STAT, O_RDWR);
	NEED(stat_fd >= 0);
}

/*
 * Begin a test: a network namespace of its own, so that no setting and no port
 * of another test is left over, the switch as wanted, the counters at zero.
 */
static inline void begin(bool on)
{
	open_stat();
	if (ktap_target_is("el6")) {
		/* these are the same for all namespaces */
		NEED(ktap_write(RANGE, "32768 61000"));
		NEED(ktap_write(RESERVED, "\n"));
		NEED(ktap_write(TW_REUSE, "0"));
	}
	NEED(unshare(CLONE_NEWNET) == 0);
	begin_here(on);
}

/* An address of either family, from its text. */
struct address {
	socklen_t length;
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	};
};

static inline struct address address_of(const char *text, int port)
{
	struct address address = { 0 };

	if (strchr(text, ':')) {
		address.length = sizeof(address.in6);
		address.in6.sin6_family = AF_INET6;
		address.in6.sin6_port = htons(port);
		NEED(inet_pton(AF_INET6, text, &address.in6.sin6_addr) == 1);
	} else {
		address.length = sizeof(address.in);
		address.in.sin_family = AF_INET;
		address.in.sin_port = htons(port);
		NEED(inet_pton(AF_INET, text, &address.in.sin_addr) == 1);
	}
	return address;
}

static inline int local_port(int fd)
{
	struct address address = { .length = sizeof(address.in6) };

	NEED(getsockname(fd, &address.any, &address.length) == 0);
	return ntohs(address.in.sin_port);	/* the same place in both */
}

static inline int listener(const char *host, int port)
{
	struct address address = address_of(host, port);
	int fd = socket(address.any.sa_family, SOCK_STREAM, 0), one = 1;

	NEED(fd >= 0);
	NEED(!setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)));
	NEED(bind(fd, &address.any, address.length) == 0);
	NEED(listen(fd, 4096) == 0);
	return fd;
}

/* A socket that only sends to and receives from a device. */
static inline void bind_to(int fd, const char *device)
{
	NEED(!setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device,
			 strlen(device) + 1));
}

/*
 * The device that connections are opened through, and its IPv6 address, which
 * is not chosen where the other end's is one of this host; NULL: as routed.
 */
static const char *through, *through_ipv6;

static inline int unconnected(const char *host)
{
	int fd = socket(strchr(host, ':') ? AF_INET6 : AF_INET, SOCK_STREAM, 0);

	NEED(fd >= 0);
	if (through)
		bind_to(fd, through);
	if (through_ipv6 && strchr(host, ':')) {
		struct address own = address_of(through_ipv6, 0);

		NEED(bind(fd, &own.any, own.length) == 0);
	}
	return fd;
}

/* 0 or the error of connect() */
static inline int try_connect(int fd, const char *host, int port)
{
	struct address address = address_of(host, port);

	return connect(fd, &address.any, address.length) ? errno : 0;
}

static inline int connected(const char *host, int port)
{
	int fd = unconnected(host);

	NEED_EQ(try_connect(fd, host, port), 0);
	return fd;
}

/*
 * Whether a socket tells the CPU that received its last packet, and how many
 * packets it has received. Without that the CPUs' counts must do.
 */
static inline bool sockets_tell(void)
{
	return !ktap_target_is("el6");
}

/* The CPU that received the last packet of a socket. */
static inline int incoming_cpu(int fd)
{
	socklen_t length = sizeof(int);
	int cpu;

	NEED(!getsockopt(fd, SOL_SOCKET, SO_INCOMING_CPU, &cpu, &length));
	return cpu;
}

/* That is this one, where sockets tell. */
static inline void check_incoming(int fd, int cpu)
{
	if (sockets_tell())
		CHECK_EQ(incoming_cpu(fd), cpu);
}

/* How many packets a connection received so far. */
static inline unsigned int packets_in(int fd)
{
	struct tcp_info info;
	socklen_t length = sizeof(info);

	NEED(!getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length));
	return info.tcpi_segs_in;
}

/* Close without TIME-WAIT, so that the port is free at once. */
static inline void reset(int fd)
{
	struct linger linger = { .l_onoff = 1 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	close(fd);
}

/* RPS of a device's first queue: to one CPU, or off with -1. */
static inline void set_rps(const char *device, int cpu)
{
	char path[128], mask[16];

	snprintf(path, sizeof(path), "/sys/class/net/%s/queues/rx-0/rps_cpus",
		 device);
	snprintf(mask, sizeof(mask), "%x", cpu < 0 ? 0 : 1 << cpu);
	NEED(ktap_write(path, mask));
}

/*
 * /sys shows the devices of the namespace it was mounted in, 2.6.32 only those
 * of the first one: be where they can be set. Before there are sockets.
 */
static inline void show_sys(void)
{
	int first;

	if (ktap_target_is("el6")) {
		first = open("/proc/1/ns/net", O_RDONLY);
		NEED(first >= 0 && setns(first, CLONE_NEWNET) == 0);
		close(first);
		return;
	}
	NEED(unshare(CLONE_NEWNS) == 0);
	NEED(!mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
	NEED(!mount("sys", "/sys", "sysfs", 0, NULL));
}

static inline void set_range(int low, int high)
{
	char text[32];

	snprintf(text, sizeof(text), "%d %d", low, high);
	NEED(ktap_write(RANGE, text));
}

#endif
