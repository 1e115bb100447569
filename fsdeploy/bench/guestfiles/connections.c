// SPDX-License-Identifier: GPL-2.0-only
/*
 * Short TCP connections over the loopback device of a quick guest: one server
 * and one client process a CPU, each pinned, each around one epoll set.
 *
 *	server:  client -> server             accept, read, write, close
 *	proxy:   client -> proxy -> backend   accept, read, connect, write,
 *	                                      read, write, close both
 *
 * A connection carries one request and one answer of MESSAGE bytes; the answer
 * is the request with its first byte changed, so a wrong one is noticed. The
 * serving side closes first, as in HTTP/1.0, so that TIME-WAIT never keeps a
 * client from a port. Each client has IN_FLIGHT connections open and takes the
 * next from a common count, so no CPU's share is fixed.
 *
 * Backends listen each on a port of their own and a proxy talks to that of its
 * CPU: they cost time but no lock that the proxies' side is measured by.
 *
 * The environment says what to do:
 *	BENCH_MODE	server or proxy
 *	BENCH_LISTENERS	shared (one socket for all workers) or own (one each,
 *			by SO_REUSEPORT)
 *	BENCH_SPAWN	1: each worker asks /dev/fastsocket for a clone of the
 *			shared listener
 *	BENCH_PHASES	connections of each phase, "500,5000"
 *	BENCH_SECONDS	limit of a phase
 *	BENCH_SETTINGS	"PATH=VALUE PATH=VALUE", written before the first phase
 *	BENCH_COUNTS	1: lock_stat of each phase, and on which CPU a
 *			connection's packets came in; costs time
 *
 * The report is KTAP, a phase a test, with lines "# KEY …" of figures before
 * its result; fsdeploy/bench/measure.py reads them. A phase with a connection
 * that failed is not ok. All is written at the end: on the way it would take
 * time from the phase that runs.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "fastsocket/fastsocket_abi.h"

#define MESSAGE		64
#define IN_FLIGHT	16
#define MAX_CPUS	64
#define MAX_PHASES	4
#define MAX_FDS		8192
#define EVENTS		64
#define BACKLOG		4096

/*
 * Below 1024, so that Receive Flow Deliver knows packets from there as those
 * of an active connection.
 */
#define FRONT_PORT	80
#define BACKEND_PORT	100

/* Clients and proxies connect from these. */
#define FIRST_PORT	10240
#define LAST_PORT	65535
#define TEXT(macro)	#macro
#define RANGE(first, last) TEXT(first) " " TEXT(last)

#define LOCK_STAT	"/proc/lock_stat"

/* Seconds past a phase's limit in which a client has said that it is done. */
#define GRACE		10

enum state {
	UNUSED,
	LISTENING,
	CONNECTING,	/* until writable; then the request goes out */
	ANSWER,		/* wants the answer and the end after it */
	REQUEST,	/* wants the request */
	WAITING,	/* a proxy's front side while the back side works */
};

struct connection {
	enum state state;
	int peer;	/* a proxy's other side */
	int got;
	char data[MESSAGE];
};

/* Counted by one process each, read by the parent between phases. */
struct client_counts {
	long done, connect, reset, incomplete, wrong, late, local;
} __attribute__((aligned(64)));

struct server_counts {
	long accepted, local, errors, active, active_local;
} __attribute__((aligned(64)));

struct shared {
	long next, last;	/* connections: the next to begin, the end */
	double deadline;
	struct client_counts client[MAX_CPUS];
	struct server_counts server[MAX_CPUS];
	struct server_counts backend[MAX_CPUS];
};

static struct shared *shared;
static struct connection connections[MAX_FDS];
static int set = -1;		/* this process's epoll set */
static int cpus;
static bool proxy, own_listeners, spawning, counting;

static FILE *report;

static void bail(const char *what)
{
	printf("KTAP version 1\nBail out! %s: %s\n", what, strerror(errno));
	fflush(stdout);
	_exit(1);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool fine;

	if (fd < 0)
		return false;
	fine = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return fine;
}

