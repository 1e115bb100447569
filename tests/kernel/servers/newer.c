// SPDX-License-Identifier: GPL-2.0-only
/*
 * What two servers can't do without and 2.6.32 does not have; preloaded by their tests only.
 *
 *	getrandom()			Apache's library ends without it, where others take
 *					/dev/urandom themselves
 *	prctl(PR_CAP_AMBIENT)		lighttpd ends when it can't give up what it does not have
 *
 * Built without any header, so that it needs the C library of neither machine.
 */

#define SYS_READ 0
#define SYS_OPEN 2
#define SYS_CLOSE 3
#define SYS_PRCTL 157

#define PR_CAP_AMBIENT 47

extern int *__errno_location(void);

static long call(long number, long a, long b, long c, long d, long e)
{
	register long fourth __asm__("r10") = d;
	register long fifth __asm__("r8") = e;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth), "r"(fifth)
			 : "rcx", "r11", "memory");
	if (result < 0) {
		*__errno_location() = (int)-result;
		return -1;
	}
	return result;
}

long getrandom(void *buffer, unsigned long size, unsigned int flags)
{
	long fd = call(SYS_OPEN, (long)"/dev/urandom", 0, 0, 0, 0), length;

	(void)flags;
	if (fd < 0)
		return -1;
	length = call(SYS_READ, fd, (long)buffer, (long)size, 0, 0);
	call(SYS_CLOSE, fd, 0, 0, 0, 0);
	return length;
}

int prctl(int option, long a, long b, long c, long d)
{
	if (option == PR_CAP_AMBIENT)
		return 0;
	return (int)call(SYS_PRCTL, option, a, b, c, d);
}
