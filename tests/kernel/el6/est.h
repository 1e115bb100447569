/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests of the tables of established connections share. The server's
 * end of a connection stands on the CPU that the client connected from, as
 * loopback packets are received where they are sent; the client's end does with
 * Receive Flow Deliver only, on the CPU that its port names.
 */
#ifndef EST_H
#define EST_H

#include "fastsocket.h"
#include "module.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <net/if.h>

#define EST_SWITCH	MODULE "/parameters/enable_local_established"
#define RFD_SWITCH	MODULE "/parameters/enable_receive_flow_deliver"
#define LO_RPS		"/sys/class/net/lo/queues/rx-0/rps_cpus"
#define PORTS		"/proc/sys/net/ipv4/ip_local_port_range"
#define TW_REUSE	"/proc/sys/net/ipv4/tcp_tw_reuse"

/* States of connections */
enum { ESTABLISHED = 1, TIME_WAIT = 6 };

/* Columns of HASH_STAT after those of the listen table */
enum { EST_INSERT, EST_LOCAL, EST_GLOBAL, EST_REMOTE, EST_COLUMNS };

/* A column of one CPU, or the sum of all. */
static inline long est_stat(int cpu, int column)
{
	char text[4096], *line;
	long values[EST_COLUMNS], sum = 0;
	int row;

	ktap_read(HASH_STAT, text, sizeof(text));
	NEED(*text);
	for (line = text; (line = strchr(line, '\n')) && *++line; ) {
		NEED_EQ(sscanf(line, "%d %*d %*d %*d %*d %*d %*d %ld %ld %ld %ld",
			       &row, &values[0], &values[1], &values[2],
			       &values[3]), EST_COLUMNS + 1);
		if (cpu == ALL_CPUS || cpu == row)
			sum += values[column];
	}
	return sum;
}

static inline void est_reset(void)
{
	NEED(ktap_write(HASH_STAT, "0"));
}

static inline void set_switch(const char *path, int on)
{
	NEED(ktap_write(path, on ? "1" : "0"));
	NEED_EQ(ktap_read_number(path), on);
}

/* Begin a test: the switches as wanted, counters at zero, on the first CPU. */
static inline void est_begin(int on, int rfd)
{
	pin(0);
	NEED(ktap_write(PORTS, "32768 61000"));
	NEED(ktap_write(TW_REUSE, "0"));
	NEED(ktap_write(LO_RPS, "0"));
	set_switch(RFD_SWITCH, rfd);
	set_switch(EST_SWITCH, on);
	est_reset();
}

/* Of a new network namespace. */
static inline void set_loopback_up(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	NEED(fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &request) == 0);
	close(fd);
}

/* A socket bound to a port, that others may be bound to as well. */
static inline int bound_socket(int family, int port)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
	union address address;
	socklen_t length = loopback(&address, family, port);

	NEED(fd >= 0);
	NEED(!setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)));
	NEED(bind(fd, &address.any, length) == 0);
	return fd;
}

/* 0 or the error of connect() */
static inline int try_connect(int fd, int family, int port)
{
	union address address;
	socklen_t length = loopback(&address, family, port);

	return connect(fd, &address.any, length) ? errno : 0;
}

static inline int taken_from(int listening)
{
	int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);

	NEED(fd >= 0);
	return fd;
}

/* The two ends of a connection, opened on the CPU that one is on. */
static inline void open_pair(int listening, int family, int *client,
			     int *server)
{
	*client = connect_to(family, port_of(listening));
	NEED(*client >= 0);
	*server = taken_from(listening);
}

/* One byte there. */
static inline bool says(int from, int to)
{
	struct pollfd readable = { .fd = to, .events = POLLIN };
	char sent = 'x', got = 0;

	return write(from, &sent, 1) == 1 &&
	       poll(&readable, 1, 1000 * ktap_scaled(3)) == 1 &&
	       read(to, &got, 1) == 1 && got == sent;
}

/* Close one end, then the other: the first goes to TIME-WAIT. */
static inline void close_in_order(int first, int second)
{
	char byte;

	close(first);
	CHECK_EQ(read(second, &byte, 1), 0);
	close(second);
}

static inline int in_proc_once(const char *table, int local, int remote,
			       int state)
{
	static char text[1 << 20];
	unsigned int l, r, s;
	char *line;
	int found = 0;

	for (line = ktap_read(table, text, sizeof(text));
	     (line = strchr(line, '\n')) && *++line; ) {
		if (sscanf(line, " %*d: %*[0-9A-F]:%x %*[0-9A-F]:%x %x",
			   &l, &r, &s) == 3)
			found += (!local || (int)l == local) &&
				 (!remote || (int)r == remote) &&
				 (int)s == state;
	}
	return found;
}

/* TIME-WAIT of all namespaces */
static inline int number_of_time_wait(void)
{
	char text[1024], *at;

	at = strstr(ktap_read("/proc/net/sockstat", text, sizeof(text)), " tw ");
	NEED(at != NULL);
	return atoi(at + 4);
}

/*
 * How many sockets with a local and a remote port, 0 for any, are in a state,
 * as a table of /proc says. A table is read in pieces, each from a place that
 * is counted from its beginning: what goes in between, as the TIME-WAIT of
 * earlier tests does, hides others. So it is read until nothing went.
 */
static inline int in_proc(const char *table, int local, int remote, int state)
{
	int before, found, again;

	do {
		before = number_of_time_wait();
		found = in_proc_once(table, local, remote, state);
		/* Those that go are counted later. */
		again = in_proc_once(table, local, remote, state);
	} while (again != found || number_of_time_wait() != before);
	return found;
}

static inline const char *table_of(int family)
{
	return family == AF_INET6 ? "/proc/self/net/tcp6" :
				    "/proc/self/net/tcp";
}

static inline int waiting(int family, int local, int remote)
{
	return in_proc(table_of(family), local, remote, TIME_WAIT);
}

/* The same as inet_diag says, as ss asks it. */
static inline int in_diag(int local, int remote, int state)
{
	static char text[32768];
	struct {
		struct nlmsghdr header;
		struct inet_diag_req request;
	} ask = {
		.header = {
			.nlmsg_len = sizeof(ask),
			.nlmsg_type = TCPDIAG_GETSOCK,
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP,
		},
		.request = { .idiag_family = AF_INET,
			     .idiag_states = 1 << state },
	};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_INET_DIAG);
	struct inet_diag_msg *seen;
	struct nlmsghdr *header;
	int found = 0, length;

	NEED(fd >= 0);
	NEED(send(fd, &ask, sizeof(ask), 0) == sizeof(ask));
	for (;;) {
		length = recv(fd, text, sizeof(text), 0);
		NEED(length > 0);
		for (header = (struct nlmsghdr *)text; NLMSG_OK(header, length);
		     header = NLMSG_NEXT(header, length)) {
			if (header->nlmsg_type == NLMSG_DONE) {
				close(fd);
				return found;
			}
			NEED(header->nlmsg_type != NLMSG_ERROR);
			seen = NLMSG_DATA(header);
			found += (!local || ntohs(seen->id.idiag_sport) == local) &&
				 (!remote || ntohs(seen->id.idiag_dport) == remote);
		}
	}
}

#endif