/*
 * SCHED_BATCH: a worker runs until it waits. Else each packet would switch
 * between the client and the server of a CPU, which packets of clients
 * elsewhere do not.
 */
static void become_worker(int cpu)
{
	struct sched_param param = { 0 };
	cpu_set_t mask;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	CPU_ZERO(&mask);
	CPU_SET(cpu, &mask);
	if (sched_setaffinity(0, sizeof(mask), &mask) < 0 ||
	    syscall(SYS_sched_setscheduler, 0, SCHED_BATCH, &param) < 0)
		_exit(2);
	set = epoll_create1(EPOLL_CLOEXEC);
	if (set < 0)
		_exit(2);
}

static bool watch(int operation, int fd, unsigned int events)
{
	struct epoll_event event = { .events = events, .data.fd = fd };

	return epoll_ctl(set, operation, fd, &event) == 0;
}

static void drop(int fd)
{
	connections[fd].state = UNUSED;
	close(fd);
}

/* A socket on its way to a port of this host; -1 and errno if it is not. */
static int start_connect(int port)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	if (fd < MAX_FDS &&
	    (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 ||
	     errno == EINPROGRESS) && watch(EPOLL_CTL_ADD, fd, EPOLLOUT)) {
		connections[fd].state = CONNECTING;
		connections[fd].got = 0;
		return fd;
	}
	close(fd);
	return -1;
}

static bool connected(int fd)
{
	socklen_t size = sizeof(int);
	int error = 0;

	return !getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) && !error;
}

/* Whether the last packet of a connection came in on this CPU; kernels < 3.19 cannot say. */
static bool came_in_here(int fd, int cpu)
{
	socklen_t size = sizeof(int);
	int incoming;

	return !getsockopt(fd, SOL_SOCKET, SO_INCOMING_CPU, &incoming, &size) &&
	       incoming == cpu;
}

static bool send_all(int fd, const char *data)
{
	return send(fd, data, MESSAGE, MSG_NOSIGNAL) == MESSAGE;
}

enum received { MORE, END, BROKEN };

/* Take what has come of a message, no more than there is room for. */
static enum received receive(int fd)
{
	struct connection *one = &connections[fd];
	char surplus;
	ssize_t length;

	for (;;) {
		if (one->got < MESSAGE)
			length = recv(fd, one->data + one->got,
				      MESSAGE - one->got, 0);
		else
			length = recv(fd, &surplus, 1, 0);
		if (length == 0)
			return END;
		if (length < 0)
			return errno == EAGAIN ? MORE : BROKEN;
		if (one->got == MESSAGE)
			return BROKEN;
		one->got += length;
		/* A request is whole without an end. */
		if (one->got == MESSAGE && one->state == REQUEST)
			return MORE;
	}
}

/* --- clients ------------------------------------------------------------ */

static int in_flight;

static void fill(char *data, long number)
{
	memset(data, '.', MESSAGE);
	snprintf(data, MESSAGE, "Q %ld", number);
}

/* Begin connections until one is on its way or the phase has no more. */
static void begin_one(struct client_counts *counts)
{
	long number;
	int fd;

	while ((number = __sync_fetch_and_add(&shared->next, 1)) <
	       shared->last) {
		fd = start_connect(FRONT_PORT);
		if (fd < 0) {
			counts->connect++;
			continue;
		}
		/* The number waits in `peer`, which a client has no use for. */
		connections[fd].peer = number;
		in_flight++;
		return;
	}
}

