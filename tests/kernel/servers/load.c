// SPDX-License-Identifier: GPL-2.0-only
/*
 * load PORT COUNT [SECONDS]: short HTTP/1.0 connections to a server on this
 * host, from one process a CPU, each bound to its CPU: a loopback packet is
 * received where it was sent, so every core sees SYNs.
 *
 * SIGTERM has it begin no more, and end when those under way are done.
 *
 * Every request must be answered by status 200 and a body that ends in "fine\n".
 * A header "X-Worker: NUMBER" tells who answered. Nothing is tried twice.
 *
 * On standard output, when all are done or SECONDS are over: "KEY VALUE" lines
 *
 *	done		answered as they should
 *	connect		could not be opened
 *	reset		broken off
 *	incomplete	ended too early
 *	wrong		answered otherwise
 *	late		had no answer in time
 *	slow		took more than a second, answered or not: a lost packet
 *			is sent again after three
 *	worker N	answered by worker N
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define IN_FLIGHT	16	/* a process */
#define MAX_CPUS	64
#define MAX_FDS		256
#define MAX_WORKERS	1024
#define ANSWER		1024	/* longest */

static const char request[] = "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n";

enum outcome { DONE, CONNECT, RESET, INCOMPLETE, WRONG, LATE, OUTCOMES };

static const char *const names[OUTCOMES] = {
	"done", "connect", "reset", "incomplete", "wrong", "late",
};

struct worker {
	long number, answers;
};

/* What a process counts; the parent reads it when that has ended. */
struct counts {
	long outcome[OUTCOMES], slow;
	struct worker worker[MAX_WORKERS];
};

struct shared {
	long next, last;
	struct counts counts[MAX_CPUS];
};

struct connection {
	bool open, asked;
	double began;
	int got;
	char answer[ANSWER + 1];
};

static struct shared *shared;
static struct connection connections[MAX_FDS];
static struct counts *counts;
static int port, set, in_flight;
static double deadline;

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

/* A socket on its way, in the set; -1 if it is not. */
static int start_connect(void)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	struct epoll_event event = { .events = EPOLLOUT };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	event.data.fd = fd;
	if (fd < MAX_FDS &&
	    (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 ||
	     errno == EINPROGRESS) &&
	    epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0)
		return fd;
	close(fd);
	return -1;
}

/* Begin connections until one is on its way or there are no more to begin. */
static void begin_one(void)
{
	int fd;

	while (__sync_fetch_and_add(&shared->next, 1) <
	       *(volatile long *)&shared->last) {
		fd = start_connect();
		if (fd < 0) {
			counts->outcome[CONNECT]++;
			continue;
		}
		connections[fd] = (struct connection){
			.open = true, .began = now(),
		};
		in_flight++;
		return;
	}
}

static void end_one(int fd, enum outcome outcome)
{
	counts->outcome[outcome]++;
	counts->slow += now() - connections[fd].began > 1;
	connections[fd].open = false;
	close(fd);
	in_flight--;
	begin_one();
}

static void count_worker(const char *answer)
{
	static const char header[] = "\r\nX-Worker: ";
	const char *at = strcasestr(answer, header);
	struct worker *one = counts->worker;
	long number;

	if (!at)
		return;
	number = atol(at + strlen(header));
	while (one->answers && one->number != number &&
	       one < counts->worker + MAX_WORKERS - 1)
		one++;
	one->number = number;
	one->answers++;
}

static enum outcome judge(const struct connection *one)
{
	static const char body[] = "\r\n\r\nfine\n";

	if (one->got < (int)strlen(body) ||
	    strcmp(one->answer + one->got - strlen(body), body))
		return strstr(one->answer, "\r\n\r\n") &&
		       !strstr(one->answer, " 200 ") ? WRONG : INCOMPLETE;
	if (strncmp(one->answer, "HTTP/1.", 7) ||
	    strncmp(one->answer + 8, " 200 ", 5))
		return WRONG;
	count_worker(one->answer);
	return DONE;
}

static void ask(int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };
	socklen_t size = sizeof(int);
	int error = 0;

	connections[fd].asked = true;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) || error)
		end_one(fd, CONNECT);
	else if (send(fd, request, strlen(request), MSG_NOSIGNAL) !=
		 (ssize_t)strlen(request) ||
		 epoll_ctl(set, EPOLL_CTL_MOD, fd, &event))
		end_one(fd, RESET);
}

static void read_answer(int fd)
{
	struct connection *one = &connections[fd];
	ssize_t length;

	for (;;) {
		length = recv(fd, one->answer + one->got, ANSWER - one->got, 0);
		if (length < 0 && errno == EAGAIN)
			return;
		if (length < 0) {
			end_one(fd, RESET);
			return;
		}
		one->got += length;
		one->answer[one->got] = '\0';
		if (length == 0 || one->got == ANSWER) {
			end_one(fd, judge(one));
			return;
		}
	}
}

static void give_up(void)
{
	int fd;

	shared->last = 0;
	for (fd = 0; fd < MAX_FDS; fd++)
		if (connections[fd].open)
			end_one(fd, LATE);
}

static void run(int cpu)
{
	struct epoll_event events[IN_FLIGHT];
	cpu_set_t mask;
	int i, count, fd;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	CPU_ZERO(&mask);
	CPU_SET(cpu, &mask);
	set = epoll_create1(EPOLL_CLOEXEC);
	if (sched_setaffinity(0, sizeof(mask), &mask) < 0 || set < 0)
		_exit(2);
	counts = &shared->counts[cpu];
	for (i = 0; i < IN_FLIGHT; i++)
		begin_one();
	while (in_flight) {
		count = epoll_wait(set, events, IN_FLIGHT, 100);
		for (i = 0; i < count; i++) {
			fd = events[i].data.fd;
			if (connections[fd].asked)
				read_answer(fd);
			else
				ask(fd);
		}
		if (now() > deadline)
			give_up();
	}
	_exit(0);
}

static void stop(int signal)
{
	(void)signal;
	shared->last = 0;
}

static void report(int cpus)
{
	long sum;
	int cpu, i;

	for (i = 0; i < OUTCOMES; i++) {
		for (cpu = 0, sum = 0; cpu < cpus; cpu++)
			sum += shared->counts[cpu].outcome[i];
		printf("%s %ld\n", names[i], sum);
	}
	for (cpu = 0, sum = 0; cpu < cpus; cpu++)
		sum += shared->counts[cpu].slow;
	printf("slow %ld\n", sum);
	for (cpu = 0; cpu < cpus; cpu++) {
		struct worker *one = shared->counts[cpu].worker;

		for (i = 0; i < MAX_WORKERS && one[i].answers; i++)
			printf("worker %ld %ld\n", one[i].number,
			       one[i].answers);
	}
}

int main(int argc, char **argv)
{
	int cpus = sysconf(_SC_NPROCESSORS_ONLN), cpu, status;
	bool ended = true;

	if (argc < 3 || cpus > MAX_CPUS)
		return 2;
	port = atoi(argv[1]);
	deadline = now() + (argc > 3 ? atol(argv[3]) : 60);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return 2;
	shared->last = atol(argv[2]);
	sigaction(SIGTERM, &(struct sigaction){
		.sa_handler = stop, .sa_flags = SA_RESTART }, NULL);
	for (cpu = 0; cpu < cpus; cpu++) {
		switch (fork()) {
		case -1:
			return 2;
		case 0:
			run(cpu);
		}
	}
	while (wait(&status) > 0)
		ended &= WIFEXITED(status) && !WEXITSTATUS(status);
	report(cpus);
	return !ended;
}
