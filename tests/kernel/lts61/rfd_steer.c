// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where the packets of real connections are received, over the loopback device
 * (netif_rx) and over a veth pair between two network namespaces, as its
 * driver delivers them without (netif_rx) and with GRO (NAPI, lists).
 *
 * guest: cpus=4 seconds=240 variants=patched,patched-debug
 */
#include "rfd.h"

#include <linux/ethtool.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <linux/veth.h>

#define SERVER	8080
#define ROUNDS	20

/* --- a veth pair: "near" here with 10.1.0.1, "far" in another namespace --- */

struct message {
	struct nlmsghdr header;
	struct ifinfomsg link;
	char attributes[512];
};

static struct rtattr *put(struct message *message, int type, const void *data,
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

static void end(struct message *message, struct rtattr *nest)
{
	nest->rta_len = (char *)message + message->header.nlmsg_len -
			(char *)nest;
}

static void add_veth(int far_namespace)
{
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
	} answer;
	struct message message = {
		.header = {
			.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg)),
			.nlmsg_type = RTM_NEWLINK,
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK |
				       NLM_F_CREATE | NLM_F_EXCL,
		},
	};
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
	struct rtattr *info, *data, *peer;
	struct ifinfomsg none = { 0 };

	put(&message, IFLA_IFNAME, "near", 5);
	info = put(&message, IFLA_LINKINFO, NULL, 0);
	put(&message, IFLA_INFO_KIND, "veth", 4);
	data = put(&message, IFLA_INFO_DATA, NULL, 0);
	peer = put(&message, VETH_INFO_PEER, &none, sizeof(none));
	put(&message, IFLA_IFNAME, "far", 4);
	put(&message, IFLA_NET_NS_FD, &far_namespace, sizeof(far_namespace));
	end(&message, peer);
	end(&message, data);
	end(&message, info);
	NEED(fd >= 0);
	NEED(send(fd, &message, message.header.nlmsg_len, 0) > 0);
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

static void add_address(const char *device, const char *text, int last)
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
	NEED(ioctl(fd6, SIOCSIFADDR, &six) == 0);
	close(fd4);
	close(fd6);
}

static void set_feature(const char *device, int command, bool on)
{
	struct ethtool_value value = { .cmd = command, .data = on };
	struct ifreq request = { .ifr_data = (void *)&value };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	snprintf(request.ifr_name, IFNAMSIZ, "%s", device);
	NEED(ioctl(fd, SIOCETHTOOL, &request) == 0);
	close(fd);
}

/*
 * A veth device receives in NAPI, in lists, if it has GRO and its peer does
 * not send large packets whole.
 */
static void set_gro(const char *device, bool on)
{
	set_feature(device, ETHTOOL_SGRO, on);
	set_feature(device, ETHTOOL_STSO, !on);
}

static int far_namespace, near_namespace;

static void begin_veth(bool gro)
{
	begin(false);
	near_namespace = open("/proc/self/ns/net", O_RDONLY);
	NEED(unshare(CLONE_NEWNET) == 0);
	far_namespace = open("/proc/self/ns/net", O_RDONLY);
	NEED(near_namespace >= 0 && far_namespace >= 0);
	NEED(ktap_write("/proc/sys/net/ipv6/conf/default/accept_dad", "0"));
	NEED(setns(near_namespace, CLONE_NEWNET) == 0);
	NEED(ktap_write("/proc/sys/net/ipv6/conf/default/accept_dad", "0"));
	add_veth(far_namespace);
	add_address("near", "10.1.0.1", 1);
	set_gro("near", gro);
	NEED(setns(far_namespace, CLONE_NEWNET) == 0);
	add_address("far", "10.1.0.2", 2);
	set_gro("far", gro);
	NEED(setns(near_namespace, CLONE_NEWNET) == 0);
	steer(true);
}

/* --- connections, one question and answer after the other --- */

/* Answers come to the client from CPU `from`; the connection is CPU `owner`'s. */
static void talk(int client, int server, int owner, int from)
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
		CHECK_EQ(incoming_cpu(client), owner);
	}
}

/* Was every packet that a socket received, and no other, steered? */
static bool all_steered(int fd)
{
	return stat_sum().total == packets_in(fd);
}

/* Close both ends, and come back when nothing is on its way any more. */
static void hang_up(int client, int server)
{
	char byte;

	reset(client);
	NEED(read(server, &byte, 1) < 0 && errno == ECONNRESET);
	close(server);
}

