// SPDX-License-Identifier: GPL-2.0-only
/*
 * The switch and the CPUs change while connections are in use: none is reset,
 * none loses or mixes up a byte. And the switch and the counters themselves.
 *
 * guest: cpus=4 seconds=240 modules=fastsocket variants=patched,patched-debug
 */
#include "rfd.h"

#define SERVER	8080

TEST(off_until_switched_on)
{
	/* the first test of the first program to look: nobody has written yet */
	module_need();
	CHECK_EQ(ktap_read_number(SWITCH), 0);
	begin(false);
	steer(true);
	steer(false);
}

TEST(switch_takes_0_and_1_only)
{
	begin(true);
	CHECK(!ktap_write(SWITCH, "2") && errno == EINVAL);
	CHECK(!ktap_write(SWITCH, "-1"));
	CHECK(!ktap_write(SWITCH, "on"));
	CHECK(!ktap_write(SWITCH, "\n"));
	CHECK_EQ(ktap_read_number(SWITCH), 1);
	steer(false);
}

TEST(counters_have_the_agreed_form)
{
	char text[16384], *line;
	int rows = 0;

	begin(true);
	NEED(pread(stat_fd, text, sizeof(text), 0) > 0);
	CHECK_EQ(strcspn(text, " "), 3);
	for (line = text; (line = strchr(line, '\n')) && *++line; rows++)
		CHECK_EQ(atoi(line), rows);
	CHECK_EQ(rows, cpus());
	line = strtok(text, "\n");
	CHECK(!strcmp(strtok(line, " "), "CPU"));
	CHECK(!strcmp(strtok(NULL, " "), "Pass_total"));
	CHECK(!strcmp(strtok(NULL, " "), "Steer_total"));
	CHECK(!strcmp(strtok(NULL, " "), "Steer_remote"));
	CHECK(!strcmp(strtok(NULL, " "), "Steer_local"));
	CHECK(!strcmp(strtok(NULL, " "), "Steer_error"));
	CHECK(!strcmp(strtok(NULL, " "), "Port_exhausted"));
	CHECK(!strtok(NULL, " "));
}

TEST(a_write_resets_the_counters)
{
	struct stat_row sum;
	int fd;

	begin(true);
	listener("127.0.0.1", SERVER);
	fd = connected("127.0.0.1", SERVER);
	CHECK(stat_sum().total > 0);
	CHECK(stat_sum().pass > 0);
	reset(fd);
	usleep(50 * 1000);
	stat_reset();
	sum = stat_sum();
	CHECK_EQ(sum.pass + sum.total + sum.remote + sum.local + sum.error, 0);
}

TEST(counters_are_those_of_the_first_namespace)
{
	pid_t child;

	begin(true);
	/* 2.6.32 remembers for a process what it saw before its namespace */
	child = fork();
	if (!child)
		_exit(access("/proc/self/net/steer_stat", F_OK) == 0);
	CHECK(ktap_child_fine(child));
	listener("127.0.0.1", SERVER);
	reset(connected("127.0.0.1", SERVER));
	CHECK(stat_sum().total > 0);
}

TEST(off_means_off)
{
	struct stat_row sum;
	int i;

	begin(false);
	listener("127.0.0.1", SERVER);
	for (i = 0; i < 100; i++)
		reset(connected("127.0.0.1", SERVER));
	sum = stat_sum();
	CHECK_EQ(sum.pass + sum.total + sum.exhausted, 0);
}

/* --- connections in use --- */

#define PAIRS	8

static int listening;
static volatile int *stop;	/* shared with the children */

/* Moving from CPU to CPU, send numbers and expect them back in order. */
static void client(int which, const char *host)
{
	unsigned int sent, got, i;
	int fd;

	pin(which % cpus());
	fd = connected(host, SERVER);
	for (i = 0; !*stop; i++) {
		sent = i * 2654435761u + which;
		NEED(write(fd, &sent, 4) == 4);
		NEED(recv(fd, &got, 4, MSG_WAITALL) == 4);
		NEED_EQ(got, sent);
	}
	NEED(i > 10);
	shutdown(fd, SHUT_WR);
	NEED_EQ(read(fd, &got, 4), 0);	/* an end, no reset */
	_exit(0);
}

static void server(void)
{
	unsigned int number;
	ssize_t length;
	int fd = accept(listening, NULL, NULL);

	NEED(fd >= 0);
	while ((length = recv(fd, &number, 4, MSG_WAITALL)) == 4)
		NEED(write(fd, &number, 4) == 4);
	NEED_EQ(length, 0);
	_exit(0);
}

/* Pairs of processes that talk, half over IPv6, while `disturb` does its work. */
static void keep_talking(void (*disturb)(void))
{
	pid_t child[2 * PAIRS];
	int i;

	stop = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	NEED(stop != MAP_FAILED);
	listening = listener("::", SERVER);
	for (i = 0; i < PAIRS; i++) {
		child[2 * i] = fork();
		if (!child[2 * i])
			server();
		child[2 * i + 1] = fork();
		if (!child[2 * i + 1])
			client(i, i % 2 ? "::1" : "127.0.0.1");
	}
	usleep(200 * 1000);
	disturb();
	*stop = 1;
	for (i = 0; i < 2 * PAIRS; i++)
		CHECK(ktap_child_fine(child[i]));
}

/* 200 times; on a machine that is slow at it, as often as 10 s allow. */
static void toggle(void)
{
	double until = ktap_now() + 10;
	int i;

	for (i = 0; i < 200 && (i < 20 || ktap_now() < until); i++) {
		steer(i % 2);
		usleep(5000);
	}
	NOTE("switched %d times", i);
	steer(true);
	usleep(100 * 1000);
}

TEST_WITHIN(switching_resets_no_connection, 60)
{
	begin(true);
	keep_talking(toggle);
	stat_note("in the end");
	CHECK(stat_sum().remote > 0);
}

static void set_online(int cpu, bool online)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/online",
		 cpu);
	NEED(ktap_write(path, online ? "1" : "0"));
}

static void unplug(void)
{
	int i;

	for (i = 0; i < 6; i++) {
		set_online(1 + i % 3, false);
		usleep(100 * 1000);
		set_online(1 + i % 3, true);
		usleep(50 * 1000);
	}
}

TEST_WITHIN(unplugging_resets_no_connection, 60)
{
	begin(true);
	keep_talking(unplug);
	stat_note("unplugged 6 times");
}

/* The core is gone: its packets are received elsewhere and counted as errors. */
TEST_WITHIN(packets_of_a_core_that_is_offline, 60)
{
	struct stat_row before;
	int fd, taken;
	char byte;

	begin(true);
	listening = listener("127.0.0.1", SERVER);
	pin(2);
	fd = connected("127.0.0.1", SERVER);
	pin(0);
	taken = accept(listening, NULL, NULL);
	NEED(taken >= 0);
	CHECK_EQ(stat_sum().error, 0);

	set_online(2, false);
	stat_reset();
	NEED(write(taken, "a", 1) == 1);
	NEED(read(fd, &byte, 1) == 1);
	check_incoming(fd, 0);
	before = stat_sum();
	CHECK(before.error > 0);
	CHECK_EQ(before.total, before.error);

	set_online(2, true);
	stat_reset();
	NEED(write(taken, "a", 1) == 1);
	NEED(read(fd, &byte, 1) == 1);
	check_incoming(fd, 2);
	CHECK_EQ(stat_sum().error, 0);
	CHECK(stat_sum().remote > 0);
}
