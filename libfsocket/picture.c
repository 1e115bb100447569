// SPDX-License-Identifier: GPL-2.0-only
/*
 * What each descriptor is: UNKNOWN (0), PLAIN (1: nothing to spawn) or the number of a listener.
 *
 * A listener's number is new for each listening socket and shared by the descriptors dup() made of
 * it, so that a thread spawns for the socket and not for the descriptor, and a descriptor that is
 * closed and used again is not taken for the old one.
 *
 * The table is static memory of which only touched pages exist; a descriptor past its end is
 * UNKNOWN for ever and never spawned for. Each entry is one word, read and written whole: two
 * threads that close and open the same number at the same time race here as they do in the kernel.
 */
#define _GNU_SOURCE
#include "fsocket.h"

#include <errno.h>
#include <netinet/in.h>

#define UNKNOWN 0u
#define PLAIN 1u
#define FIRST_NUMBER 2u

/* The kernel's default for fs.nr_open. */
#define TABLE_SIZE (1u << 20)

static uint32_t table[TABLE_SIZE];
static uint32_t last_number = FIRST_NUMBER - 1;
/* No entry above was ever set: keeps close_range(3, ~0) from walking, and touching, it all. */
static uint32_t highest;

static uint32_t get(int fd)
{
	if ((unsigned int)fd >= TABLE_SIZE)
		return UNKNOWN;
	return __atomic_load_n(&table[fd], __ATOMIC_ACQUIRE);
}

static void set(int fd, uint32_t value)
{
	uint32_t seen = __atomic_load_n(&highest, __ATOMIC_RELAXED);

	/* What is not to change is not written: after a fork that would copy the page. */
	if ((unsigned int)fd >= TABLE_SIZE || get(fd) == value)
		return;
	while ((uint32_t)fd > seen &&
	       !__atomic_compare_exchange_n(&highest, &seen, (uint32_t)fd, 1, __ATOMIC_RELAXED,
					    __ATOMIC_RELAXED))
		;
	__atomic_store_n(&table[fd], value, __ATOMIC_RELEASE);
}

static uint32_t new_number(void)
{
	uint32_t number;

	do	/* past 4 billion listeners it starts again */
		number = __atomic_add_fetch(&last_number, 1, __ATOMIC_RELAXED);
	while (unlikely(number < FIRST_NUMBER));
	return number;
}

/* Whether fd is a socket: 0 no, 1 yes, 2 a listening TCP one. */
static int ask(int fd)
{
	struct sockaddr_storage address;
	socklen_t length = sizeof(int);
	int listening = 0, protocol = 0;

	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length))
		return 0;
	if (!listening)
		return 1;
	length = sizeof(address);
	if (getsockname(fd, (struct sockaddr *)&address, &length) ||
	    (address.ss_family != AF_INET && address.ss_family != AF_INET6))
		return 1;
	length = sizeof(protocol);
	if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length) || protocol != IPPROTO_TCP)
		return 1;
	return 2;
}

void fsocket_note_plain(int fd)
{
	set(fd, PLAIN);
}

/* listen() succeeded; a second one on the same socket changes its backlog only. */
void fsocket_note_listening(int fd)
{
	int saved = errno;

	if (get(fd) < FIRST_NUMBER)
		set(fd, ask(fd) == 2 ? new_number() : PLAIN);
	errno = saved;
}

void fsocket_note_copy(int from, int to)
{
	set(to, get(from));
}

void fsocket_forget(int fd)
{
	set(fd, UNKNOWN);
}

void fsocket_forget_range(unsigned int first, unsigned int last)
{
	uint32_t end = __atomic_load_n(&highest, __ATOMIC_RELAXED);
	unsigned int fd;

	if (last > end)
		last = end;
	for (fd = first; fd <= last; fd++)
		set((int)fd, UNKNOWN);
}

/*
 * The number of the listener that fd is, or 0. Asks the kernel about a socket that came some other
 * way than socket() and listen(): inherited over exec, or received. Keeps errno. Any context.
 */
uint32_t fsocket_listener(int fd)
{
	uint32_t known = get(fd);
	int saved;

	if (likely(known == PLAIN) || (unsigned int)fd >= TABLE_SIZE)
		return 0;
	if (known != UNKNOWN)
		return known;
	saved = errno;
	switch (ask(fd)) {
	case 2:
		known = new_number();
		set(fd, known);
		break;
	case 1:
		set(fd, PLAIN);
		break;
	}
	errno = saved;
	return known;
}
