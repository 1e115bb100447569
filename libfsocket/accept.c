// SPDX-License-Identifier: GPL-2.0-only
/*
 * accept(): before the first one of a thread its listener is spawned; the call itself is the C
 * library's, a cancellation point as ever. What it returns is a connection: nothing to spawn.
 */
#include "fsocket.h"

int accept(int fd, struct sockaddr *address, socklen_t *length)
{
	int new;

	if (!fsocket_active()) {
		fsocket_tell();
		return libc()->accept(fd, address, length);
	}
	fsocket_will_accept(fd);
	new = libc()->accept(fd, address, length);
	if (new >= 0)
		fsocket_note_plain(new);
	return new;
}
