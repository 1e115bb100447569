// SPDX-License-Identifier: GPL-2.0-only
/*
 * Switched on by the kernel's command line, before there is a process.
 *
 * guest: append=rfd.enable_receive_flow_deliver=1 variants=patched,patched-debug
 */
#include "rfd.h"

TEST(on_from_the_start)
{
	struct stat_row sum;
	int fd;

	NEED_EQ(ktap_read_number(SWITCH), 1);
	stat_fd = open(STAT, O_RDWR);
	NEED(stat_fd >= 0);
	up("lo");
	pin(1);
	listener("127.0.0.1", 8080);
	fd = connected("127.0.0.1", 8080);
	CHECK_EQ(local_port(fd) & port_mask(), 1);
	sum = stat_sum();
	CHECK(sum.total > 0);
	CHECK_EQ(sum.error, 0);
}