/*
 * For every pair of CPUs: every packet of the active end is received on the
 * CPU that opened the connection, as the socket and the counters say, and
 * nothing else is steered.
 */
static void check_all_pairs(const char *host, int listening)
{
	int owner, from, client, server;
	unsigned int passive;
	struct stat_row sum, *rows = calloc(MAX_CPUS, sizeof(*rows));

	for (owner = 0; owner < cpus(); owner++)
		for (from = 0; from < cpus(); from++) {
			stat_reset();
			pin(owner);
			client = connected(host, SERVER);
			pin(from);
			server = accept(listening, NULL, NULL);
			NEED(server >= 0);
			talk(client, server, owner, from);

			CHECK(WAIT_FOR(all_steered(client), 10));
			passive = packets_in(server);
			sum = stat_rows(rows);
			CHECK_EQ(sum.error, 0);
			CHECK_EQ(sum.total, sum.remote + sum.local);
			CHECK(sum.pass >= passive);
			/* sent from there, so received there at first */
			if (owner == from)
				CHECK_EQ(sum.remote, 0);
			else
				CHECK(rows[from].remote >= ROUNDS);
			hang_up(client, server);
		}
	stat_note(host);
	free(rows);
}

TEST_WITHIN(loopback_ipv4, 60)
{
	begin(true);
	check_all_pairs("127.0.0.1", listener("127.0.0.1", SERVER));
}

TEST_WITHIN(loopback_ipv6, 60)
{
	begin(true);
	check_all_pairs("::1", listener("::1", SERVER));
}

/* IPv4 on a socket of the other family, a listener on all addresses. */
TEST_WITHIN(loopback_mapped, 60)
{
	begin(true);
	check_all_pairs("::ffff:127.0.0.1", listener("::", SERVER));
}

static void check_veth(const char *host, bool gro)
{
	int listening, client, server;

	begin_veth(gro);
	NEED(setns(far_namespace, CLONE_NEWNET) == 0);
	listening = listener("::", SERVER);
	NEED(setns(near_namespace, CLONE_NEWNET) == 0);
	/* neighbours are found by packets of their own: before we count */
	client = connected(host, SERVER);
	server = accept(listening, NULL, NULL);
	NEED(server >= 0);
	hang_up(client, server);
	usleep(100 * 1000);
	check_all_pairs(host, listening);
}

TEST_WITHIN(veth_ipv4, 60)
{
	check_veth("10.1.0.2", false);
}

TEST_WITHIN(veth_ipv6, 60)
{
	check_veth("fd00::2", false);
}

TEST_WITHIN(veth_gro_ipv4, 60)
{
	check_veth("10.1.0.2", true);
}

TEST_WITHIN(veth_gro_ipv6, 60)
{
	check_veth("fd00::2", true);
}

/* Megabytes in segments of any size, out of the reach of counting packets. */
static void check_bulk(bool gro)
{
	static unsigned char out[65536], in[65536];
	int i, client, server, listening;
	ssize_t got, have;
	pid_t child;

	for (i = 0; i < 65536; i++)
		out[i] = i * 7 + i / 256;
	begin_veth(gro);
	NEED(setns(far_namespace, CLONE_NEWNET) == 0);
	listening = listener("::", SERVER);
	NEED(setns(near_namespace, CLONE_NEWNET) == 0);
	pin(2);
	client = connected("10.1.0.2", SERVER);
	server = accept(listening, NULL, NULL);
	NEED(server >= 0);
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
		CHECK_EQ(incoming_cpu(client), 2);
	}
	CHECK(ktap_child_fine(child));
	CHECK_EQ(stat_sum().error, 0);
	CHECK_EQ(stat_sum().local + stat_sum().remote, stat_sum().total);
	stat_note("4 MB");
}

TEST_WITHIN(bulk_data, 60)
{
	check_bulk(false);
}

TEST_WITHIN(bulk_data_with_gro, 60)
{
	check_bulk(true);
}

/* --- what is not steered: it goes where RPS sends it, or stays --- */

/* RPS sends all to CPU 3; only what the connection of CPU 1 receives is not. */
TEST_WITHIN(rps_has_what_is_not_steered, 60)
{
	int listening, client, server, i;
	char byte;

	begin(true);
	mount_sys();
	set_rps("lo", 3);
	listening = listener("127.0.0.1", SERVER);
	pin(1);
	client = connected("127.0.0.1", SERVER);
	pin(0);
	server = accept(listening, NULL, NULL);
	NEED(server >= 0);
	for (i = 0; i < ROUNDS; i++) {
		talk(client, server, 1, 0);
		CHECK_EQ(incoming_cpu(server), 3);
	}
	/* without the switch all is RPS's */
	steer(false);
	pin(0);
	NEED(write(server, "a", 1) == 1);
	NEED(read(client, &byte, 1) == 1);
	CHECK_EQ(incoming_cpu(client), 3);
	set_rps("lo", -1);
}

