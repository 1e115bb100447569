// SPDX-License-Identifier: GPL-2.0-only
/*
 * Who gets a clone of a listening socket, and on which core.
 *
 * A SPAWN call only arms the socket: from then on it may have clones. A task
 * gets one when it accepts or polls, not when it calls: so a program that
 * spawns where it listens, or for children it is about to fork, takes no core
 * away from those that will accept. The task is
 *
 *	bound to one core	gets the clone of that core, and shares it with
 *				others bound there
 *	not bound, mode 2	gets a core of its set that nobody has, and is
 *				bound to it
 *	else			accepts from the global queue
 */
#include <linux/net.h>

#include "fastsocket.h"
#include "kernel.h"

static int spawn_on(struct sock *sk, int cpu, int share)
{
	int err = inet_listen_spawn(sk, cpu, share);

	if (!err) {
		fsocket_count(FSOCKET_SPAWNED);
		fsocket_say(FSOCKET_DEBUG, "task %d has the clone of core %d",
			    task_pid_nr(current), cpu);
	} else if (err != -EBUSY) {
		fsocket_count(FSOCKET_FAILED);
		fsocket_say(FSOCKET_DEBUG, "no clone on core %d: error %d", cpu,
			    err);
	}
	return err;
}

/* A core that nobody has, and bind to it. */
static int spawn_free(struct sock *sk)
{
	const struct cpumask *allowed = kernel_allowed();
	int cpu, here = raw_smp_processor_id(), err = -EBUSY;

	if (!inet_listen_taken(sk, here)) {
		cpu = here;
		err = spawn_on(sk, cpu, 0);
	}
	if (err == -EBUSY) {
		for_each_cpu_and(cpu, allowed, cpu_online_mask) {
			if (inet_listen_taken(sk, cpu))
				continue;
			err = spawn_on(sk, cpu, 0);
			if (err != -EBUSY)
				break;
		}
	}
	if (!err && !set_cpus_allowed_ptr(current, cpumask_of(cpu)))
		fsocket_count(FSOCKET_BOUND);
	return err;
}

static void attend(struct sock *sk)
{
	int mode = enable_listen_spawn, err;

	if (!mode)
		return;
	if (cpumask_weight(kernel_allowed()) == 1)
		err = spawn_on(sk, cpumask_first(kernel_allowed()), 1);
	else if (mode == 2)
		err = spawn_free(sk);
	else
		err = -EBUSY;
	if (err == -EBUSY)
		fsocket_count(FSOCKET_SURPLUS);
}

static const struct inet_listen_policy policy = {
	.owner = THIS_MODULE,
	.attend = attend,
};

int fsocket_spawn(struct socket *sock)
{
	if (!enable_listen_spawn)
		return 0;
	return inet_listen_arm(sock->sk, &policy);
}
