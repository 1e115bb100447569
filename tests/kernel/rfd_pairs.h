/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Connections whose every packet is counted, between all pairs of CPUs, over a
 * device of either kind: what the tests of steering share.
 */
#ifndef RFD_PAIRS_H
#define RFD_PAIRS_H

#include "rfd.h"

#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <linux/rtnetlink.h>

#define SERVER	8080
#define ROUNDS	20

/* --- what was received, and where --- */

static unsigned int processed_before[MAX_CPUS];
static bool in_napi;	/* the device at hand receives in NAPI */

/*
 * Where packets of the device at hand arrive first: on the CPU that sent them;
 * on the CPU that a card's interrupts go to; or, in a queue that a CPU may
 * still be at work on for another, on either.
 */
static enum { WHERE_SENT, AT_ONE_CPU, ANYWHERE } arrival;
static int sniffer = -1;
static unsigned int sniffed;

/* Where sockets do not count their packets, a packet socket does it. */
static inline void sniff(void)
{
	int size = 1 << 23;

	if (sockets_tell())
		return;
	sniffer = socket(AF_PACKET, SOCK_DGRAM | SOCK_NONBLOCK, htons(3));
	NEED(sniffer >= 0);
	NEED(!setsockopt(sniffer, SOL_SOCKET, SO_RCVBUFFORCE, &size,
			 sizeof(size)));
}

/* How many packets of those seen since the last time went to a TCP port. */
static inline unsigned int sniffed_to(int port)
{
	struct sockaddr_ll from;
	socklen_t length = sizeof(from);
	unsigned char packet[128];
	unsigned int count = 0;

	while (recvfrom(sniffer, packet, sizeof(packet), 0,
			(struct sockaddr *)&from, &length) > 0) {
		bool ipv6 = packet[0] >> 4 == 6;
		unsigned char *tcp = packet + (ipv6 ? 40 :
					       (packet[0] & 15) * 4);

		count += from.sll_pkttype == PACKET_HOST &&
			 packet[ipv6 ? 6 : 9] == IPPROTO_TCP &&
			 (tcp[2] << 8 | tcp[3]) == port;
	}
	return count;
}

/* How many packets a socket received since start_counting(). */
static inline unsigned int received(int fd)
{
	if (sockets_tell())
		return packets_in(fd);
	sniffed += sniffed_to(local_port(fd));
	return sniffed;
}

/* All counts begin at one moment: again if a packet came in between. */
static inline void start_counting(void)
{
	struct stat_row sum;
	int cpu;

	do {
		stat_reset();
		for (cpu = 0; cpu < cpus(); cpu++)
			processed_before[cpu] = processed(cpu);
		sum = stat_sum();
	} while (sum.pass + sum.total);
	if (!sockets_tell())
		sniffed_to(0);
	sniffed = 0;
}

/*
 * On 2.6.32, which counts a packet where it is queued and again where it is
 * received: was all that was steered to another CPU received on `owner`, and
 * what was not steered on `rps`, or where it came in if that is -1? Without
 * NAPI a packet is always queued, with it only to another CPU.
 */
static inline bool all_received_on(int owner, int rps)
{
	struct stat_row sum, rows[MAX_CPUS];
	unsigned long long count;
	int cpu;

	sum = stat_rows(rows);
	for (cpu = 0; cpu < cpus(); cpu++) {
		count = rows[cpu].remote + rows[cpu].local;
		if (!in_napi)
			count += rows[cpu].local + rows[cpu].pass;
		if (rps < 0)
			count += rows[cpu].pass;
		else if (cpu == rps)
			count += sum.pass;
		if (cpu == owner)
			count += sum.remote;
		if (processed(cpu) - processed_before[cpu] != count)
			return false;
	}
	return true;
}

/* --- devices --- */

struct message {
	struct nlmsghdr header;
	struct ifinfomsg link;
	char attributes[512];
};

static inline struct rtattr *put(struct message *message, int type, const void *data,
			  size_t length)
{
	struct rtattr *attribute = (void *)((char *)message +
					    NLMSG_ALIGN(message->header.nlmsg_len));

	attribute->rta_type = type;
	attribute->rta_len = RTA_LENGTH(length);
	if (length)
		memcpy(RTA_DATA(attribute), data, length);
	message->header.nlmsg_len = NLMSG_ALIGN(message->header.nlmsg_len) +
				    RTA_ALIGN(attribute->rta_len);
	return attribute;
}

static inline void end(struct message *message, struct rtattr *nest)
{
	nest->rta_len = (char *)message + message->header.nlmsg_len -
			(char *)nest;
}

/* Send a request; the kernel must agree. */
static inline void ask(struct message *message)
{
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
	} answer;
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);

	NEED(fd >= 0);
	NEED(send(fd, message, message->header.nlmsg_len, 0) > 0);
	NEED(recv(fd, &answer, sizeof(answer), 0) > 0);
	NEED_EQ(answer.header.nlmsg_type, NLMSG_ERROR);
	NEED_EQ(answer.error.error, 0);
	close(fd);
}

