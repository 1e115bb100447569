// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest: cpus=3 modules=fastsocket variants=patched,patched-debug
 *
 * TIME-WAIT in the rows of cores: how many there are, how many there may be,
 * and that they end. Each test has a network namespace; what it leaves goes
 * with that.
 */
#include "est.h"

#define MAX_TW		"/proc/sys/net/ipv4/tcp_max_tw_buckets"
#define TW_RECYCLE	"/proc/sys/net/ipv4/tcp_tw_recycle"
#define FIN_TIMEOUT	"/proc/sys/net/ipv4/tcp_fin_timeout"
#define MANY		"180000"
#define CPUS		3

static int server_fd;

static void begin_waiting(void)
{
	est_begin(1, 1);
	/* These are the same for all namespaces. */
	NEED(ktap_write(MAX_TW, MANY));
	NEED(ktap_write(TW_RECYCLE, "0"));
	NEED(ktap_write(FIN_TIMEOUT, "60"));
	NEED(WAIT_FOR(number_of_time_wait() == 0, 20));
	NEED(unshare(CLONE_NEWNET) == 0);
	set_loopback_up();
	server_fd = listener();
}

static void make_on(int cpu, int count)
{
	int client, server;

	pin(cpu);
	while (count--) {
		open_pair(server_fd, AF_INET, &client, &server);
		close_in_order(server, client);
	}
}

static void make_on_each(int count)
{
	int cpu;

	for (cpu = 0; cpu < CPUS; cpu++)
		make_on(cpu, count);
}

/* A counter of /proc/net/netstat, of this namespace. */
static long counted(const char *name)
{
	static char text[16384];
	char *names, *values, *word, *value, *rest[2];

	names = strstr(ktap_read("/proc/self/net/netstat", text, sizeof(text)),
		       "TcpExt: ");
	NEED(names);
	values = strstr(names + 1, "TcpExt: ");
	NEED(values);
	values[-1] = '\0';
	word = strtok_r(names, " ", &rest[0]);
	value = strtok_r(values, " ", &rest[1]);
	while (word && value && strcmp(word, name)) {
		word = strtok_r(NULL, " ", &rest[0]);
		value = strtok_r(NULL, " ", &rest[1]);
	}
	NEED(word && value);
	return atol(value);
}

TEST(all_are_counted)
{
	begin_waiting();
	make_on_each(20);
	CHECK(WAIT_FOR(number_of_time_wait() == 60, 5));
	CHECK_EQ(waiting(AF_INET, port_of(server_fd), 0), 60);
	/* The rows stay what they are, new ones go to that of all. */
	set_switch(EST_SWITCH, 0);
	make_on_each(20);
	CHECK(WAIT_FOR(number_of_time_wait() == 120, 5));
	CHECK_EQ(waiting(AF_INET, port_of(server_fd), 0), 120);
}

TEST(a_low_limit_is_kept)
{
	begin_waiting();
	NEED(ktap_write(MAX_TW, "10"));
	make_on_each(20);
	CHECK_EQ(number_of_time_wait(), 10);
	CHECK_EQ(waiting(AF_INET, port_of(server_fd), 0), 10);
}

/* Each core counts in lots of a sixteenth of its share of the limit. */
TEST(a_limit_is_nearly_kept)
{
	int seen;

	begin_waiting();
	NEED(ktap_write(MAX_TW, "300"));
	make_on_each(120);
	seen = number_of_time_wait();
	NOTE("%d, limit 300", seen);
	CHECK(seen >= 300);
	CHECK(seen <= 300 + 300 / 16);
	/* A higher limit makes room. */
	NEED(ktap_write(MAX_TW, "340"));
	make_on_each(20);
	CHECK(number_of_time_wait() >= 340);
}

/* After 3.5 times the time-out of a retransmission. */
TEST_WITHIN(recycled_ones_end, 60)
{
	begin_waiting();
	NEED(ktap_write(TW_RECYCLE, "1"));
	make_on_each(20);
	CHECK(WAIT_FOR(number_of_time_wait() == 0, 30));
	CHECK_EQ(counted("TWKilled"), 60);
	/* And once more: the row's timer had stopped. */
	make_on_each(20);
	CHECK(WAIT_FOR(counted("TWKilled") == 120, 30));
	CHECK_EQ(number_of_time_wait(), 0);
}

/* Of the slow wheel: orphans whose peer does not close. */
TEST_WITHIN(orphans_in_fin_wait_end, 90)
{
	enum { COUNT = 10 };
	int client, server[CPUS * COUNT], i;

	begin_waiting();
	NEED(ktap_write(FIN_TIMEOUT, "8"));
	for (i = 0; i < CPUS * COUNT; i++) {
		pin(i / COUNT);
		open_pair(server_fd, AF_INET, &client, &server[i]);
		close(client);
	}
	CHECK(WAIT_FOR(number_of_time_wait() == CPUS * COUNT, 5));
	CHECK(WAIT_FOR(number_of_time_wait() == 0, 60));
	CHECK_EQ(counted("TW"), CPUS * COUNT);
}

TEST_WITHIN(those_of_a_cpu_that_goes_end, 60)
{
	static const char path[] = "/sys/devices/system/cpu/cpu1/online";

	begin_waiting();
	NEED(ktap_write(TW_RECYCLE, "1"));
	make_on(1, 20);
	pin(0);
	if (!ktap_write(path, "0"))
		SKIP("CPU 1 stays");
	CHECK(WAIT_FOR(counted("TWKilled") == 20, 30));
	CHECK_EQ(number_of_time_wait(), 0);
	NEED(ktap_write(path, "1"));
}
