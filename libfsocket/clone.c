// SPDX-License-Identifier: GPL-2.0-only
/*
 * clone(): by what the child shares with us,
 *
 *	memory and descriptors		a thread, or as good as one: nothing to do
 *	memory (CLONE_VM) only		a vfork() with a stack: see process.c
 *	no memory			a fork(), but without its handlers: the child runs ours first,
 *					then the program's function
 *
 * In the last case the child has a copy of our frame, so what it is to run is kept there.
 */
#define _GNU_SOURCE
#include "fsocket.h"

#include <sched.h>
#include <stdarg.h>

struct start {
	int (*fn)(void *);
	void *arg;
};

static int begin(void *pointer)
{
	struct start *start = pointer;

	fsocket_forked();
	return start->fn(start->arg);
}

int clone(int (*fn)(void *), void *stack, int flags, void *arg, ...)
{
	struct start start = { fn, arg };
	pid_t *parent, *child;
	void *tls;
	va_list list;

	/* There or not, as flags say; the C library passes them on like this as well. */
	va_start(list, arg);
	parent = va_arg(list, pid_t *);
	tls = va_arg(list, void *);
	child = va_arg(list, pid_t *);
	va_end(list);

	if (fn && !(flags & CLONE_VM) && fsocket_active())
		return libc()->clone(begin, stack, flags, &start, parent, tls, child);
	if ((flags & CLONE_VM) && !(flags & CLONE_FILES))
		fsocket_lend();
	return libc()->clone(fn, stack, flags, arg, parent, tls, child);
}
