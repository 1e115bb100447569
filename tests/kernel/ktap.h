/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Harness of the programs that run in a quick guest. One program is one C file
 * that includes this header and defines tests:
 *
 *	#include "ktap.h"
 *
 *	TEST(pipe_has_an_inode)
 *	{
 *		int ends[2];
 *
 *		NEED(pipe(ends) == 0);
 *		CHECK_EQ(inode_of(ends[0]), inode_of(ends[1]));
 *	}
 *
 * Tests run in the order they stand, each in a process and process group of
 * its own, so that descriptors, signals and crashes of one do not reach the
 * next. A test fails if a check failed, if it died, if it took too long, or if
 * it checked nothing at all.
 *
 *	CHECK(x)		x is true, else the test fails and goes on
 *	CHECK_EQ(x, y)		the same for two integers, which are shown
 *	NEED(x), NEED_EQ(x, y)	the test ends if not
 *	SKIP(format, ...)	the test ends, nothing to test here
 *	NOTE(format, ...)	a line for whoever reads the log
 *	WAIT_FOR(x, seconds)	true as soon as x is, false when time is over
 *	TEST_WITHIN(name, s)	a test with another time limit than 30 s
 *
 * Checks work in the threads and children of a test too. Seconds are those of
 * a machine of ordinary speed: all are multiplied by one factor.
 *
 * The programs run on 2.6.32 as well: nothing newer without asking for it.
 */
#ifndef KTAP_H
#define KTAP_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KTAP_LIMIT	30	/* seconds for a test that names no other */
#define KTAP_LINE	400	/* longest line of a note */
#define KTAP_EXIT_SKIP	4	/* exit status of a program that only skipped */

struct ktap_test {
	const char *name;
	void (*run)(void);
	int seconds;
	struct ktap_test *next;
};

/* What a test's processes share with the one that judges it. */
struct ktap_verdict {
	int checks;
	int failures;
	int skipped;
	char reason[KTAP_LINE];
};

static struct ktap_test *ktap_first, **ktap_last = &ktap_first;
static struct ktap_verdict *ktap_verdict;

#define TEST_WITHIN(name_, seconds_)					\
	static void name_(void);					\
	static struct ktap_test ktap_##name_ = {			\
		.name = #name_, .run = name_, .seconds = (seconds_)	\
	};								\
	__attribute__((constructor)) static void ktap_add_##name_(void)	\
	{								\
		*ktap_last = &ktap_##name_;				\
		ktap_last = &ktap_##name_.next;				\
	}								\
	static void name_(void)

#define TEST(name_)	TEST_WITHIN(name_, KTAP_LIMIT)

#define NOTE(...)	ktap_note(__VA_ARGS__)

#define CHECK(x)	ktap_check(!!(x), __FILE__, __LINE__, #x)
#define CHECK_EQ(x, y)	ktap_check_eq((x), (y), __FILE__, __LINE__, #x, #y)

#define NEED(x)								\
	do {								\
		if (!CHECK(x))						\
			_exit(1);					\
	} while (0)

#define NEED_EQ(x, y)							\
	do {								\
		if (!CHECK_EQ(x, y))					\
			_exit(1);					\
	} while (0)

#define SKIP(...)							\
	do {								\
		ktap_skip(__VA_ARGS__);					\
		_exit(0);						\
	} while (0)

#define WAIT_FOR(x, seconds)						\
	({								\
		double ktap_until = ktap_now() + ktap_scaled(seconds);	\
		bool ktap_true;						\
									\
		while (!(ktap_true = !!(x)) && ktap_now() < ktap_until)	\
			usleep(2000);					\
		ktap_true;						\
	})

/* Seconds on a clock that nobody sets. */
static inline double ktap_now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

/* A time limit on this machine. */
static inline double ktap_scaled(double seconds)
{
	const char *factor = getenv("FSDEPLOY_TIME_FACTOR");

	return seconds * (factor ? atof(factor) : 1);
}

