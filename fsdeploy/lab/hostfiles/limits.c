// SPDX-License-Identifier: GPL-2.0-only
/*
 * getrlimit() and setrlimit() by the old system calls.
 *
 * The C library of a lab host's userland knows only prlimit64(), which came with Linux 2.6.36; on a
 * 2.6.32 kernel every question for a limit fails and programs such as nginx stop. This library is
 * named in /etc/ld.so.preload of lab hosts, and of nothing else. The old calls exist on all kernels.
 *
 * One limit is not set: a sandboxed process of sshd forbids itself to open files, and where the
 * kernel has no getrandom() the C library must open /dev/urandom there or abort.
 *
 * Built without any header, so that it needs the C library of neither machine, and as an empty
 * library for 32-bit programs: the only one, GRUB's shell, asks for no limit, but the dynamic loader
 * looks for a library of its class.
 */

#ifdef __x86_64__

#define SYS_GETRLIMIT 97
#define SYS_SETRLIMIT 160
#define RLIMIT_NOFILE 7

struct limit {
	unsigned long current;
	unsigned long most;
};

extern int *__errno_location(void);

static int call(long number, long resource, void *limit)
{
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(resource), "S"(limit)
			 : "rcx", "r11", "memory");
	if (result < 0) {
		*__errno_location() = (int)-result;
		return -1;
	}
	return 0;
}

static int set(int resource, const struct limit *limit)
{
	if (resource == RLIMIT_NOFILE && limit->most <= 1)
		return 0;
	return call(SYS_SETRLIMIT, resource, (void *)limit);
}

int getrlimit(int resource, struct limit *limit)
{
	return call(SYS_GETRLIMIT, resource, limit);
}

int setrlimit(int resource, const struct limit *limit)
{
	return set(resource, limit);
}

/* rlim_t has 64 bits either way. */
int getrlimit64(int resource, struct limit *limit)
{
	return call(SYS_GETRLIMIT, resource, limit);
}

int setrlimit64(int resource, const struct limit *limit)
{
	return set(resource, limit);
}

#endif