static void client_event(int fd, int cpu, unsigned int events)
{
	struct client_counts *counts = &shared->client[cpu];
	struct connection *one = &connections[fd];
	char expected[MESSAGE];

	if (one->state == CONNECTING) {
		fill(one->data, one->peer);
		if (!connected(fd) || (events & EPOLLERR)) {
			counts->connect++;
		} else if (!send_all(fd, one->data) ||
			   !watch(EPOLL_CTL_MOD, fd, EPOLLIN)) {
			counts->reset++;
		} else {
			one->state = ANSWER;
			return;
		}
	} else {
		switch (receive(fd)) {
		case MORE:
			return;
		case BROKEN:
			counts->reset++;
			break;
		case END:
			fill(expected, one->peer);
			expected[0] = 'A';
			if (one->got < MESSAGE)
				counts->incomplete++;
			else if (memcmp(one->data, expected, MESSAGE))
				counts->wrong++;
			else
				counts->done++;
			break;
		}
	}
	if (counting)
		counts->local += came_in_here(fd, cpu);
	drop(fd);
	in_flight--;
	begin_one(counts);
}

static void give_up(struct client_counts *counts)
{
	int fd;

	for (fd = 0; fd < MAX_FDS; fd++) {
		if (connections[fd].state == UNUSED)
			continue;
		drop(fd);
		counts->late++;
	}
	in_flight = 0;
}

static void client_phase(int cpu)
{
	struct client_counts *counts = &shared->client[cpu];
	struct epoll_event events[EVENTS];
	int i, count, round = 0;

	for (i = 0; i < IN_FLIGHT; i++)
		begin_one(counts);
	while (in_flight) {
		count = epoll_wait(set, events, EVENTS, 100);
		for (i = 0; i < count; i++) {
			if (connections[events[i].data.fd].state != UNUSED)
				client_event(events[i].data.fd, cpu,
					     events[i].events);
		}
		/* The clock is dear in a guest. */
		if ((count <= 0 || ++round % 256 == 0) &&
		    now() > shared->deadline)
			give_up(counts);
	}
}

/*
 * A lock that nobody has taken since boot counts as the boot CPU's, so with a
 * port a connection the first use of each port would look like a line that had
 * to come from another CPU. Use all of them once: who takes a port's lock
 * after another CPU from now on took a port of the other one.
 */
static void touch_ports(int cpu)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int fd, port;

	for (port = FIRST_PORT + (cpus + cpu - FIRST_PORT % cpus) % cpus;
	     port <= LAST_PORT; port += cpus) {
		fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		address.sin_port = htons(port);
		/* One in use is that of a client that connects already. */
		if (fd < 0 ||
		    (bind(fd, (struct sockaddr *)&address, sizeof(address)) &&
		     errno != EADDRINUSE))
			_exit(2);
		close(fd);
	}
}

static void run_client(int cpu, int go, int done)
{
	char byte;

	become_worker(cpu);
	if (counting)
		touch_ports(cpu);
	while (read(go, &byte, 1) == 1) {
		client_phase(cpu);
		if (write(done, &byte, 1) != 1)
			break;
	}
	_exit(0);
}

/* --- servers, proxies and backends --------------------------------------- */

static int listen_on(int port, bool own)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_ANY),
	};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int one = 1;

	if (fd < 0)
		bail("socket");
	if (own && setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)))
		bail("SO_REUSEPORT");
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) ||
	    listen(fd, BACKLOG))
		bail("listen");
	return fd;
}

/* One a call, as nginx does it: the next is whose turn it is. */
static void accept_one(int listener, int cpu, struct server_counts *counts)
{
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd < 0) {
		/* Another worker was there first. */
		if (errno != EAGAIN)
			counts->errors++;
		return;
	}
	counts->accepted++;
	if (counting)
		counts->local += came_in_here(fd, cpu);
	if (fd >= MAX_FDS || !watch(EPOLL_CTL_ADD, fd, EPOLLIN)) {
		counts->errors++;
		close(fd);
		return;
	}
	connections[fd].state = REQUEST;
	connections[fd].peer = -1;
	connections[fd].got = 0;
}

static void drop_both(int fd)
{
	if (connections[fd].peer >= 0)
		drop(connections[fd].peer);
	drop(fd);
}

static void answer(int fd, struct server_counts *counts)
{
	struct connection *one = &connections[fd];

	one->data[0] = 'A';
	counts->errors += !send_all(fd, one->data);
	drop(fd);
}

