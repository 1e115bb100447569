// SPDX-License-Identifier: GPL-2.0-only
/*
 * Asking for a listener in the table of the caller's core.
 *
 *	1. is the descriptor a listener, and one this thread has not asked for yet?
 *	2. remember that it has, whatever comes of it: an error (no free core, not asked for in this
 *	   mode) is an answer, and the thread accepts from the global queue
 *	3. note the affinity of the thread
 *	4. SPAWN_LISTEN
 *
 * In mode 2 the module pins the thread to a core: at the accept, poll or epoll_ctl that follows, or at
 * any later one when no core is free yet. That is meant for this thread; what it makes, threads and
 * forked children, would be on the same core for ever. So process.c, clone.c and pthread_create.c
 * give them the affinity that was noted. One that the program sets for the thread meanwhile is noted
 * in its place.
 *
 * The memory of a thread is a small table, indexed by the listener's number. Numbers follow each
 * other, so that the listeners of one program do not meet; should two, asking again is harmless.
 */
#define _GNU_SOURCE
#include "fsocket.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fastsocket_abi.h"

#define REMEMBERED 256
/* Bytes of a CPU mask: 4096 CPUs, what the largest distribution kernels are built for. */
#define MASK_SIZE 512

FSOCKET_THREAD uint32_t spawned[REMEMBERED];

struct mask {
	long bytes;
	unsigned char bits[MASK_SIZE];
};

/* Affinity without the module's pin, bytes is 0 in a thread that did not spawn; and with it. */
FSOCKET_THREAD struct mask before, after;

static void read_affinity(struct mask *mask)
{
	mask->bytes = syscall(SYS_sched_getaffinity, 0, sizeof(mask->bits), mask->bits);
	if (mask->bytes < 0)
		mask->bytes = 0;
}

static int same(const struct mask *one, const struct mask *other)
{
	return one->bytes == other->bytes && !memcmp(one->bits, other->bits, one->bytes);
}

static int is_one_cpu(const struct mask *mask)
{
	int i, cpus = 0;

	for (i = 0; i < mask->bytes; i++)
		cpus += __builtin_popcount(mask->bits[i]);
	return cpus == 1;
}

static void write_affinity(const struct mask *mask)
{
	syscall(SYS_sched_setaffinity, 0, mask->bytes, mask->bits);
}

static void spawn(int fd)
{
	struct fsocket_ioctl_arg arg;
	int saved = errno, channel = fsocket_channel();

	if (channel < 0) {
		fsocket_tell();
	} else {
		memset(&arg, 0, sizeof(arg));
		arg.fd = fd;
		arg.op.spawn.cpu = FSOCKET_CPU_ANY;
		/* With a second listener the thread may be pinned already. */
		if (!before.bytes)
			read_affinity(&before);
		ioctl(channel, FSOCKET_IOC_SPAWN_LISTEN, &arg);
	}
	errno = saved;
}

/* The caller is going to accept from fd, if that is a listener. Keeps errno. Any context. */
void fsocket_will_accept(int fd)
{
	uint32_t number = fsocket_listener(fd);

	if (!number || likely(spawned[number % REMEMBERED] == number))
		return;
	spawned[number % REMEMBERED] = number;
	spawn(fd);
}

/* In a forked child: it has spawned nothing, and is free of its parent's core. */
void fsocket_forget_spawns(void)
{
	int saved = errno;

	memset(spawned, 0, sizeof(spawned));
	fsocket_unpin();
	before.bytes = 0;
	errno = saved;
}

/*
 * Give the calling thread the affinity it would have without the module, if that has pinned it.
 * Returns whether there was something to do.
 */
int fsocket_unpin(void)
{
	if (likely(!before.bytes))
		return 0;
	read_affinity(&after);
	if (same(&before, &after) || !is_one_cpu(&after))
		return 0;
	write_affinity(&before);
	return 1;
}

void fsocket_pin_again(void)
{
	write_affinity(&after);
}

/* The program has set the affinity of the calling thread. Keeps errno. */
void fsocket_note_affinity(void)
{
	int saved = errno;

	if (before.bytes)
		read_affinity(&before);
	errno = saved;
}
