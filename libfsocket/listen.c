// SPDX-License-Identifier: GPL-2.0-only
/*
 * listen(): from now on a listener, if it is a TCP one. Nothing is spawned here: who listens need
 * not be who accepts.
 */
#include "fsocket.h"

int listen(int fd, int backlog)
{
	int result = libc()->listen(fd, backlog);

	if (!fsocket_active())
		fsocket_tell();
	else if (!result)
		fsocket_note_listening(fd);
	return result;
}
