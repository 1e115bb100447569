// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module that carries the switch comes and goes: with it the kernel steers
 * or does not, without it never.
 *
 * guest: cpus=4 modules=fastsocket variants=patched,patched-debug
 */
#include "rfd.h"

#define SERVER	8080

/* How many of 20 connections from CPU 1 have a port that names it. */
static int named(void)
{
	int i, fd, fine = 0;

	pin(1);
	for (i = 0; i < 20; i++) {
		fd = connected("127.0.0.1", SERVER);
		fine += (local_port(fd) & port_mask()) == 1;
		reset(fd);
	}
	return fine;
}

static void begin_without(void)
{
	if (module_loaded())
		NEED(module_unload());
	NEED(unshare(CLONE_NEWNET) == 0);
	up("lo");
	listener("127.0.0.1", SERVER);
}

TEST(off_when_loaded_without_parameters)
{
	begin_without();
	NEED(module_load(""));
	CHECK_EQ(ktap_read_number(SWITCH), 0);
	CHECK(named() < 20);
}

TEST(on_when_loaded_so)
{
	begin_without();
	NEED(module_load("enable_receive_flow_deliver=1"));
	CHECK_EQ(ktap_read_number(SWITCH), 1);
	CHECK_EQ(named(), 20);
}

TEST(loads_with_0_and_1_only)
{
	begin_without();
	CHECK(!module_load("enable_receive_flow_deliver=2") && errno == EINVAL);
	CHECK(!module_load("enable_receive_flow_deliver") && errno == EINVAL);
	CHECK(!module_load("enable_receive_flow_deliver=yes") &&
	      errno == EINVAL);
	CHECK(!module_loaded());
	CHECK(named() < 20);
}

TEST(unloading_switches_off)
{
	char text[64];
	int open_one;

	begin_without();
	NEED(module_load("enable_receive_flow_deliver=1"));
	open_one = open("/proc/1/net/steer_stat", O_RDWR);
	NEED(open_one >= 0);
	CHECK_EQ(named(), 20);
	NEED(module_unload());
	CHECK(named() < 20);
	CHECK(read(open_one, text, sizeof(text)) < 0);
	CHECK(write(open_one, "0", 1) < 0);
	close(open_one);
	CHECK(access("/proc/1/net/steer_stat", F_OK) < 0 && errno == ENOENT);
}

/* Counters of another life are not shown. */
TEST(counters_begin_at_zero)
{
	begin_without();
	NEED(module_load("enable_receive_flow_deliver=1"));
	CHECK_EQ(named(), 20);
	NEED(module_unload());
	NEED(module_load("enable_receive_flow_deliver=0"));
	stat_fd = open("/proc/1/net/steer_stat", O_RDWR);
	NEED(stat_fd >= 0);
	CHECK_EQ(stat_sum().pass + stat_sum().total, 0);
}