static void ask_backend(int front, int cpu, struct server_counts *counts)
{
	int back = start_connect(BACKEND_PORT + cpu);

	if (back < 0) {
		counts->errors++;
		drop(front);
		return;
	}
	counts->active++;
	connections[back].peer = front;
	connections[front].peer = back;
	connections[front].state = WAITING;
}

static void server_event(int fd, int cpu, bool relay,
			 struct server_counts *counts)
{
	struct connection *one = &connections[fd];
	enum received received;

	switch (one->state) {
	case UNUSED:
		break;
	case LISTENING:
		accept_one(fd, cpu, counts);
		break;
	case CONNECTING:
		if (connected(fd) &&
		    send_all(fd, connections[one->peer].data) &&
		    watch(EPOLL_CTL_MOD, fd, EPOLLIN)) {
			one->state = ANSWER;
			break;
		}
		counts->errors++;
		drop_both(fd);
		break;
	case ANSWER:
		received = receive(fd);
		if (received == MORE)
			break;
		if (received == BROKEN || one->got < MESSAGE ||
		    !send_all(one->peer, one->data))
			counts->errors++;
		if (counting)
			counts->active_local += came_in_here(fd, cpu);
		drop_both(fd);
		break;
	case REQUEST:
		received = receive(fd);
		if (received != MORE) {
			counts->errors++;
			drop(fd);
		} else if (one->got == MESSAGE) {
			if (relay)
				ask_backend(fd, cpu, counts);
			else
				answer(fd, counts);
		}
		break;
	case WAITING:
		/* A client that gave up. */
		counts->errors++;
		drop_both(fd);
		break;
	}
}

static bool spawn(int listener)
{
	struct fsocket_ioctl_arg what = {
		.fd = listener,
		.op.spawn.cpu = FSOCKET_CPU_ANY,
	};
	int device = open(FSOCKET_DEVICE, O_RDWR | O_CLOEXEC);
	bool fine;

	if (device < 0)
		return false;
	fine = ioctl(device, FSOCKET_IOC_SPAWN_LISTEN, &what) == 0;
	close(device);
	return fine;
}

static void serve(int listener, int cpu, bool relay,
		  struct server_counts *counts)
{
	struct epoll_event events[EVENTS];
	int i, count;

	become_worker(cpu);
	connections[listener].state = LISTENING;
	if (spawning && !spawn(listener))
		_exit(2);
	if (!watch(EPOLL_CTL_ADD, listener, EPOLLIN))
		_exit(2);
	for (;;) {
		count = epoll_wait(set, events, EVENTS, -1);
		for (i = 0; i < count; i++)
			server_event(events[i].data.fd, cpu, relay, counts);
	}
}

/* Start one worker a CPU, on one listener for all or one each. */
static void start_servers(int port, int step, bool own, bool relay,
			  struct server_counts *counts)
{
	int listeners[MAX_CPUS], cpu, other;

	for (cpu = 0; cpu < cpus; cpu++)
		listeners[cpu] = cpu && !own && !step ? listeners[0] :
				 listen_on(port + step * cpu, own);
	for (cpu = 0; cpu < cpus; cpu++) {
		switch (fork()) {
		case -1:
			bail("fork");
			break;
		case 0:
			/* A listener nobody accepts from would swallow connections. */
			for (other = 0; other < cpus; other++) {
				if (listeners[other] != listeners[cpu])
					close(listeners[other]);
			}
			serve(listeners[cpu], cpu, relay, &counts[cpu]);
		}
	}
	for (cpu = 0; cpu < cpus; cpu++) {
		if (!cpu || listeners[cpu] != listeners[0])
			close(listeners[cpu]);
	}
}

/* --- the report ----------------------------------------------------------- */

/* The first lines of a file, after "# KEY WHEN "; none if it is not there. */
static void quote(const char *path, const char *key, const char *when, int lines)
{
	FILE *file = fopen(path, "re");
	char line[1024];

	if (!file)
		return;
	while (lines-- && fgets(line, sizeof(line), file))
		fprintf(report, "# %s %s %s%s", key, when, line,
			strchr(line, '\n') ? "" : "\n");
	fclose(file);
}

