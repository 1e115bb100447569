// SPDX-License-Identifier: GPL-2.0-only
/*
 * close_range(): with the channel in the range it is closed in two pieces, around it: the channel
 * can't move out of a range that has no end. With CLOSE_RANGE_CLOEXEC nothing is closed
 * and nothing forgotten; with CLOSE_RANGE_UNSHARE the caller gets a table of its own.
 */
#define _GNU_SOURCE
#include "fsocket.h"

#include <errno.h>

/* linux/close_range.h, newer than the C library we build for */
#define UNSHARE (1U << 1)
#define CLOEXEC (1U << 2)

int close_range(unsigned int first, unsigned int last, int flags)
{
	int (*real)(unsigned int first, unsigned int last, int flags) = libc()->close_range;
	int number, result = 0;
	unsigned int hole;

	if (!real) {
		errno = ENOSYS;
		return -1;
	}
	if (!fsocket_active())
		return real(first, last, flags);
	/* The threads that share our memory keep what we are about to close. */
	if (flags & UNSHARE)
		return real(first, last, flags);
	number = fsocket_channel_number();
	hole = (unsigned int)number;
	if ((flags & CLOEXEC) || number < 0 || hole < first || hole > last) {
		result = real(first, last, flags);
	} else {
		if (hole > first)
			result = real(first, hole - 1, flags);
		if (!result && hole < last)
			result = real(hole + 1, last, flags);
	}
	if (!result && !(flags & CLOEXEC))
		fsocket_forget_range(first, last);
	return result;
}