struct in6_request {
	struct in6_addr address;
	uint32_t prefix;
	int index;
};

static inline void add_address(const char *device, const char *text, int last)
{
	int fd4 = socket(AF_INET, SOCK_DGRAM, 0);
	int fd6 = socket(AF_INET6, SOCK_DGRAM, 0);
	struct in6_request six = { .prefix = 64 };
	struct ifreq request = { 0 };
	struct sockaddr_in *four = (void *)&request.ifr_addr;
	char text6[32];

	snprintf(request.ifr_name, IFNAMSIZ, "%s", device);
	four->sin_family = AF_INET;
	NEED(inet_pton(AF_INET, text, &four->sin_addr) == 1);
	NEED(ioctl(fd4, SIOCSIFADDR, &request) == 0);
	up(device);

	snprintf(text6, sizeof(text6), "fd00::%d", last);
	NEED(inet_pton(AF_INET6, text6, &six.address) == 1);
	six.index = if_nametoindex(device);
	NEED(ioctl(fd6, SIOCSIFADDR, &six) == 0 || errno == EEXIST);
	close(fd4);
	close(fd6);
}

/* --- connections, one question and answer after the other --- */

/* Answers come to the client from CPU `from`; the connection is CPU `owner`'s. */
static inline void talk(int client, int server, int owner, int from)
{
	char byte;
	int i;

	for (i = 0; i < ROUNDS; i++) {
		pin(owner);
		NEED(write(client, "q", 1) == 1);
		pin(from);
		NEED(read(server, &byte, 1) == 1);
		NEED(write(server, "a", 1) == 1);
		pin(owner);
		NEED(read(client, &byte, 1) == 1);
		check_incoming(client, owner);
	}
}

/* Was every packet that a socket received, and no other, steered? */
static inline bool all_steered(int fd)
{
	return stat_sum().total == received(fd);
}

/* Close both ends, and come back when nothing is on its way any more. */
static inline void hang_up(int client, int server)
{
	char byte;

	reset(client);
	NEED(read(server, &byte, 1) < 0 && errno == ECONNRESET);
	close(server);
}

/* The CPU that most packets arrived on. */
static inline int busiest(const struct stat_row *rows)
{
	int cpu, most = 0;

	for (cpu = 1; cpu < cpus(); cpu++)
		if (rows[cpu].total > rows[most].total)
			most = cpu;
	return most;
}

/*
 * For every pair of CPUs: every packet of the active end is received on the
 * CPU that opened the connection, as the socket and the counters say, and
 * nothing else is steered.
 */
static inline void check_all_pairs(const char *host, int listening)
{
	int owner, from, arrived, client, server;
	struct stat_row sum, *rows = calloc(MAX_CPUS, sizeof(*rows));

	sniff();
	for (owner = 0; owner < cpus(); owner++)
		for (from = 0; from < cpus(); from++) {
			start_counting();
			pin(owner);
			client = connected(host, SERVER);
			pin(from);
			server = accept(listening, NULL, NULL);
			NEED(server >= 0);
			talk(client, server, owner, from);

			CHECK(WAIT_FOR(all_steered(client), 10));
			sum = stat_rows(rows);
			CHECK_EQ(sum.error, 0);
			CHECK_EQ(sum.total, sum.remote + sum.local);
			if (sockets_tell())
				CHECK(sum.pass >= packets_in(server));
			else
				CHECK(WAIT_FOR(all_received_on(owner, -1), 10));
			arrived = arrival == AT_ONE_CPU ? busiest(rows) : from;
			if (arrival == ANYWHERE)
				NOTE("%d to %d: %llu remote, %llu local", from,
				     owner, sum.remote, sum.local);
			else if (owner == arrived)
				CHECK_EQ(sum.remote, 0);
			else
				CHECK(rows[arrived].remote >= ROUNDS);
			hang_up(client, server);
		}
	stat_note(host);
	free(rows);
}

/* 4 MB come in on CPU 2, in one connection; they were sent from CPU 1. */
static inline void receive_bulk(const char *host, int listening)
{
	static unsigned char out[65536], in[65536];
	int i, client, server;
	ssize_t got, have;
	pid_t child;

	for (i = 0; i < 65536; i++)
		out[i] = i * 7 + i / 256;
	pin(2);
	client = connected(host, SERVER);
	server = accept(listening, NULL, NULL);
	NEED(server >= 0);
	start_counting();
	child = fork();
	if (!child) {
		pin(1);
		for (i = 0; i < 64; i++)
			NEED(write(server, out, 65536) == 65536);
		_exit(0);
	}
	for (i = 0; i < 64; i++) {
		for (have = 0; have < 65536; have += got) {
			got = read(client, in + have, 65536 - have);
			NEED(got > 0);
		}
		NEED(!memcmp(in, out, 65536));
		check_incoming(client, 2);
	}
	CHECK(ktap_child_fine(child));
	stat_note("4 MB");
}

#endif