static void quote_state(const char *when)
{
	quote("/proc/net/softnet_stat", "softnet", when, MAX_CPUS);
	quote("/proc/net/steer_stat", "steer", when, MAX_CPUS + 1);
	quote("/proc/net/hash_stat", "hash", when, MAX_CPUS + 1);
	quote("/proc/stat", "stat", when, 1);
}

/*
 * The lines with a lock's counts, blanks squeezed; not those about places in
 * the code. The picture is taken when the file is opened.
 */
static void quote_locks(int file)
{
	static char text[4 << 20];
	char *line, *next, *colon, *from, *to;
	size_t length = 0;
	ssize_t more;

	while ((more = read(file, text + length, sizeof(text) - 1 - length)) > 0)
		length += more;
	text[length] = '\0';
	for (line = text; line && *line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		if (strstr(line, "*WARNING*")) {
			fprintf(report, "# locks off: %s\n", line);
			continue;
		}
		colon = strstr(line, ": ");
		if (!colon || !isdigit(colon[1 + strspn(colon + 1, " ")]))
			continue;
		for (from = to = line + strspn(line, " "); *line; line++) {
			if (line < from || (*line == ' ' && to[-1] == ' '))
				continue;
			*to++ = *line;
		}
		*to = '\0';
		fprintf(report, "# lock %s\n", from);
	}
}

static void wait_for_clients(int done)
{
	struct pollfd watched = { .fd = done, .events = POLLIN };
	double left;
	char byte;
	int i;

	for (i = 0; i < cpus; i++) {
		left = shared->deadline + GRACE - now();
		if (left < 0 || poll(&watched, 1, left * 1000) <= 0 ||
		    read(done, &byte, 1) != 1) {
			fprintf(report, "# %d clients did not end\n", cpus - i);
			return;
		}
	}
}

static long report_clients(const struct client_counts *before)
{
	const struct client_counts *now;
	long done = 0;
	int cpu;

	for (cpu = 0; cpu < cpus; cpu++, before++) {
		now = &shared->client[cpu];
		fprintf(report,
			"# client cpu=%d done=%ld connect=%ld reset=%ld incomplete=%ld wrong=%ld late=%ld local=%ld\n",
			cpu, now->done - before->done,
			now->connect - before->connect,
			now->reset - before->reset,
			now->incomplete - before->incomplete,
			now->wrong - before->wrong, now->late - before->late,
			now->local - before->local);
		done += now->done - before->done;
	}
	return done;
}

static void report_servers(const char *name, const struct server_counts *now,
			   const struct server_counts *before)
{
	int cpu;

	for (cpu = 0; cpu < cpus; cpu++, now++, before++)
		fprintf(report,
			"# %s cpu=%d accepted=%ld local=%ld errors=%ld active=%ld active_local=%ld\n",
			name, cpu, now->accepted - before->accepted,
			now->local - before->local,
			now->errors - before->errors,
			now->active - before->active,
			now->active_local - before->active_local);
}

/* Run a phase; true when every connection did what it should. */
static bool run_phase(long count, int seconds, const int *go, int done)
{
	static struct shared before;
	unsigned long long ticks;
	int cpu, locks = -1;
	double took;
	long good;

	quote_state("before");
	before = *shared;
	shared->next = 0;
	shared->last = count;
	if (counting && !write_file(LOCK_STAT, "0"))
		bail(LOCK_STAT);
	took = now();
	shared->deadline = took + seconds;
	ticks = __builtin_ia32_rdtsc();
	for (cpu = 0; cpu < cpus; cpu++) {
		if (write(go[cpu], "g", 1) != 1)
			bail("go");
	}
	wait_for_clients(done);
	ticks = __builtin_ia32_rdtsc() - ticks;
	took = now() - took;
	if (counting)
		locks = open(LOCK_STAT, O_RDONLY | O_CLOEXEC);
	quote_state("after");
	fprintf(report,
		"# phase connections=%ld in_flight=%d seconds=%.6f ticks=%llu\n",
		count, IN_FLIGHT * cpus, took, ticks);
	good = report_clients(before.client);
	report_servers("server", shared->server, before.server);
	if (proxy)
		report_servers("backend", shared->backend, before.backend);
	if (locks >= 0) {
		quote_locks(locks);
		close(locks);
	}
	return good == count;
}

