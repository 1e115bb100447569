/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * What a program says to /dev/fastsocket. One header for the module and for user space.
 *
 * Numbers and layout are those of the first Fastsocket, so that its libfsocket.so runs on our
 * module and ours on its; what is new has numbers from 0x20 on.
 *
 * Every call but VERSION takes a pointer to struct fsocket_ioctl_arg, which is always copied
 * whole, and returns what the system call it stands for returns. An unknown number is -EINVAL,
 * a bad pointer -EFAULT, a bad descriptor -EBADF.
 *
 * Our own library uses VERSION and SPAWN_LISTEN only. Its sockets are ordinary ones, made,
 * listened on, accepted from, shut down and closed by the ordinary system calls; the others are
 * there for an old library.
 */
#ifndef _UAPI_FASTSOCKET_ABI_H
#define _UAPI_FASTSOCKET_ABI_H

#include <linux/types.h>
#include <linux/ioctl.h>

#ifndef __KERNEL__
#ifndef __user
#define __user
#endif
#endif

struct sockaddr;

#define FSOCKET_DEVICE		"/dev/fastsocket"
#define FSOCKET_ABI_VERSION	1

#define FSOCKET_IOC_MAGIC	0xf5

/* socket(2): op.socket. Anything but a TCP socket is made by the stock path. */
#define FSOCKET_IOC_SOCKET		_IO(FSOCKET_IOC_MAGIC, 1)
/* listen(2): fd, backlog */
#define FSOCKET_IOC_LISTEN		_IO(FSOCKET_IOC_MAGIC, 2)
/* accept4(2): fd, op.accept */
#define FSOCKET_IOC_ACCEPT		_IO(FSOCKET_IOC_MAGIC, 3)
/* close(2): fd */
#define FSOCKET_IOC_CLOSE		_IO(FSOCKET_IOC_MAGIC, 4)
/*
 * The calling task is going to accept from the listening socket fd: give it a clone in its core's
 * table. op.spawn.cpu names the core, FSOCKET_CPU_ANY leaves the choice to the module. The same
 * task asking again for the same socket gets 0 and nothing changes. On any error the socket is as
 * it was, and the task accepts from the global queue alone.
 */
#define FSOCKET_IOC_SPAWN_LISTEN	_IO(FSOCKET_IOC_MAGIC, 6)
/* shutdown(2) of a listening socket: fd, op.shutdown */
#define FSOCKET_IOC_SHUTDOWN_LISTEN	_IO(FSOCKET_IOC_MAGIC, 7)
/* SPAWN_LISTEN for every listening socket the caller has open: op.spawn */
#define FSOCKET_IOC_SPAWN_ALL_LISTEN	_IO(FSOCKET_IOC_MAGIC, 8)
/* No argument. Returns FSOCKET_ABI_VERSION of the module, a positive number. */
#define FSOCKET_IOC_VERSION		_IO(FSOCKET_IOC_MAGIC, 0x20)

#define FSOCKET_CPU_ANY		(-1)

/* 32 bytes on x86_64. */
struct fsocket_ioctl_arg {
	__u32 fd;
	__u32 backlog;
	union {
		struct {
			struct sockaddr __user *sockaddr;
			int __user *length;
			int flags;
		} accept;
		struct {
			int cpu;
		} spawn;
		struct {
			__u32 family;
			__u32 type;
			__u32 protocol;
		} socket;
		struct {
			int how;
		} shutdown;
	} op;
};

/* The same from a 32-bit program: 20 bytes. */
struct fsocket_compat_ioctl_arg {
	__u32 fd;
	__u32 backlog;
	union {
		struct {
			__u32 sockaddr;
			__u32 length;
			__s32 flags;
		} accept;
		struct {
			__s32 cpu;
		} spawn;
		struct {
			__u32 family;
			__u32 type;
			__u32 protocol;
		} socket;
		struct {
			__s32 how;
		} shutdown;
	} op;
};

#endif /* _UAPI_FASTSOCKET_ABI_H */
