// SPDX-License-Identifier: GPL-2.0-only
/*
 * pthread_create(): a thread that accepts may be pinned to its core (spawn.c). The threads it makes
 * to serve its connections would inherit that and all run on one core, so it goes back to its old
 * affinity while it makes one. Attributes with a CPU set of their own win as ever.
 */
#include "fsocket.h"

#include <errno.h>

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *), void *arg)
{
	int (*real)(pthread_t *thread, const pthread_attr_t *attr, void *(*start)(void *),
		    void *arg) = libc()->pthread_create;
	int result, unpinned;

	if (!real)
		return ENOSYS;
	unpinned = fsocket_active() && fsocket_unpin();
	result = real(thread, attr, start, arg);
	if (unpinned)
		fsocket_pin_again();
	return result;
}
