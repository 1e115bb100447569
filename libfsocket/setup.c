// SPDX-License-Identifier: GPL-2.0-only
/*
 * What happens when the library is loaded.
 *
 *	1. find the functions of the C library that we stand in front of
 *	2. open the device and ask for its version (channel.c)
 *	3. without either every wrapper goes straight to libc from then on, and one line to stderr says
 *	   so when the program listens or accepts; with FSOCKET_REQUIRE=1 it ends here instead
 *	4. have forked children start with an empty list of spawned listeners
 *
 * FSOCKET_QUIET and FSOCKET_REQUIRE are read here and not looked at again.
 */
#define _GNU_SOURCE
#include "fsocket.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* sysexits.h: a service is unavailable */
#define EXIT_UNAVAILABLE 69

struct fsocket_libc fsocket_functions;
int fsocket_resolved;

static int quiet;
static int required;
/* What stderr was at the start: a daemon's descriptor 2 may be a client's connection later. */
static struct stat first_stderr;
static int has_stderr;

/* Why Fastsocket is not used, and whether that is still to be said. */
static const char *why;
static int why_error;
static int to_tell;

static int is_set(const char *name)
{
	const char *value = getenv(name);

	return value && *value && strcmp(value, "0");
}

/*
 * What pthread_atfork() is made of. That one is linked into its caller by today's compilers and
 * taken from libpthread, as an old version of itself, by others; this one is in every libc.so.6.
 */
int __register_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void), void *dso);

#define FIND(name) (*(void **)&fsocket_functions.name = dlsym(RTLD_NEXT, #name))

/*
 * Called by the constructor; before that only by what other constructors do, in one thread.
 */
void fsocket_resolve(void)
{
	int saved = errno;

	FIND(socket);
	FIND(listen);
	FIND(accept);
	FIND(accept4);
	FIND(epoll_ctl);
	FIND(close);
	FIND(shutdown);
	FIND(dup);
	FIND(dup2);
	FIND(dup3);
	FIND(fcntl);
	FIND(fcntl64);
	FIND(vfork);
	FIND(clone);
	FIND(close_range);
	FIND(closefrom);
	FIND(pthread_create);
	FIND(sched_setaffinity);
	FIND(pthread_setaffinity_np);
	__atomic_store_n(&fsocket_resolved, 1, __ATOMIC_RELEASE);
	errno = saved;
}

static int stderr_is_ours(void)
{
	struct stat now;

	return has_stderr && !fstat(STDERR_FILENO, &now) &&
	       now.st_dev == first_stderr.st_dev && now.st_ino == first_stderr.st_ino;
}

static void say(const char *then)
{
	/* strerror() is not for signal handlers, so the usual reasons are here. */
	const char *reason = why_error == ENOENT ? ": no such device (is the module loaded?)" :
			     why_error == ENODEV || why_error == ENXIO ? ": no such device" :
			     why_error == EACCES || why_error == EPERM ? ": permission denied" :
			     why_error == EMFILE || why_error == ENFILE ? ": too many open files" :
			     "";
	const char *parts[] = { "libfsocket: ", why, reason, then };
	struct iovec line[4];
	int i, saved = errno;

	for (i = 0; i < 4; i++) {
		line[i].iov_base = (void *)parts[i];
		line[i].iov_len = strlen(parts[i]);
	}
	/* When it fails there is nobody left to be told. */
	if (stderr_is_ours())
		i = (int)writev(STDERR_FILENO, line, 4);
	errno = saved;
}

/*
 * Fastsocket can't be used, and this is why: the end of the program where it is required.
 * Any context.
 */
void fsocket_complain(const char *what, int error)
{
	why = what;
	why_error = error;
	if (required) {
		say("; FSOCKET_REQUIRE is set, stopping\n");
		_exit(EXIT_UNAVAILABLE);
	}
	__atomic_store_n(&to_tell, !quiet, __ATOMIC_RELEASE);
}

/*
 * Say what was complained about, once, now that the program listens or accepts: those that only
 * start it, shells and the like, have no use for Fastsocket. Any context.
 */
void fsocket_tell(void)
{
	if (unlikely(__atomic_load_n(&to_tell, __ATOMIC_ACQUIRE)) &&
	    __atomic_exchange_n(&to_tell, 0, __ATOMIC_ACQ_REL))
		say("; going on without Fastsocket\n");
}

static __attribute__((constructor)) void setup(void)
{
	int saved = errno;

	quiet = is_set("FSOCKET_QUIET");
	required = is_set("FSOCKET_REQUIRE");
	has_stderr = !fstat(STDERR_FILENO, &first_stderr);
	fsocket_resolve();
	if (fsocket_open_channel() >= 0) {
		fsocket_forked();
		__register_atfork(NULL, NULL, fsocket_forked, NULL);
		__atomic_store_n(&fsocket_served, 1, __ATOMIC_RELEASE);
	}
	errno = saved;
}
