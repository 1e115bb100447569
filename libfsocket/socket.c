// SPDX-License-Identifier: GPL-2.0-only
/*
 * socket(): no listener yet. Noted so that adding it to an epoll set, as a client does with each
 * connection, asks the kernel nothing.
 */
#include "fsocket.h"

int socket(int domain, int type, int protocol)
{
	int fd = libc()->socket(domain, type, protocol);

	if (fd >= 0 && fsocket_active())
		fsocket_note_plain(fd);
	return fd;
}
