// SPDX-License-Identifier: GPL-2.0-only
/*
 * The source ports that Receive Flow Deliver picks: their low bits are the
 * number of the core that asked, and everything that stock promises about
 * ports still holds.
 *
 * guest: cpus=4 modules=fastsocket variants=patched,patched-debug
 */
#include "rfd.h"

#define SERVER	8080

static const char * const hosts[] = { "127.0.0.1", "::1", "::ffff:127.0.0.1" };

/* How many of some new connections from this CPU have a port that names it. */
static int named(const char *host, int cpu, int connections)
{
	int i, fd, fine = 0;

	for (i = 0; i < connections; i++) {
		fd = connected(host, SERVER);
		fine += (local_port(fd) & port_mask()) == (unsigned int)cpu;
		reset(fd);
	}
	return fine;
}

TEST(connect_picks_a_port_that_names_the_cpu)
{
	unsigned int i;
	int cpu;

	begin(true);
	listener("::", SERVER);
	for (i = 0; i < 3; i++)
		for (cpu = 0; cpu < cpus(); cpu++) {
			pin(cpu);
			CHECK_EQ(named(hosts[i], cpu, 50), 50);
		}
	CHECK_EQ(stat_sum().exhausted, 0);
}

TEST(without_the_switch_ports_name_nothing)
{
	begin(false);
	listener("::", SERVER);
	CHECK(named(hosts[0], 1, 50) < 50);
}

TEST(autobind_picks_a_port_that_names_the_cpu)
{
	struct address any = address_of("127.0.0.1", 0);
	int cpu, fd, i, reuse;

	begin(true);
	for (reuse = 0; reuse < 2; reuse++)
		for (cpu = 0; cpu < cpus(); cpu++) {
			pin(cpu);
			for (i = 0; i < 20; i++) {
				fd = unconnected("127.0.0.1");
				setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &reuse,
					   sizeof(reuse));
				NEED(!bind(fd, &any.any, any.length));
				CHECK_EQ(local_port(fd) & port_mask(), cpu);
				close(fd);
			}
			fd = unconnected("127.0.0.1");
			NEED(listen(fd, 1) == 0);
			CHECK_EQ(local_port(fd) & port_mask(), cpu);
			close(fd);
		}
	CHECK_EQ(stat_sum().exhausted, 0);
}

TEST(explicit_port_is_kept)
{
	int fd, i;

	begin(true);
	listener("127.0.0.1", SERVER);
	for (i = 0; i < 8; i++) {
		struct address wanted = address_of("127.0.0.1", 40000 + i);

		fd = unconnected("127.0.0.1");
		NEED(!bind(fd, &wanted.any, wanted.length));
		NEED_EQ(try_connect(fd, "127.0.0.1", SERVER), 0);
		CHECK_EQ(local_port(fd), 40000 + i);
		CHECK(write(fd, "x", 1) == 1);
		reset(fd);
	}
	CHECK_EQ(stat_sum().exhausted, 0);
}

TEST(udp_is_left_alone)
{
	int fd, i, fine = 0;

	begin(true);
	pin(1);
	for (i = 0; i < 50; i++) {
		fd = socket(AF_INET, SOCK_DGRAM, 0);
		NEED_EQ(try_connect(fd, "127.0.0.1", SERVER), 0);
		fine += (local_port(fd) & port_mask()) == 1;
		close(fd);
	}
	CHECK(fine < 50);
}

/*
 * Take every port of a range for one destination from one CPU: first all those
 * that name it, then, counted, the others, and no port twice.
 */
static void take_all(int low, int high, int expect_own)
{
	int ports = high - low + 1, i, fd, port;
	static bool taken[65536];

	memset(taken, 0, sizeof(taken));
	set_range(low, high);
	for (i = 0; i < ports; i++) {
		fd = connected("127.0.0.1", SERVER);
		port = local_port(fd);
		CHECK(port >= low && port <= high && !taken[port]);
		taken[port] = true;
		if (i < expect_own) {
			CHECK_EQ(port & port_mask(), sched_getcpu());
			CHECK_EQ(stat_sum().exhausted, 0);
		} else if ((port & port_mask()) == (unsigned int)sched_getcpu()) {
			NOTE("port %d was missed", port);
			CHECK(false);
		}
	}
	CHECK_EQ(stat_sum().exhausted, ports - expect_own);
	CHECK_EQ(try_connect(unconnected("127.0.0.1"), "127.0.0.1", SERVER),
		 EADDRNOTAVAIL);
}

/* The ports from low to high that name a CPU. */
static int own_ports(int low, int high, int cpu)
{
	int port, own = 0;

	for (port = low; port <= high; port++)
		own += (port & port_mask()) == (unsigned int)cpu;
	return own;
}

