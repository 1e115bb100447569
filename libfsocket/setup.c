// SPDX-License-Identifier: GPL-2.0-only
/*
 * What happens when the library is loaded.
 *
 *	1. find the functions of the C library that we stand in front of
 *	2. open the device and ask for its version (channel.c)
 *	3. without either: one line to stderr, and every wrapper goes straight to libc from then on;
 *	   with FSOCKET_REQUIRE=1 the program ends here instead
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
	__atomic_store_n(&fsocket_resolved, 1, __ATOMIC_RELEASE);
	errno = saved;
}

static int stderr_is_ours(void)
{
	struct stat now;

	return has_stderr && !fstat(STDERR_FILENO, &now) &&
	       now.st_dev == first_stderr.st_dev && now.st_ino == first_stderr.st_ino;
}

/*
 * Say that Fastsocket is not used, and why; the end of the program where it is required.
 * Any context.
 */
void fsocket_complain(const char *what, int error)
{
	/* strerror() is not for signal handlers, so the usual reasons are here. */
	const char *reason = error == ENOENT ? ": no such device (is the module loaded?)" :
			     error == ENODEV || error == ENXIO ? ": no such device" :
			     error == EACCES || error == EPERM ? ": permission denied" :
			     error == EMFILE || error == ENFILE ? ": too many open files" : "";
	const char *then = required ? "; FSOCKET_REQUIRE is set, stopping\n" :
				      "; going on without Fastsocket\n";
	const char *parts[] = { "libfsocket: ", what, reason, then };
	struct iovec line[4];
	int i;

	if ((required || !quiet) && stderr_is_ours()) {
		for (i = 0; i < 4; i++) {
			line[i].iov_base = (void *)parts[i];
			line[i].iov_len = strlen(parts[i]);
		}
		/* Nobody is left to be told when this fails. */
		if (writev(STDERR_FILENO, line, 4) < 0)
			errno = error;
	}
	if (required)
		_exit(EXIT_UNAVAILABLE);
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
