/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * libfsocket: lets the tasks of an unchanged program have a listener in their core's table.
 *
 * Which calls need the device
 * ---------------------------
 * One: SPAWN_LISTEN, "this task is going to accept from that listener". Nothing in the ordinary
 * system calls says so early enough. Sockets themselves are ordinary ones: making, listening,
 * accepting, shutting down and closing are plain system calls, because the kernel below has to
 * get them right anyway for sockets that are passed on, inherited by programs without this
 * library, or dropped by kill -9. So a descriptor is never in a state that only we know of, and
 * all we can be is early, late or wrong about a hint; the program's calls do what they always did.
 *
 * When it is said
 * ---------------
 * At the first epoll_ctl(ADD) or accept() of a thread on a listening TCP socket; never in
 * listen() or fork(), as those who call them (the master of nginx) need not accept at all.
 * Once for a thread and a listener: which ones were done is in the thread's own memory
 * (spawn.c), emptied in a forked child.
 *
 * The picture of descriptors
 * --------------------------
 * To keep the accept path free of system calls of ours, picture.c remembers what a descriptor is:
 *
 *	       socket(), accept()
 *	UNKNOWN ---------------------> PLAIN
 *	  |  ^                         |   ^
 *	  |  | close()        listen() |   | shutdown()
 *	  |  |                         v   |
 *	  +--|---------------------> LISTENER number
 *	    asked the kernel: a listener that was inherited or received
 *
 * All wrappers of calls that make, copy or close descriptors are there to keep it true. Where
 * they can't see (a raw system call, fclose()) it may go stale; then a spawn is asked for
 * something that is not a listener, which the module refuses, or is not asked for at all, and the
 * thread accepts from the global queue like any other.
 *
 * One wrapped function a file. All configuration is read in the constructor and does not change
 * after it. No lock, no allocation: every wrapper can run in a signal handler.
 */
#ifndef FSOCKET_H
#define FSOCKET_H

#ifndef __x86_64__
#error "libfsocket is for x86_64"
#endif

#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>

#define likely(x)	__builtin_expect(!!(x), 1)
#define unlikely(x)	__builtin_expect(!!(x), 0)

/* Room in a thread that needs no call of the dynamic linker, so that a signal handler can use it. */
#define FSOCKET_THREAD	static __thread __attribute__((tls_model("initial-exec")))

/* The functions we stand in front of; those that an old C library lacks may be NULL. */
struct fsocket_libc {
	int (*socket)(int domain, int type, int protocol);
	int (*listen)(int fd, int backlog);
	int (*accept)(int fd, struct sockaddr *address, socklen_t *length);
	int (*accept4)(int fd, struct sockaddr *address, socklen_t *length, int flags);
	int (*epoll_ctl)(int epfd, int op, int fd, struct epoll_event *event);
	int (*close)(int fd);
	int (*shutdown)(int fd, int how);
	int (*dup)(int fd);
	int (*dup2)(int fd, int to);
	int (*dup3)(int fd, int to, int flags);
	int (*fcntl)(int fd, int command, ...);
	int (*fcntl64)(int fd, int command, ...);
	pid_t (*vfork)(void);
	int (*clone)(int (*fn)(void *), void *stack, int flags, void *arg, ...);
	int (*close_range)(unsigned int first, unsigned int last, int flags);
	void (*closefrom)(int first);
	int (*pthread_create)(pthread_t *thread, const pthread_attr_t *attr,
			      void *(*start)(void *), void *arg);
	int (*sched_setaffinity)(pid_t task, size_t size, const cpu_set_t *cpus);
	int (*pthread_setaffinity_np)(pthread_t thread, size_t size, const cpu_set_t *cpus);
};

/* setup.c */
extern struct fsocket_libc fsocket_functions;
extern int fsocket_resolved;
void fsocket_resolve(void);

static inline const struct fsocket_libc *libc(void)
{
	/* Another library's constructor can be earlier than ours. */
	if (unlikely(!__atomic_load_n(&fsocket_resolved, __ATOMIC_ACQUIRE)))
		fsocket_resolve();
	return &fsocket_functions;
}

void fsocket_complain(const char *what, int error);
void fsocket_tell(void);

/* process.c: whether the descriptors that we remember are those of the caller */
extern int fsocket_served;
extern int fsocket_borrowed;
int fsocket_is_owner(void);
void fsocket_lend(void);
void fsocket_forked(void);

/* The first thing in each wrapper: no means straight to libc. */
static inline int fsocket_active(void)
{
	if (!__atomic_load_n(&fsocket_served, __ATOMIC_ACQUIRE))
		return 0;
	return likely(!__atomic_load_n(&fsocket_borrowed, __ATOMIC_RELAXED)) || fsocket_is_owner();
}

/* channel.c: our descriptor of the device */
int fsocket_open_channel(void);
int fsocket_channel(void);
int fsocket_is_channel(int fd);
int fsocket_channel_number(void);
void fsocket_move_channel(int fd);

/* picture.c */
void fsocket_note_plain(int fd);
void fsocket_note_listening(int fd);
void fsocket_note_copy(int from, int to);
void fsocket_forget(int fd);
void fsocket_forget_range(unsigned int first, unsigned int last);
uint32_t fsocket_listener(int fd);

/* spawn.c */
void fsocket_will_accept(int fd);
void fsocket_forget_spawns(void);
int fsocket_unpin(void);
void fsocket_pin_again(void);
void fsocket_note_affinity(void);

#endif /* FSOCKET_H */
