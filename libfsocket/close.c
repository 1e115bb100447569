// SPDX-License-Identifier: GPL-2.0-only
/*
 * close(): forget the descriptor, before its number can come back to another thread. A close() of
 * the channel's number, as in a loop over all numbers, finds the channel gone elsewhere.
 */
#include "fsocket.h"

int close(int fd)
{
	if (fsocket_active()) {
		if (fsocket_is_channel(fd))
			fsocket_move_channel(fd);
		fsocket_forget(fd);
	}
	return libc()->close(fd);
}