TEST(when_the_own_ports_are_taken_any_will_do)
{
	int cpu = cpus() - 1;

	begin(true);
	listener("127.0.0.1", SERVER);
	pin(cpu);
	take_all(40000, 40000 + 8 * port_mask() + 7,
		 own_ports(40000, 40000 + 8 * port_mask() + 7, cpu));
}

/* A range that begins and ends amid the cores, an odd number of ports each. */
TEST(ragged_range_is_used_whole)
{
	int low = 40001, high = low + 3 * (port_mask() + 1) + 1, cpu;

	begin(true);
	for (cpu = 0; cpu < cpus(); cpu++) {
		NEED(unshare(CLONE_NEWNET) == 0);
		up("lo");
		listener("127.0.0.1", SERVER);
		pin(cpu);
		stat_reset();
		take_all(low, high, own_ports(low, high, cpu));
	}
}

TEST(range_without_a_port_for_the_cpu)
{
	int cpu, port = 40000, fd;

	begin(true);
	listener("127.0.0.1", SERVER);
	set_range(port, port);
	for (cpu = 0; cpu < cpus(); cpu++) {
		bool names = (port & port_mask()) == (unsigned int)cpu;

		pin(cpu);
		stat_reset();
		fd = connected("127.0.0.1", SERVER);
		CHECK_EQ(local_port(fd), port);
		CHECK_EQ(stat_sum().exhausted, names ? 0 : 1);
		reset(fd);

		stat_reset();
		fd = unconnected("127.0.0.1");
		NEED(listen(fd, 1) == 0);
		CHECK_EQ(local_port(fd), port);
		CHECK_EQ(stat_sum().exhausted, names ? 0 : 1);
		close(fd);
	}
}

/* All ports but one that name the CPU are reserved: that one, then others. */
TEST(reserved_ports_are_not_picked)
{
	unsigned int n = port_mask() + 1;
	int low = 40000, high = low + 4 * n - 1, fd;
	char reserved[64];

	begin(true);
	listener("127.0.0.1", SERVER);
	NEED_EQ(low % n, 0);
	set_range(low, high);
	snprintf(reserved, sizeof(reserved), "%u,%u,%u", low + 1, low + n + 1,
		 low + 3 * n + 1);
	NEED(ktap_write(RESERVED, reserved));
	pin(1);
	fd = connected("127.0.0.1", SERVER);
	CHECK_EQ(local_port(fd), low + 2 * n + 1);
	CHECK_EQ(stat_sum().exhausted, 0);
	fd = connected("127.0.0.1", SERVER);
	CHECK((local_port(fd) & port_mask()) != 1);
	CHECK_EQ(stat_sum().exhausted, 1);
}

/* Exhaustion in autobind, with and without SO_REUSEADDR (which splits the range). */
TEST(autobind_takes_any_port_when_its_own_are_taken)
{
	unsigned int n = port_mask() + 1;
	int low = 40000, high = low + 4 * n - 1, reuse, i, fd;

	begin(true);
	for (reuse = 0; reuse < 2; reuse++) {
		NEED(unshare(CLONE_NEWNET) == 0);
		up("lo");
		set_range(low, high);
		pin(1);
		stat_reset();
		for (i = 0; i < high - low + 1; i++) {
			fd = unconnected("127.0.0.1");
			setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &reuse,
				   sizeof(reuse));
			NEED(listen(fd, 1) == 0);
			if (i < 4)
				CHECK_EQ(local_port(fd) & port_mask(), 1);
			else
				CHECK((local_port(fd) & port_mask()) != 1);
		}
		CHECK_EQ(stat_sum().exhausted, high - low + 1 - 4);
		fd = unconnected("127.0.0.1");
		CHECK(listen(fd, 1) < 0 && errno == EADDRINUSE);
	}
}

/* Ports of connections in TIME-WAIT: the same ones are reused as in stock. */
TEST(ports_in_time_wait_are_reused)
{
	int server, fd, i, taken;

	begin(true);
	server = listener("127.0.0.1", SERVER);
	NEED(ktap_write(TW_REUSE, "1"));
	set_range(40000, 40000 + 2 * port_mask() + 1);
	pin(1);
	for (i = 0; i < 6; i++) {
		fd = connected("127.0.0.1", SERVER);
		taken = accept(server, NULL, NULL);
		NEED(taken >= 0);
		if (i < 2)
			CHECK_EQ(local_port(fd) & port_mask(), 1);
		shutdown(fd, SHUT_WR);
		close(taken);
		close(fd);
		/* a port in TIME-WAIT rests for a second, or until the next but one */
		if (i % 2)
			usleep((ktap_target_is("el6") ? 2200 : 1200) * 1000);
	}
	CHECK_EQ(stat_sum().exhausted, 0);
}
