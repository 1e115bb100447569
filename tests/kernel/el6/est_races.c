// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest: seconds=240 cpus=4 modules=fastsocket variants=patched,patched-debug
 *
 * Connections whose packets change CPUs while they come and go, by RPS on the
 * loopback device, by Receive Flow Deliver, and by the switch of the tables
 * itself: none is reset, none loses or mixes up a byte, nothing is left.
 */
#include "est.h"

#include <net/if.h>

#define CPUS	4
#define PAIRS	6
#define BURST	4	/* numbers under way at once */

/* What the processes of a test share */
struct talk {
	volatile int stop;
	volatile long connections, bursts;
};

static struct talk *talk;

static const char *const slabs[] = {
	"TCP", "TCPv6", "tw_sock_TCP", "tw_sock_TCPv6", "tcp_bind_bucket",
};

#define SLABS	((int)(sizeof(slabs) / sizeof(slabs[0])))
#define SLACK	300	/* what CPUs keep for themselves */

static long in_use(const char *name)
{
	static char text[65536];
	char *line = ktap_read("/proc/slabinfo", text, sizeof(text));
	long used;

	for (; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, name, strlen(name)) &&
		    line[strlen(name)] == ' ' &&
		    sscanf(line + strlen(name), " %ld", &used) == 1)
			return used;
	}
	return 0;
}

static void send_at_once(int fd)
{
	int one = 1;

	NEED(!setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)));
}

/* Sends numbers back, and closes when told, or when the other end has. */
static void server(int listening, int cpu)
{
	unsigned int number;
	ssize_t length;
	int fd;

	pin(cpu);
	while ((fd = accept(listening, NULL, NULL)) >= 0) {
		send_at_once(fd);
		while ((length = recv(fd, &number, 4, MSG_WAITALL)) == 4 &&
		       number)
			NEED(write(fd, &number, 4) == 4);
		NEED(length == 4 || !length);
		close(fd);
	}
	_exit(0);
}

/* One connection after the other; the port is the same, or one of its own. */
static void client(int listening, int family, int which)
{
	int port = port_of(listening), local = 0, error, fd, i, j;
	unsigned int sent, got;

	for (i = 0; !talk->stop; i++) {
		pin((which + i) % CPUS);
		fd = bound_socket(family, local);
		/* The last one may still wait for its last ACK. */
		NEED(WAIT_FOR((error = try_connect(fd, family, port)) !=
			      EADDRNOTAVAIL, 10));
		NEED_EQ(error, 0);
		if (which % 2)
			local = port_of(fd);
		send_at_once(fd);
		for (j = 0; j < 8; j++) {
			sent = 1 + (unsigned int)which * 1000000 + i * 100 +
			       j * BURST;
			for (int k = 0; k < BURST; k++, sent++)
				NEED(write(fd, &sent, 4) == 4);
			for (int k = BURST; k; k--) {
				NEED(recv(fd, &got, 4, MSG_WAITALL) == 4);
				NEED_EQ(got, sent - k);
			}
			__sync_fetch_and_add(&talk->bursts, 1);
		}
		/* TIME-WAIT there, here, or none */
		if (i % 3 == 0) {
			sent = 0;
			NEED(write(fd, &sent, 4) == 4);
			NEED_EQ(recv(fd, &got, 4, MSG_WAITALL), 0);
			close(fd);
		} else if (i % 3 == 1) {
			NEED(!shutdown(fd, SHUT_WR));
			NEED_EQ(recv(fd, &got, 4, MSG_WAITALL), 0);
			close(fd);
		} else {
			NEED(!shutdown(fd, SHUT_WR));
			NEED_EQ(recv(fd, &got, 4, MSG_WAITALL), 0);
			drop(fd);
		}
		__sync_fetch_and_add(&talk->connections, 1);
	}
	_exit(0);
}

