// SPDX-License-Identifier: GPL-2.0-only
/*
 * Fastsocket: short TCP connections that scale with the cores. The kernel
 * patches bring the mechanisms, this module decides and is what programs talk
 * to. Without it the kernel behaves as one without Fastsocket.
 *
 * A feature has a parameter here that switches it on. One that the kernel does
 * not have has none.
 */
#include <linux/init.h>

#include "epoll.h"
#include "est.h"
#include "fastsocket.h"
#include "kernel.h"
#include "rfd.h"

int enable_fastsocket_debug = FSOCKET_INFO;
module_param(enable_fastsocket_debug, int, 0644);
MODULE_PARM_DESC(enable_fastsocket_debug,
	"messages: 0 none, 1 errors, 2 warnings, 3 what is on, 4 everything");

/* 0, 1 or 2 at any time: a clone that is there stays. No text: no "=" either. */
static int set_listen_spawn(const char *text, struct kernel_param *kp)
{
	unsigned long mode;

	if (!text || strict_strtoul(text, 0, &mode) || mode > 2)
		return -EINVAL;
	*(int *)kp->arg = mode;
	return 0;
}

int enable_listen_spawn = 2;
module_param_call(enable_listen_spawn, set_listen_spawn, param_get_int,
		  &enable_listen_spawn, 0644);
__MODULE_PARM_TYPE(enable_listen_spawn, "int");
MODULE_PARM_DESC(enable_listen_spawn,
	"a listen table for each core: 0 off, 1 for tasks bound to one core, 2 binds tasks to free cores");

DEFINE_PER_CPU(unsigned long [FSOCKET_STATS], fsocket_stats);

static int __init fastsocket_init(void)
{
	int err;

	err = fsocket_stat_register();
	if (err)
		goto out;
	err = fs_epoll_init();
	if (err)
		goto out_stat;
	err = fs_rfd_init();
	if (err)
		goto out_epoll;
	fs_est_init();
	inet_listen_enable(1);
	sk_keep_timers(1);
	err = fsocket_device_register();
	if (err)
		goto out_listen;
	printk(KERN_INFO "Fastsocket: Load Module\n");
	if (enable_listen_spawn)
		printk(KERN_INFO "Fastsocket: Enable Listen Spawn[Mode-%d]\n",
		       enable_listen_spawn);
	return 0;

out_listen:
	sk_keep_timers(0);
	inet_listen_enable(0);
	fs_est_exit();
	fs_rfd_exit();
out_epoll:
	fs_epoll_exit();
out_stat:
	fsocket_stat_unregister();
out:
	printk(KERN_ERR "Fastsocket: cannot load: error %d\n", err);
	return err;
}

/* Not called while the device is open or a socket is armed. */
static void __exit fastsocket_exit(void)
{
	fsocket_device_unregister();
	sk_keep_timers(0);
	inet_listen_enable(0);
	fs_est_exit();
	fs_rfd_exit();
	fs_epoll_exit();
	fsocket_stat_unregister();
	printk(KERN_INFO "Fastsocket: Remove Module\n");
}

module_init(fastsocket_init);
module_exit(fastsocket_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Fastsocket: short TCP connections that scale with the cores");
