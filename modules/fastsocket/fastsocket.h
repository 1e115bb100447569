/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The parts of the module:
 *
 *	main.c		parameters, loading and unloading
 *	device.c	/dev/fastsocket and its calls
 *	epoll.c, est.c, rfd.c	switches of what the kernel does by itself
 *	spawn.c		which task gets a clone of a listening socket on which core
 *	rfd.c		the switch and counters of Receive Flow Deliver
 *	epoll.c		those of fast epoll
 *	stat.c		the counters of the listen table and of the module
 *	counters.c	tables of counters in /proc/net
 *	switch.c	parameters that switch something in the core kernel
 *	kernel.h	what differs from kernel to kernel
 */
#ifndef FASTSOCKET_H
#define FASTSOCKET_H

#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/percpu.h>

struct socket;

/* Levels of enable_fastsocket_debug. */
enum { FSOCKET_ERROR = 1, FSOCKET_WARNING, FSOCKET_INFO, FSOCKET_DEBUG };

extern int enable_fastsocket_debug;
extern int enable_listen_spawn;

#define fsocket_say(level, format, ...)					\
	do {								\
		if (enable_fastsocket_debug >= (level) &&		\
		    printk_ratelimit())					\
			printk(KERN_INFO "Fastsocket: " format "\n",	\
			       ##__VA_ARGS__);				\
	} while (0)

/* Counters of /proc/net/fsocket_stats, in its order. */
enum {
	FSOCKET_CALLS,		/* calls of the device */
	FSOCKET_SPAWN_CALLS,	/* of those, SPAWN_LISTEN and SPAWN_ALL_LISTEN */
	FSOCKET_SPAWNED,	/* tasks that became owners of a clone */
	FSOCKET_BOUND,		/* of those, bound to its core by us */
	FSOCKET_SURPLUS,	/* times a task found no core for itself */
	FSOCKET_FAILED,		/* times a clone could not be had otherwise */
	FSOCKET_STATS
};

DECLARE_PER_CPU(unsigned long [FSOCKET_STATS], fsocket_stats);

/* Counts without locks: an interrupted increment may be lost. */
static inline void fsocket_count(int what)
{
	per_cpu(fsocket_stats, raw_smp_processor_id())[what]++;
}

int fsocket_spawn(struct socket *sock);
int fsocket_device_register(void);
void fsocket_device_unregister(void);
int fsocket_stat_register(void);
void fsocket_stat_unregister(void);

#endif
