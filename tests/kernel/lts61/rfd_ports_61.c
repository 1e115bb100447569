// SPDX-License-Identifier: GPL-2.0-only
/*
 * What only a newer kernel has in its search for a source port; the rest is in
 * common/rfd_ports.c.
 *
 * guest: cpus=4 variants=patched
 */
#include "rfd.h"

#define SERVER	8080

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

/* Such a socket gets its port at connect(), on the CPU it is on by then. */
TEST(bind_without_port_leaves_the_choice_to_connect)
{
	struct address any = address_of("127.0.0.1", 0);
	int fd, i, one = 1;

	begin(true);
	listener("127.0.0.1", SERVER);
	for (i = 0; i < 20; i++) {
		pin(0);
		fd = unconnected("127.0.0.1");
		NEED(!setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one,
				 sizeof(one)));
		NEED(!bind(fd, &any.any, any.length));
		pin(1);
		NEED_EQ(try_connect(fd, "127.0.0.1", SERVER), 0);
		CHECK_EQ(local_port(fd) & port_mask(), 1);
		reset(fd);
	}
}

/*
 * connect() takes every second of its ports first, bind() the others: so many
 * listeners do not take the ports that connect() looks at first.
 */
TEST(bind_and_connect_begin_at_different_ports)
{
	unsigned int n = port_mask() + 1;
	int low = 40000, high = low + 8 * n - 1, i, fd;

	begin(true);
	listener("127.0.0.1", SERVER);
	set_range(low, high);
	pin(0);
	for (i = 0; i < 4; i++) {
		fd = connected("127.0.0.1", SERVER);
		CHECK_EQ((local_port(fd) - low) / n % 2, 0);
		fd = unconnected("127.0.0.1");
		NEED(listen(fd, 1) == 0);
		CHECK_EQ((local_port(fd) - low) / n % 2, 1);
	}
	CHECK_EQ(stat_sum().exhausted, 0);
}
