// SPDX-License-Identifier: GPL-2.0-only
/* pthread_setaffinity_np(): see sched_setaffinity.c. In old C libraries it is in libpthread. */
#define _GNU_SOURCE
#include "fsocket.h"

#include <errno.h>

int pthread_setaffinity_np(pthread_t thread, size_t size, const cpu_set_t *cpus)
{
	int (*real)(pthread_t thread, size_t size, const cpu_set_t *cpus) =
		libc()->pthread_setaffinity_np;
	int result;

	if (!real)
		return ENOSYS;
	result = real(thread, size, cpus);
	if (!result && fsocket_active() && pthread_equal(thread, pthread_self()))
		fsocket_note_affinity();
	return result;
}
