// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where packets are received that come in by NAPI and GRO: two network cards
 * with a cable between them.
 *
 * guest: cpus=4 cable=1 seconds=240 modules=fastsocket variants=patched,patched-debug
 */
#include "rfd_pairs.h"

static bool running(const char *device)
{
	struct ifreq request = { 0 };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	snprintf(request.ifr_name, IFNAMSIZ, "%s", device);
	NEED(fd >= 0 && ioctl(fd, SIOCGIFFLAGS, &request) == 0);
	close(fd);
	return request.ifr_flags & IFF_RUNNING;
}

/*
 * 10.1.0.1 on one card, 10.1.0.2 and a listener on the other. Cards cannot be
 * moved to another namespace in this tree, so both are here, and sockets that
 * are bound to theirs keep packets from the short way over lo.
 */
static int begin_cable(void)
{
	int listening;

	open_stat();
	begin_here(false);
	in_napi = true;
	arrival = AT_ONE_CPU;
	NEED(WAIT_FOR(if_nametoindex("eth0") && if_nametoindex("eth1"), 20));
	/* packets come in from an address of our own */
	NEED(ktap_write("/proc/sys/net/ipv4/conf/all/rp_filter", "0"));
	NEED(ktap_write("/proc/sys/net/ipv4/conf/eth0/accept_local", "1"));
	NEED(ktap_write("/proc/sys/net/ipv4/conf/eth1/accept_local", "1"));
	NEED(ktap_write("/proc/sys/net/ipv6/conf/eth0/accept_dad", "0"));
	NEED(ktap_write("/proc/sys/net/ipv6/conf/eth1/accept_dad", "0"));
	add_address("eth0", "10.1.0.1", 1);
	add_address("eth1", "10.1.0.2", 2);
	NEED(WAIT_FOR(running("eth0") && running("eth1"), 30));
	listening = listener("::", SERVER);
	bind_to(listening, "eth1");
	through = "eth0";
	through_ipv6 = "fd00::1";
	steer(true);
	return listening;
}

static void check_cable(const char *host)
{
	int listening = begin_cable(), client, server;

	/* neighbours are found by packets of their own: before we count */
	client = connected(host, SERVER);
	server = accept(listening, NULL, NULL);
	NEED(server >= 0);
	hang_up(client, server);
	check_all_pairs(host, listening);
}

TEST_WITHIN(napi_ipv4, 100)
{
	check_cable("10.1.0.2");
}

TEST_WITHIN(napi_ipv6, 100)
{
	check_cable("fd00::2");
}

/* Enough at a time to be merged: what is merged is steered as one packet. */
TEST_WITHIN(bulk_data_is_merged_and_steered, 100)
{
	int listening = begin_cable();
	struct stat_row sum;

	receive_bulk("10.1.0.2", listening);
	CHECK(WAIT_FOR(all_received_on(2, -1), 10));
	sum = stat_sum();
	CHECK_EQ(sum.error, 0);
	CHECK(sum.remote + sum.local > 0);
	/* 4 MB in segments of 1448 bytes would be 2897 packets */
	CHECK(sum.total < 2897);
}
