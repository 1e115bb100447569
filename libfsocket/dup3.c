// SPDX-License-Identifier: GPL-2.0-only
/* dup3(): see dup2.c. */
#define _GNU_SOURCE
#include "fsocket.h"

int dup3(int fd, int to, int flags)
{
	int new;

	if (!fsocket_active())
		return libc()->dup3(fd, to, flags);
	if (fsocket_is_channel(to))
		fsocket_move_channel(to);
	new = libc()->dup3(fd, to, flags);
	if (new >= 0)
		fsocket_note_copy(fd, new);
	return new;
}
