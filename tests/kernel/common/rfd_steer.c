// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where the packets of real connections are received, over the loopback device
 * (netif_rx) and over a veth pair between two network namespaces, as its
 * driver delivers them without (netif_rx) and with GRO (NAPI, lists).
 *
 * guest: cpus=4 seconds=240 modules=fastsocket variants=patched,patched-debug
 */
#include "rfd_pairs.h"

#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <linux/veth.h>

/* --- a veth pair: "near" here with 10.1.0.1, "far" in another namespace --- */

static void add_veth(int far_namespace)
{
	struct message message = {
		.header = {
			.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg)),
			.nlmsg_type = RTM_NEWLINK,
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK |
				       NLM_F_CREATE | NLM_F_EXCL,
		},
	};
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
	ask(&message);
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
	if (gro && ktap_target_is("el6"))
		SKIP("veth has no NAPI there");
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
	NEED(setns(far_namespace, CLONE_NEWNET) == 0);
	add_address("far", "10.1.0.2", 2);
	if (!ktap_target_is("el6")) {
		set_gro("far", gro);
		NEED(setns(near_namespace, CLONE_NEWNET) == 0);
		set_gro("near", gro);
		if (gro)
			arrival = ANYWHERE;
	}
	NEED(setns(near_namespace, CLONE_NEWNET) == 0);
	steer(true);
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
	int listening;

	begin_veth(gro);
	NEED(setns(far_namespace, CLONE_NEWNET) == 0);
	listening = listener("::", SERVER);
	NEED(setns(near_namespace, CLONE_NEWNET) == 0);
	receive_bulk("10.1.0.2", listening);
	CHECK_EQ(stat_sum().error, 0);
	CHECK_EQ(stat_sum().local + stat_sum().remote, stat_sum().total);
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
	unsigned int before;
	char byte;

	begin(true);
	show_sys();
	set_rps("lo", 3);
	listening = listener("127.0.0.1", SERVER);
	sniff();
	start_counting();
	pin(1);
	client = connected("127.0.0.1", SERVER);
	pin(0);
	server = accept(listening, NULL, NULL);
	NEED(server >= 0);
	for (i = 0; i < ROUNDS; i++) {
		talk(client, server, 1, 0);
		check_incoming(server, 3);
	}
	CHECK(WAIT_FOR(all_steered(client), 10));
	if (!sockets_tell())
		CHECK(WAIT_FOR(all_received_on(1, 3), 10));
	/* without the switch all is RPS's */
	steer(false);
	before = processed(3);
	pin(0);
	NEED(write(server, "a", 1) == 1);
	NEED(read(client, &byte, 1) == 1);
	check_incoming(client, 3);
	CHECK(processed(3) != before);
	set_rps("lo", -1);
}

/* In lists, where a packet for this CPU goes on at once, RPS must not have it. */
TEST_WITHIN(rps_has_what_is_not_steered_in_lists, 60)
{
	int listening, client, server;

	begin_veth(true);
	show_sys();
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
	unsigned int before;
	int in, out, i;
	char byte;

	begin(true);
	show_sys();
	start_counting();
	in = socket(AF_INET, SOCK_DGRAM, 0);
	out = socket(AF_INET, SOCK_DGRAM, 0);
	NEED(!bind(in, &to.any, to.length));
	NEED(!bind(out, &from.any, from.length));
	NEED(!connect(in, &from.any, from.length));
	NEED(!connect(out, &to.any, to.length));
	for (i = 0; i < ROUNDS; i++) {
		NEED(write(out, "u", 1) == 1);
		NEED(read(in, &byte, 1) == 1);
		check_incoming(in, 0);
	}
	CHECK_EQ(stat_sum().total, 0);
	CHECK_EQ(stat_sum().pass, ROUNDS);
	set_rps("lo", 2);
	before = processed(2);
	NEED(write(out, "u", 1) == 1);
	NEED(read(in, &byte, 1) == 1);
	check_incoming(in, 2);
	CHECK(processed(2) != before);
	CHECK_EQ(stat_sum().total, 0);
	set_rps("lo", -1);
}

/* A server on a port of the range, and clients: the listener tells them apart. */
TEST_WITHIN(passive_end_on_a_port_of_the_range, 60)
{
	int port = 40000 + port_mask(), listening, client, server;

	begin(true);
	sniff();
	listening = listener("127.0.0.1", port);
	pin(1);
	client = connected("127.0.0.1", port);
	pin(0);
	server = accept(listening, NULL, NULL);
	NEED(server >= 0);
	talk(client, server, 1, 0);
	check_incoming(server, 1);	/* where its packets are sent */
	CHECK(WAIT_FOR(all_steered(client), 10));
}

/* The port of the server says enough, a listener is not looked for. */
TEST_WITHIN(server_on_a_well_known_port, 60)
{
	int listening, client, server;

	begin(true);
	sniff();
	listening = listener("127.0.0.1", 80);
	pin(2);
	client = connected("127.0.0.1", 80);
	pin(0);
	server = accept(listening, NULL, NULL);
	NEED(server >= 0);
	talk(client, server, 2, 0);
	check_incoming(server, 2);
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
