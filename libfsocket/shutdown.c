// SPDX-License-Identifier: GPL-2.0-only
/*
 * shutdown(): ends the listening of a listener, and the kernel ends its clones with it. listen()
 * on the same descriptor makes a new listener then, to be spawned anew.
 */
#include "fsocket.h"

int shutdown(int fd, int how)
{
	int result = libc()->shutdown(fd, how);

	if (!result && how != SHUT_WR && fsocket_active())
		fsocket_note_plain(fd);
	return result;
}
