// SPDX-License-Identifier: GPL-2.0-only
/*
 * Whose memory and whose descriptors these are.
 *
 * A forked child has a copy of both: our memory of descriptors is right for it, only its listeners
 * are not spawned yet. The child of vfork() or clone(CLONE_VM) without CLONE_FILES has descriptors
 * of its own and *our* memory: what it closes before exec is still open here. Once such a
 * child was made, the wrappers ask for the process id before they touch what we remember, and a
 * child that is not the owner goes straight to libc. It costs one short system call, in programs
 * that do such things only.
 */
#define _GNU_SOURCE
#include "fsocket.h"

#include <sys/syscall.h>
#include <unistd.h>

int fsocket_served;
int fsocket_borrowed;

static pid_t owner;

int fsocket_is_owner(void)
{
	/* Not getpid(): older C libraries remember its answer in the memory that is shared. */
	return syscall(SYS_getpid) == __atomic_load_n(&owner, __ATOMIC_RELAXED);
}

/* A child that shares our memory and not our descriptors is about to be made. Any context. */
void fsocket_lend(void)
{
	__atomic_store_n(&fsocket_borrowed, 1, __ATOMIC_SEQ_CST);
}

/* In a child with a copy of our memory, before anything else runs; and once at the start. */
void fsocket_forked(void)
{
	__atomic_store_n(&owner, (pid_t)syscall(SYS_getpid), __ATOMIC_RELAXED);
	__atomic_store_n(&fsocket_borrowed, 0, __ATOMIC_RELAXED);
	fsocket_forget_spawns();
}