/* Seconds that somebody wants random calls to go on, 0 when nobody said. */
static inline double ktap_fuzz_seconds(void)
{
	const char *seconds = getenv("GUEST_FUZZ_SECONDS");

	return seconds ? atof(seconds) : 0;
}

/* Rounds of a loop: fewer on a kernel that checks all it does. */
static inline int ktap_rounds(int rounds)
{
	const char *debug = getenv("GUEST_DEBUG");

	return debug && !strcmp(debug, "1") ? (rounds + 7) / 8 : rounds;
}

/* What kernel this is, as the caller of the guest says: el6, lts61. */
static inline bool ktap_target_is(const char *name)
{
	const char *target = getenv("GUEST_TARGET");

	return target && !strcmp(target, name);
}

/* Whether the kernel has our series. */
static inline bool ktap_patched(void)
{
	const char *patched = getenv("GUEST_PATCHED");

	return patched && !strcmp(patched, "1");
}

__attribute__((format(printf, 1, 2)))
static inline void ktap_note(const char *format, ...)
{
	char text[KTAP_LINE + 4];
	va_list arguments;
	int added;

	memcpy(text, "# ", 2);
	va_start(arguments, format);
	added = vsnprintf(text + 2, KTAP_LINE, format, arguments);
	va_end(arguments);
	added = added < KTAP_LINE ? added : KTAP_LINE - 1;
	text[2 + added] = '\n';
	/* One write, so that lines of several processes stay lines. */
	if (write(STDOUT_FILENO, text, added + 3) < 0)
		_exit(2);
}

__attribute__((format(printf, 1, 2)))
static inline void ktap_skip(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(ktap_verdict->reason, KTAP_LINE, format, arguments);
	va_end(arguments);
	ktap_verdict->skipped = 1;
}

static inline bool ktap_check(bool fine, const char *file, int line,
			      const char *text)
{
	int error = errno;

	__sync_fetch_and_add(&ktap_verdict->checks, 1);
	if (fine)
		return true;
	__sync_fetch_and_add(&ktap_verdict->failures, 1);
	ktap_note("%s:%d: %s does not hold (errno: %s)", file, line, text,
		  strerror(error));
	return false;
}

static inline bool ktap_check_eq(long long got, long long want,
				 const char *file, int line,
				 const char *got_text, const char *want_text)
{
	int error = errno;

	__sync_fetch_and_add(&ktap_verdict->checks, 1);
	if (got == want)
		return true;
	__sync_fetch_and_add(&ktap_verdict->failures, 1);
	ktap_note("%s:%d: %s is %lld, %s is %lld (errno: %s)", file, line,
		  got_text, got, want_text, want, strerror(error));
	return false;
}

/*
 * The text of a small file, without its last newline, in a buffer of the
 * caller's; empty when it cannot be read. Files of /proc come in pieces.
 */
static inline char *ktap_read(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY);
	size_t length = 0;
	ssize_t more;

	while (fd >= 0 && length < size - 1 &&
	       (more = read(fd, text + length, size - 1 - length)) > 0)
		length += more;
	if (fd >= 0)
		close(fd);
	if (length && text[length - 1] == '\n')
		length--;
	text[length] = '\0';
	return text;
}

/* The first number in a file, -1 when there is none. */
static inline long long ktap_read_number(const char *path)
{
	char text[64];

	ktap_read(path, text, sizeof(text));
	return *text ? atoll(text) : -1;
}

/* Whether the text could be written whole to a file that exists. */
static inline bool ktap_write(const char *path, const char *text)
{
	ssize_t length = strlen(text);
	int fd = open(path, O_WRONLY);
	bool fine = fd >= 0 && write(fd, text, length) == length;

	if (fd >= 0)
		close(fd);
	return fine;
}

/* Whether a child of the test ended by itself with status 0. */
static inline bool ktap_child_fine(pid_t child)
{
	int status;

	return waitpid(child, &status, 0) == child && status == 0;
}

