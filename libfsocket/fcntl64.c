// SPDX-License-Identifier: GPL-2.0-only
/*
 * fcntl64(): what a program built with large files and glibc 2.28 or later calls. Here it is
 * fcntl() by another name, and on an older C library, without one, it calls that.
 */
#define _GNU_SOURCE
#include "fsocket.h"

#include <fcntl.h>
#include <stdarg.h>

int fcntl64(int fd, int command, ...)
{
	int (*real)(int fd, int command, ...) = libc()->fcntl64;
	va_list list;
	void *argument;
	int result;

	va_start(list, command);
	argument = va_arg(list, void *);
	va_end(list);
	result = (real ? real : libc()->fcntl)(fd, command, argument);
	if ((command == F_DUPFD || command == F_DUPFD_CLOEXEC) && result >= 0 && fsocket_active())
		fsocket_note_copy(fd, result);
	return result;
}
