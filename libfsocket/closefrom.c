// SPDX-License-Identifier: GPL-2.0-only
/*
 * closefrom(): closes below the channel number by number, above it with the C library's own. One
 * that has none is not asked: then all goes number by number, as far as there can be any.
 */
#define _GNU_SOURCE
#include "fsocket.h"

#include <limits.h>
#include <unistd.h>

static void close_each(int first, long end)
{
	long fd;

	for (fd = first; fd < end; fd++)
		if (fd != fsocket_channel_number())
			libc()->close((int)fd);
}

void closefrom(int first)
{
	void (*real)(int first) = libc()->closefrom;
	int number = fsocket_active() ? fsocket_channel_number() : -1;

	if (first < 0)
		first = 0;
	if (!real) {
		close_each(first, sysconf(_SC_OPEN_MAX));
	} else if (number >= first) {
		close_each(first, number);
		real(number + 1);
	} else {
		real(first);
	}
	if (fsocket_active())
		fsocket_forget_range((unsigned int)first, UINT_MAX);
}