/* For each process of a test that does not end: where in the kernel it is. */
static inline void ktap_note_where(pid_t group)
{
	char path[64], text[1024], where[64], state;
	DIR *all = opendir("/proc");
	struct dirent *one;
	char *rest;
	int its;

	while (all && (one = readdir(all))) {
		snprintf(path, sizeof(path), "/proc/%.20s/stat", one->d_name);
		rest = strrchr(ktap_read(path, text, sizeof(text)), ')');
		if (!rest ||
		    sscanf(rest + 1, " %c %*d %d", &state, &its) != 2 ||
		    its != group)
			continue;
		snprintf(path, sizeof(path), "/proc/%.20s/wchan", one->d_name);
		ktap_note("%.20s: state %c in %s", one->d_name, state,
			  ktap_read(path, where, sizeof(where)));
	}
	if (all)
		closedir(all);
}

/* Run one test in a process group of its own and write its result line. */
static inline bool ktap_run_one(const struct ktap_test *test, int number)
{
	double began = ktap_now(), took;
	double deadline = began + ktap_scaled(test->seconds) +
			  ktap_fuzz_seconds();
	struct timespec step = { .tv_nsec = 50 * 1000 * 1000 };
	const char *why = NULL;
	char line[KTAP_LINE * 2];
	bool fine, done = false;
	sigset_t child_ends;
	int status = 0;
	pid_t child;

	sigemptyset(&child_ends);
	sigaddset(&child_ends, SIGCHLD);
	memset(ktap_verdict, 0, sizeof(*ktap_verdict));
	child = fork();
	if (!child) {
		setpgid(0, 0);
		sigprocmask(SIG_UNBLOCK, &child_ends, NULL);
		test->run();
		_exit(0);
	}
	while (child > 0 && !done && ktap_now() < deadline) {
		sigtimedwait(&child_ends, NULL, &step);
		done = waitpid(child, &status, WNOHANG) == child;
	}
	took = ktap_now() - began;
	if (child > 0 && !done)
		ktap_note_where(child);
	if (child > 0)
		kill(-child, SIGKILL);
	if (child > 0 && !done)
		waitpid(child, &status, 0);

	if (child < 0)
		why = "no process for the test";
	else if (!done)
		why = "took too long";
	else if (WIFSIGNALED(status))
		why = strsignal(WTERMSIG(status));
	else if (WEXITSTATUS(status) && !ktap_verdict->failures)
		why = "ended with a status other than 0";
	else if (!ktap_verdict->checks && !ktap_verdict->skipped)
		why = "checked nothing";
	if (why)
		ktap_note("%s: %s", test->name, why);
	if (took > 2)
		ktap_note("%s: %.1f s", test->name, took);
	fine = !why && !ktap_verdict->failures;
	snprintf(line, sizeof(line), "%sok %d - %s%s%s\n", fine ? "" : "not ",
		 number, test->name,
		 fine && ktap_verdict->skipped ? " # SKIP " : "",
		 fine && ktap_verdict->skipped ? ktap_verdict->reason : "");
	if (write(STDOUT_FILENO, line, strlen(line)) < 0)
		_exit(2);
	return fine;
}

int main(void)
{
	struct ktap_test *test;
	bool fine = true, ran = false;
	sigset_t child_ends;
	int number = 0;

	sigemptyset(&child_ends);
	sigaddset(&child_ends, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child_ends, NULL);
	ktap_verdict = mmap(NULL, sizeof(*ktap_verdict), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (ktap_verdict == MAP_FAILED)
		return 2;
	for (test = ktap_first; test; test = test->next)
		number++;
	dprintf(STDOUT_FILENO, "KTAP version 1\n1..%d\n", number);
	number = 0;
	for (test = ktap_first; test; test = test->next) {
		fine &= ktap_run_one(test, ++number);
		ran |= !ktap_verdict->skipped;
	}
	if (fine && !ran)
		return KTAP_EXIT_SKIP;
	return fine ? 0 : 1;
}

#endif
