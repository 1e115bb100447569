// SPDX-License-Identifier: GPL-2.0-only
/* dup(): the copy is the same listener, or as little one. */
#include "fsocket.h"

int dup(int fd)
{
	int new = libc()->dup(fd);

	if (new >= 0 && fsocket_active())
		fsocket_note_copy(fd, new);
	return new;
}
