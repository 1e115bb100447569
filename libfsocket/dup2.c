// SPDX-License-Identifier: GPL-2.0-only
/*
 * dup2(): a dup() to a number of the program's choice, which may be our channel's: that moves out
 * of the way first.
 */
#include "fsocket.h"

int dup2(int fd, int to)
{
	int new;

	if (!fsocket_active())
		return libc()->dup2(fd, to);
	if (fsocket_is_channel(to))
		fsocket_move_channel(to);
	new = libc()->dup2(fd, to);
	if (new >= 0)
		fsocket_note_copy(fd, new);
	return new;
}