static const char *word(const char *name)
{
	const char *value = getenv(name);

	errno = EINVAL;
	if (!value || !*value)
		bail(name);
	return value;
}

static void apply_settings(void)
{
	char *settings = getenv("BENCH_SETTINGS"), *one, *value;

	for (one = settings ? strtok(settings, " ") : NULL; one;
	     one = strtok(NULL, " ")) {
		value = strchr(one, '=');
		errno = EINVAL;
		if (!value)
			bail(one);
		*value++ = '\0';
		if (!write_file(one, value))
			bail(one);
	}
}

static void set_up(void)
{
	proxy = !strcmp(word("BENCH_MODE"), "proxy");
	own_listeners = !strcmp(word("BENCH_LISTENERS"), "own");
	spawning = !strcmp(word("BENCH_SPAWN"), "1");
	counting = !strcmp(word("BENCH_COUNTS"), "1");
	cpus = sysconf(_SC_NPROCESSORS_ONLN);
	errno = ERANGE;
	if (cpus > MAX_CPUS)
		bail("CPUs");
	/* No queue's limit and no shortage of ports shall be what is measured. */
	if (!write_file("/proc/sys/net/core/somaxconn", "4096") ||
	    !write_file("/proc/sys/net/ipv4/tcp_max_syn_backlog", "4096") ||
	    !write_file("/proc/sys/net/ipv4/tcp_max_tw_buckets", "180000") ||
	    !write_file("/proc/sys/net/ipv4/ip_local_port_range",
			RANGE(FIRST_PORT, LAST_PORT)))
		bail("sysctl");
	if (counting && !write_file("/proc/sys/kernel/lock_stat", "1"))
		bail("/proc/sys/kernel/lock_stat");
	apply_settings();
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		bail("mmap");
}

static void start_clients(int *go, int *done)
{
	int start[2], end[2], cpu;

	if (pipe2(end, O_CLOEXEC))
		bail("pipe");
	for (cpu = 0; cpu < cpus; cpu++) {
		if (pipe2(start, O_CLOEXEC))
			bail("pipe");
		switch (fork()) {
		case -1:
			bail("fork");
			break;
		case 0:
			close(start[1]);
			run_client(cpu, start[0], end[1]);
		}
		close(start[0]);
		go[cpu] = start[1];
	}
	*done = end[0];
}

int main(void)
{
	int go[MAX_CPUS], done, count = 0, i, seconds;
	long phases[MAX_PHASES];
	bool good, all = true;
	char *text = NULL, *at;
	size_t size;

	set_up();
	seconds = atoi(word("BENCH_SECONDS"));
	for (at = (char *)word("BENCH_PHASES"); *at && count < MAX_PHASES;
	     at += *at == ',')
		phases[count++] = strtol(at, &at, 10);
	start_servers(FRONT_PORT, 0, own_listeners, proxy, shared->server);
	if (proxy)
		start_servers(BACKEND_PORT, 1, false, false, shared->backend);
	start_clients(go, &done);
	report = open_memstream(&text, &size);
	if (!report)
		bail("memory");
	fprintf(report, "KTAP version 1\n1..%d\n", count);
	for (i = 0; i < count; i++) {
		good = run_phase(phases[i], seconds, go, done);
		all &= good;
		fprintf(report, "%sok %d - phase_%d\n", good ? "" : "not ",
			i + 1, i + 1);
	}
	fclose(report);
	fwrite(text, 1, size, stdout);
	fflush(stdout);
	return !all;
}