/* Pairs of processes that talk while `disturb` does its work. */
static void keep_talking(void (*disturb)(void))
{
	pid_t servers[PAIRS], clients[PAIRS];
	int i, family, listening;

	talk = mmap(NULL, sizeof(*talk), PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	NEED(talk != MAP_FAILED);
	for (i = 0; i < PAIRS; i++) {
		family = i < PAIRS / 2 ? AF_INET : AF_INET6;
		listening = listener_of(family, 64);
		servers[i] = fork();
		if (!servers[i])
			server(listening, i % CPUS);
		clients[i] = fork();
		if (!clients[i])
			client(listening, family, i);
		close(listening);
	}
	CHECK(WAIT_FOR(talk->connections >= PAIRS, 20));
	disturb();
	talk->stop = 1;
	for (i = 0; i < PAIRS; i++) {
		CHECK(ktap_child_fine(clients[i]));
		end(servers[i]);
	}
	NOTE("%ld connections, %ld bursts", talk->connections, talk->bursts);
}

static void note_found(void)
{
	NOTE("inserted %ld, found local %ld, global %ld, remote %ld",
	     est_stat(ALL_CPUS, EST_INSERT), est_stat(ALL_CPUS, EST_LOCAL),
	     est_stat(ALL_CPUS, EST_GLOBAL), est_stat(ALL_CPUS, EST_REMOTE));
}

#define CONNECTIONS	ktap_rounds(1000)

static bool going(void)
{
	return talk->connections < CONNECTIONS && !ktap_verdict->failures;
}

static void set_rps(int mask)
{
	char text[8];

	snprintf(text, sizeof(text), "%x", mask);
	NEED(ktap_write(LO_RPS, text));
}

static void move_packets(void)
{
	int i;

	for (i = 0; going(); i++) {
		set_rps(i % 2 ? 1 << (i / 2 % CPUS) : i % (1 << CPUS));
		usleep(2000);
	}
	set_rps(0);
	NOTE("RPS changed %d times", i);
}

TEST_WITHIN(rps_resets_no_connection, 90)
{
	est_begin(1, 0);
	keep_talking(move_packets);
	note_found();
	CHECK(est_stat(ALL_CPUS, EST_INSERT) >= CONNECTIONS);
	CHECK(est_stat(ALL_CPUS, EST_LOCAL) > 0);
	CHECK(est_stat(ALL_CPUS, EST_REMOTE) > 0);
}

static void move_all(void)
{
	int i;

	for (i = 0; going(); i++) {
		if (i % 3)
			set_rps(i % (1 << CPUS));
		else
			set_switch(RFD_SWITCH, i / 3 % 2);
		if (i % 4 == 3)
			set_switch(EST_SWITCH, i / 4 % 2);
		usleep(2000);
	}
	set_rps(0);
	set_switch(EST_SWITCH, 0);
	NOTE("switched %d times", i);
}

TEST_WITHIN(switching_resets_no_connection, 90)
{
	est_begin(1, 1);
	keep_talking(move_all);
	note_found();
	CHECK(est_stat(ALL_CPUS, EST_INSERT) > 0);
	CHECK(est_stat(ALL_CPUS, EST_REMOTE) > 0);
}

static void switch_rfd(void)
{
	int i;

	for (i = 0; going(); i++) {
		set_switch(RFD_SWITCH, i % 2);
		usleep(5000);
	}
}

/* In a namespace of its own: TIME-WAIT goes with that. */
TEST_WITHIN(nothing_is_left, 120)
{
	long before[SLABS];
	pid_t child;
	int i;

	est_begin(1, 1);
	if (access("/proc/slabinfo", R_OK) < 0)
		SKIP("no /proc/slabinfo");
	for (i = 0; i < SLABS; i++)
		before[i] = in_use(slabs[i]);
	child = fork();
	NEED(child >= 0);
	if (!child) {
		NEED(unshare(CLONE_NEWNET) == 0);
		set_loopback_up();
		keep_talking(switch_rfd);
		_exit(0);
	}
	CHECK(ktap_child_fine(child));
	for (i = 0; i < SLABS; i++) {
		CHECK(WAIT_FOR(in_use(slabs[i]) <= before[i] + SLACK, 20));
		NOTE("%s: %ld before, %ld after", slabs[i], before[i],
		     in_use(slabs[i]));
	}
	note_found();
	CHECK(est_stat(ALL_CPUS, EST_INSERT) >= CONNECTIONS);
}
