// SPDX-License-Identifier: GPL-2.0-only
/*
 * fcntl(): F_DUPFD and F_DUPFD_CLOEXEC are a dup(). Every command takes at most one argument, in a
 * register, so it is passed on as the C library itself does, whether there is one or not.
 */
#define _GNU_SOURCE
#include "fsocket.h"

#include <fcntl.h>
#include <stdarg.h>

int fcntl(int fd, int command, ...)
{
	va_list list;
	void *argument;
	int result;

	va_start(list, command);
	argument = va_arg(list, void *);
	va_end(list);
	result = libc()->fcntl(fd, command, argument);
	if ((command == F_DUPFD || command == F_DUPFD_CLOEXEC) && result >= 0 && fsocket_active())
		fsocket_note_copy(fd, result);
	return result;
}
