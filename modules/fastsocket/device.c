// SPDX-License-Identifier: GPL-2.0-only
/*
 * /dev/fastsocket. Most calls stand for a system call and are that system call,
 * with its checks and its results.
 */
#include <linux/compat.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/net.h>
#include <linux/uaccess.h>

#include "fastsocket.h"
#include "fastsocket_abi.h"
#include "kernel.h"

/* The core is a wish: a task's affinity decides when it accepts. */
static int check_cpu(int cpu)
{
	if (cpu == FSOCKET_CPU_ANY)
		return 0;
	if (cpu < 0 || cpu >= nr_cpu_ids || !cpu_online(cpu) ||
	    !cpumask_test_cpu(cpu, kernel_allowed()))
		return -EINVAL;
	return 0;
}

static int spawn_one(int fd, int cpu)
{
	struct socket *sock;
	int err;

	fsocket_count(FSOCKET_SPAWN_CALLS);
	sock = sockfd_lookup(fd, &err);
	if (!sock)
		return err;
	err = check_cpu(cpu);
	if (!err)
		err = fsocket_spawn(sock);
	sockfd_put(sock);
	return err;
}

static int spawn_all(int cpu)
{
	unsigned int fd, count = kernel_descriptors();
	struct socket *sock;
	int err;

	fsocket_count(FSOCKET_SPAWN_CALLS);
	err = check_cpu(cpu);
	for (fd = 0; fd < count && !err; fd++) {
		int none;

		sock = sockfd_lookup(fd, &none);
		if (!sock)
			continue;
		err = fsocket_spawn(sock);
		/* Not one that listens for TCP connections. */
		if (err == -EINVAL)
			err = 0;
		sockfd_put(sock);
	}
	return err;
}

/*
 * The descriptor may be that of the device, and the one reference to it: a task
 * with descriptors of its own calls without taking another. The rest of the call
 * needs the module, until it leaves it without sleeping any more.
 */
static long close_one(unsigned int fd)
{
	long err;

	__module_get(THIS_MODULE);
	err = sys_close(fd);
	module_put(THIS_MODULE);
	return err;
}

static long call(unsigned int number, const struct fsocket_ioctl_arg *arg)
{
	fsocket_count(FSOCKET_CALLS);
	switch (number) {
	case FSOCKET_IOC_SOCKET:
		return sys_socket(arg->op.socket.family, arg->op.socket.type,
				  arg->op.socket.protocol);
	case FSOCKET_IOC_LISTEN:
		return sys_listen(arg->fd, arg->backlog);
	case FSOCKET_IOC_ACCEPT:
		return sys_accept4(arg->fd, arg->op.accept.sockaddr,
				   arg->op.accept.length, arg->op.accept.flags);
	case FSOCKET_IOC_CLOSE:
		return close_one(arg->fd);
	case FSOCKET_IOC_SPAWN_LISTEN:
		return spawn_one(arg->fd, arg->op.spawn.cpu);
	case FSOCKET_IOC_SHUTDOWN_LISTEN:
		return sys_shutdown(arg->fd, arg->op.shutdown.how);
	case FSOCKET_IOC_SPAWN_ALL_LISTEN:
		return spawn_all(arg->op.spawn.cpu);
	}
	return -EINVAL;
}

/* Whether a number is one of those that take an argument. */
static bool takes_argument(unsigned int number)
{
	switch (number) {
	case FSOCKET_IOC_SOCKET:
	case FSOCKET_IOC_LISTEN:
	case FSOCKET_IOC_ACCEPT:
	case FSOCKET_IOC_CLOSE:
	case FSOCKET_IOC_SPAWN_LISTEN:
	case FSOCKET_IOC_SHUTDOWN_LISTEN:
	case FSOCKET_IOC_SPAWN_ALL_LISTEN:
		return true;
	}
	return false;
}

static long device_ioctl(struct file *file, unsigned int number,
			 unsigned long pointer)
{
	struct fsocket_ioctl_arg arg;

	BUILD_BUG_ON(sizeof(void *) == 8 && sizeof(arg) != 32);
	if (number == FSOCKET_IOC_VERSION)
		return FSOCKET_ABI_VERSION;
	if (!takes_argument(number))
		return -EINVAL;
	if (copy_from_user(&arg, (void __user *)pointer, sizeof(arg)))
		return -EFAULT;
	return call(number, &arg);
}

#ifdef CONFIG_COMPAT
static long device_compat_ioctl(struct file *file, unsigned int number,
				unsigned long pointer)
{
	struct fsocket_compat_ioctl_arg from;
	struct fsocket_ioctl_arg arg = { 0 };

	BUILD_BUG_ON(sizeof(from) != 20);
	if (!takes_argument(number))
		return device_ioctl(file, number, pointer);
	if (copy_from_user(&from, compat_ptr(pointer), sizeof(from)))
		return -EFAULT;
	arg.fd = from.fd;
	arg.backlog = from.backlog;
	if (number == FSOCKET_IOC_ACCEPT) {
		arg.op.accept.sockaddr = compat_ptr(from.op.accept.sockaddr);
		arg.op.accept.length = compat_ptr(from.op.accept.length);
		arg.op.accept.flags = from.op.accept.flags;
	} else {
		/* The others are numbers in the same places. */
		BUILD_BUG_ON(sizeof(arg.op.socket) != sizeof(from.op.socket));
		memcpy(&arg.op.socket, &from.op.socket, sizeof(arg.op.socket));
	}
	return call(number, &arg);
}
#endif

static const struct file_operations device_operations = {
	.owner = THIS_MODULE,
	.unlocked_ioctl = device_ioctl,
#ifdef CONFIG_COMPAT
	.compat_ioctl = device_compat_ioctl,
#endif
};

static struct miscdevice device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "fastsocket",
	.fops = &device_operations,
	.mode = 0666,
};

int fsocket_device_register(void)
{
	return misc_register(&device);
}

void fsocket_device_unregister(void)
{
	misc_deregister(&device);
}
