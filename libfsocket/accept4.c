// SPDX-License-Identifier: GPL-2.0-only
/*
 * accept4(): before the first one of a thread its listener is spawned; the call itself is the C
 * library's, a cancellation point as ever. What it returns is a connection: nothing to spawn.
 */
#include "fsocket.h"

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
	int new;

	if (!fsocket_active()) {
		fsocket_tell();
		return libc()->accept4(fd, address, length, flags);
	}
	fsocket_will_accept(fd);
	new = libc()->accept4(fd, address, length, flags);
	if (new >= 0)
		fsocket_note_plain(new);
	return new;
}
