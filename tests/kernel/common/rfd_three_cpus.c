// SPDX-License-Identifier: GPL-2.0-only
/*
 * Three cores: the two bits of a port can name a fourth, which does not exist.
 *
 * guest: cpus=3 modules=fastsocket variants=patched,patched-debug
 */
#include "rfd.h"

#define SERVER	8080

TEST(ports_name_one_of_the_three)
{
	int cpu, i, fd;

	begin(true);
	NEED_EQ(port_mask(), 3);
	listener("127.0.0.1", SERVER);
	for (cpu = 0; cpu < 3; cpu++) {
		pin(cpu);
		for (i = 0; i < 50; i++) {
			fd = connected("127.0.0.1", SERVER);
			CHECK_EQ(local_port(fd) & 3, cpu);
			reset(fd);
		}
	}
	CHECK_EQ(stat_sum().error, 0);
}

/* A port that a program chose: it works, from wherever the packets come. */
TEST(port_that_names_no_core)
{
	struct address wanted = address_of("127.0.0.1", 40003);
	int listening, fd, taken;
	char byte;

	begin(true);
	listening = listener("127.0.0.1", SERVER);
	fd = unconnected("127.0.0.1");
	NEED(!bind(fd, &wanted.any, wanted.length));
	NEED_EQ(try_connect(fd, "127.0.0.1", SERVER), 0);
	taken = accept(listening, NULL, NULL);
	NEED(taken >= 0);
	stat_reset();
	pin(1);
	NEED(write(taken, "a", 1) == 1);
	NEED(read(fd, &byte, 1) == 1);
	check_incoming(fd, 1);
	CHECK(stat_sum().error > 0);
	CHECK_EQ(stat_sum().error, stat_sum().total);
}
