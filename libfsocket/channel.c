// SPDX-License-Identifier: GPL-2.0-only
/*
 * The descriptor of /dev/fastsocket.
 *
 * It is opened when the library is loaded, because a server may have given up the right to open it
 * by the time it accepts, and lives in the program's own table of descriptors:
 *
 *	- at a high number, so that the program gets the numbers it would get without us;
 *	- O_CLOEXEC;
 *	- when the program closes or overwrites the number, the channel moves away first;
 *	- when it was lost all the same (a raw system call), the descriptor is not what it was when we
 *	  look before its next use: it is opened anew.
 *
 * Several threads may move or open at a time: the first to publish its number wins, the others
 * close theirs.
 */
#define _GNU_SOURCE
#include "fsocket.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fastsocket_abi.h"

/* Programs that close "all" descriptors count up from 3, those with select() end at 1023. */
#define HIGH 1000
#define LESS_HIGH 200

static int channel = -1;
static dev_t device;

int fsocket_channel_number(void)
{
	return __atomic_load_n(&channel, __ATOMIC_ACQUIRE);
}

/* Our own close: the wrapper would take care of the channel. */
static void drop(int fd)
{
	syscall(SYS_close, fd);
}

/* A copy of fd at a high number; fd itself stays open. */
static int raise_number(int fd)
{
	long high = syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, HIGH);

	if (high < 0)
		high = syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, LESS_HIGH);
	return (int)high;
}

static int is_device(int fd)
{
	struct stat now;

	return fd >= 0 && !fstat(fd, &now) && S_ISCHR(now.st_mode) && now.st_rdev == device;
}

/* Whether the program's descriptor fd is our channel. Cheap: for every close(). */
int fsocket_is_channel(int fd)
{
	return fd >= 0 && unlikely(fd == fsocket_channel_number());
}

/*
 * Open the device, or complain. Returns the channel or -1. Any context.
 */
int fsocket_open_channel(void)
{
	struct stat now;
	int fd, high, version, old = fsocket_channel_number();

	fd = open(FSOCKET_DEVICE, O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		fsocket_complain(FSOCKET_DEVICE, errno);
		return -1;
	}
	version = ioctl(fd, FSOCKET_IOC_VERSION);
	if (version != FSOCKET_ABI_VERSION || fstat(fd, &now)) {
		drop(fd);
		fsocket_complain(FSOCKET_DEVICE ": not a version this library knows", 0);
		return -1;
	}
	device = now.st_rdev;
	high = raise_number(fd);
	if (high >= 0) {
		drop(fd);
		fd = high;
	}
	if (!__atomic_compare_exchange_n(&channel, &old, fd, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
		drop(fd);
		fd = old;
	}
	return fd;
}

/*
 * The channel, looked at and opened anew where it was lost; -1 without one, and then the library
 * does nothing from now on. Any context.
 */
int fsocket_channel(void)
{
	int fd = fsocket_channel_number();

	if (is_device(fd))
		return fd;
	fd = fsocket_open_channel();
	if (fd < 0)
		__atomic_store_n(&fsocket_served, 0, __ATOMIC_RELEASE);
	return fd;
}

/*
 * The program is going to close its descriptor fd or to put something else there, and it is the
 * channel's: take the channel elsewhere. Any context.
 */
void fsocket_move_channel(int fd)
{
	int saved = errno, old = fd, new;

	if (is_device(fd)) {
		new = raise_number(fd);
		if (new >= 0 && !__atomic_compare_exchange_n(&channel, &old, new, 0,
							     __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
			drop(new);
	}
	errno = saved;
}