/* In lists, where a packet for this CPU goes on at once, RPS must not have it. */
TEST_WITHIN(rps_has_what_is_not_steered_in_lists, 60)
{
	int listening, client, server;

	begin_veth(true);
	mount_sys();
	set_rps("near", 3);
	NEED(setns(far_namespace, CLONE_NEWNET) == 0);
	listening = listener("::", SERVER);
	NEED(setns(near_namespace, CLONE_NEWNET) == 0);
	pin(1);
	client = connected("10.1.0.2", SERVER);
	server = accept(listening, NULL, NULL);
	NEED(server >= 0);
	talk(client, server, 1, 1);
	talk(client, server, 1, 0);
	CHECK(stat_sum().local >= ROUNDS);
	CHECK(stat_sum().remote >= ROUNDS);
}

TEST_WITHIN(udp_is_not_steered, 60)
{
	struct address to = address_of("127.0.0.1", 40001);
	struct address from = address_of("127.0.0.1", 40003);
	int in, out, i;
	char byte;

	begin(true);
	in = socket(AF_INET, SOCK_DGRAM, 0);
	out = socket(AF_INET, SOCK_DGRAM, 0);
	NEED(!bind(in, &to.any, to.length));
	NEED(!bind(out, &from.any, from.length));
	NEED(!connect(in, &from.any, from.length));
	NEED(!connect(out, &to.any, to.length));
	for (i = 0; i < ROUNDS; i++) {
		NEED(write(out, "u", 1) == 1);
		NEED(read(in, &byte, 1) == 1);
		CHECK_EQ(incoming_cpu(in), 0);
	}
	CHECK_EQ(stat_sum().total, 0);
	CHECK_EQ(stat_sum().pass, ROUNDS);
	mount_sys();
	set_rps("lo", 2);
	NEED(write(out, "u", 1) == 1);
	NEED(read(in, &byte, 1) == 1);
	CHECK_EQ(incoming_cpu(in), 2);
	CHECK_EQ(stat_sum().total, 0);
	set_rps("lo", -1);
}

/* A server on a port of the range, and clients: the listener tells them apart. */
TEST_WITHIN(passive_end_on_a_port_of_the_range, 60)
{
	int port = 40000 + port_mask(), listening, client, server;

	begin(true);
	listening = listener("127.0.0.1", port);
	pin(1);
	client = connected("127.0.0.1", port);
	pin(0);
	server = accept(listening, NULL, NULL);
	NEED(server >= 0);
	talk(client, server, 1, 0);
	CHECK_EQ(incoming_cpu(server), 1);	/* where its packets are sent */
	CHECK(WAIT_FOR(all_steered(client), 10));
}

/* The port of the server says enough, a listener is not looked for. */
TEST_WITHIN(server_on_a_well_known_port, 60)
{
	int listening, client, server;

	begin(true);
	listening = listener("127.0.0.1", 80);
	pin(2);
	client = connected("127.0.0.1", 80);
	pin(0);
	server = accept(listening, NULL, NULL);
	NEED(server >= 0);
	talk(client, server, 2, 0);
	CHECK_EQ(incoming_cpu(server), 2);
	CHECK(WAIT_FOR(all_steered(client), 10));
}

/* A port the program chose goes to the core it names, if it is in the range. */
TEST_WITHIN(explicit_port_is_steered_like_others, 60)
{
	struct address wanted = address_of("127.0.0.1", 40002);
	int listening, client, server, owner = 40002 & port_mask();

	begin(true);
	listening = listener("127.0.0.1", SERVER);
	client = unconnected("127.0.0.1");
	NEED(!bind(client, &wanted.any, wanted.length));
	NEED_EQ(try_connect(client, "127.0.0.1", SERVER), 0);
	server = accept(listening, NULL, NULL);
	NEED(server >= 0);
	talk(client, server, owner, 0);

	/* outside it means nothing */
	stat_reset();
	wanted = address_of("127.0.0.1", 20002);
	client = unconnected("127.0.0.1");
	NEED(!bind(client, &wanted.any, wanted.length));
	NEED_EQ(try_connect(client, "127.0.0.1", SERVER), 0);
	CHECK_EQ(stat_sum().total, 0);
}
