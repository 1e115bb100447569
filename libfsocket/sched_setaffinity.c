// SPDX-License-Identifier: GPL-2.0-only
/*
 * sched_setaffinity(): what a program sets for the calling thread is passed on to what that makes,
 * unlike the module's pin (spawn.c). What it sets for another task can't be noted there.
 */
#define _GNU_SOURCE
#include "fsocket.h"

#include <sys/syscall.h>
#include <unistd.h>

int sched_setaffinity(pid_t task, size_t size, const cpu_set_t *cpus)
{
	int result = libc()->sched_setaffinity(task, size, cpus);

	if (!result && fsocket_active() && (!task || task == syscall(SYS_gettid)))
		fsocket_note_affinity();
	return result;
}
