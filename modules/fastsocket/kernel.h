/* SPDX-License-Identifier: GPL-2.0-only */
/* What the module needs of the kernel and finds elsewhere in other kernels. */
#ifndef FASTSOCKET_KERNEL_H
#define FASTSOCKET_KERNEL_H

#include <linux/fdtable.h>
#include <linux/file.h>
#include <linux/proc_fs.h>
#include <linux/sched.h>
#include <linux/syscalls.h>
#include <net/inet_established.h>
#include <net/inet_listen.h>
#include <net/net_namespace.h>

/* Cores that the current task may run on. */
static inline const struct cpumask *kernel_allowed(void)
{
	return &current->cpus_allowed;
}

/* Files in /proc/net of the first network namespace. */
static inline int kernel_proc_create(const char *name,
				     const struct file_operations *operations,
				     void *data)
{
	return proc_create_data(name, 0644, init_net.proc_net, operations,
				data) ? 0 : -ENOMEM;
}

static inline void kernel_proc_remove(const char *name)
{
	remove_proc_entry(name, init_net.proc_net);
}

static inline void *kernel_proc_data(struct inode *inode)
{
	return PDE(inode)->data;
}

/* Descriptors that the current task can have. */
static inline unsigned int kernel_descriptors(void)
{
	unsigned int count;

	rcu_read_lock();
	count = files_fdtable(current->files)->max_fds;
	rcu_read_unlock();
	return count;
}

#endif
