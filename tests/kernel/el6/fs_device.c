// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest: seconds=60 modules=fastsocket variants=patched,patched-debug
 *
 * /dev/fastsocket: numbers, errors, and calls that are system calls.
 */
#include "fastsocket.h"

static int call(int number, struct fsocket_ioctl_arg *arg)
{
	int fd = device(), result = ioctl(fd, number, arg), error = errno;

	close(fd);
	errno = error;
	return result;
}

TEST(the_version_and_the_parameters_are_there)
{
	begin(2);
	CHECK_EQ(call(FSOCKET_IOC_VERSION, NULL), FSOCKET_ABI_VERSION);
	CHECK_EQ(ktap_read_number(SPAWN_MODE), 2);
	CHECK_EQ(ktap_read_number(MODULE
			"/parameters/enable_fastsocket_debug"), 3);
	CHECK(!ktap_write(SPAWN_MODE, "3"));
	CHECK(!ktap_write(SPAWN_MODE, "-1"));
	CHECK_EQ(ktap_read_number(SPAWN_MODE), 2);
}

TEST(wrong_calls_are_refused)
{
	static const int with_pointer[] = {
		FSOCKET_IOC_SOCKET, FSOCKET_IOC_LISTEN, FSOCKET_IOC_ACCEPT,
		FSOCKET_IOC_CLOSE, FSOCKET_IOC_SPAWN_LISTEN,
		FSOCKET_IOC_SHUTDOWN_LISTEN, FSOCKET_IOC_SPAWN_ALL_LISTEN,
	};
	static const int with_descriptor[] = {
		FSOCKET_IOC_LISTEN, FSOCKET_IOC_ACCEPT, FSOCKET_IOC_CLOSE,
		FSOCKET_IOC_SPAWN_LISTEN, FSOCKET_IOC_SHUTDOWN_LISTEN,
	};
	struct fsocket_ioctl_arg arg = { .fd = 0 };
	unsigned int i;

	for (i = 0; i < sizeof(with_pointer) / sizeof(int); i++) {
		CHECK_EQ(call(with_pointer[i], (void *)8), -1);
		CHECK_EQ(errno, EFAULT);
	}
	for (i = 0; i < sizeof(with_descriptor) / sizeof(int); i++) {
		arg.fd = 777;
		CHECK_EQ(call(with_descriptor[i], &arg), -1);
		CHECK_EQ(errno, EBADF);
	}
	CHECK_EQ(call(_IO(FSOCKET_IOC_MAGIC, 5), &arg), -1);
	CHECK_EQ(errno, EINVAL);
	CHECK_EQ(call(_IO(FSOCKET_IOC_MAGIC, 0x21), &arg), -1);
	CHECK_EQ(errno, EINVAL);
}

TEST(spawn_wants_a_listening_tcp_socket)
{
	int fd;

	begin(2);
	CHECK_EQ(try_spawn(open("/dev/null", O_RDONLY), -1), ENOTSOCK);
	CHECK_EQ(try_spawn(socket(AF_INET, SOCK_STREAM, 0), -1), EINVAL);
	CHECK_EQ(try_spawn(socket(AF_INET, SOCK_DGRAM, 0), -1), EINVAL);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	NEED(listen(fd, 1) == 0 || errno == EINVAL);
	CHECK_EQ(try_spawn(fd, -1), EINVAL);
	fd = listener();
	CHECK_EQ(try_spawn(fd, 4096), EINVAL);
	CHECK_EQ(try_spawn(fd, -2), EINVAL);
	pin(0);
	CHECK_EQ(try_spawn(fd, 1), EINVAL);
	CHECK_EQ(try_spawn(fd, 0), 0);
}

TEST(spawn_all_arms_every_listener)
{
	struct fsocket_ioctl_arg arg = { .op.spawn.cpu = FSOCKET_CPU_ANY };
	int fds[3], i;

	begin(1);
	for (i = 0; i < 3; i++)
		fds[i] = listener();
	CHECK_EQ(call(FSOCKET_IOC_SPAWN_ALL_LISTEN, &arg), 0);
	pin(0);
	for (i = 0; i < 3; i++) {
		NEED(fcntl(fds[i], F_SETFL, O_RDWR | O_NONBLOCK) == 0);
		CHECK(accept(fds[i], NULL, NULL) < 0 && errno == EAGAIN);
		CHECK_EQ(clones(port_of(fds[i])), 1);
	}
}

/* A server that does all by the device, as an old library does. */
static void serve_by_device(int (*say)(int, struct fsocket_ioctl_arg *))
{
	struct fsocket_ioctl_arg *arg = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	struct sockaddr_in *peer = (void *)((char *)arg + 1024);
	int *length = (void *)((char *)arg + 2048);
	union address address;
	socklen_t size;
	int fd, one, port;

	NEED(arg != MAP_FAILED);
	memset(arg, 0, sizeof(*arg));
	arg->op.socket.family = AF_INET;
	arg->op.socket.type = SOCK_STREAM | SOCK_CLOEXEC;
	fd = say(FSOCKET_IOC_SOCKET, arg);
	NEED(fd >= 0);
	CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	size = loopback(&address, AF_INET, 0);
	NEED(bind(fd, &address.any, size) == 0);
	memset(arg, 0, sizeof(*arg));
	arg->fd = fd;
	arg->backlog = 5;
	CHECK_EQ(say(FSOCKET_IOC_LISTEN, arg), 0);
	port = port_of(fd);
	arg->op.spawn.cpu = -1;
	CHECK_EQ(say(FSOCKET_IOC_SPAWN_LISTEN, arg), 0);
	one = connect_to(AF_INET, port);
	NEED(one >= 0);
	*length = sizeof(*peer);
	arg->fd = fd;
	if (say == call) {
		arg->op.accept.sockaddr = (struct sockaddr *)peer;
		arg->op.accept.length = length;
		arg->op.accept.flags = SOCK_NONBLOCK;
	} else {
		struct fsocket_compat_ioctl_arg *small = (void *)arg;

		small->op.accept.sockaddr = (uintptr_t)peer;
		small->op.accept.length = (uintptr_t)length;
		small->op.accept.flags = SOCK_NONBLOCK;
	}
	fd = say(FSOCKET_IOC_ACCEPT, arg);
	NEED(fd >= 0);
	CHECK_EQ(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	CHECK_EQ(ntohs(peer->sin_port), port_of(one));
	CHECK_EQ(*length, sizeof(*peer));
	memset(&arg->op, 0, sizeof(arg->op));
	arg->op.shutdown.how = SHUT_RDWR;
	CHECK_EQ(say(FSOCKET_IOC_SHUTDOWN_LISTEN, arg), 0);
	CHECK_EQ(clones(port), -1);
	CHECK_EQ(say(FSOCKET_IOC_CLOSE, arg), 0);
	CHECK(fcntl(arg->fd, F_GETFD) < 0 && errno == EBADF);
}

TEST(calls_do_what_the_system_calls_do)
{
	begin(1);
	serve_by_device(call);
}

/* ioctl() as a 32-bit program calls it: number 54 of int 0x80. */
static int call32(int number, struct fsocket_ioctl_arg *arg)
{
	int fd = device(), result;

	__asm__ volatile("int $0x80" : "=a" (result)
			 : "a" (54), "b" (fd), "c" (number),
			   "d" ((unsigned int)(uintptr_t)arg)
			 : "memory", "r8", "r9", "r10", "r11");
	close(fd);
	if (result >= 0)
		return result;
	errno = -result;
	return -1;
}

TEST(calls_of_a_32_bit_program)
{
	begin(1);
	CHECK_EQ(call32(FSOCKET_IOC_VERSION, NULL), FSOCKET_ABI_VERSION);
	CHECK_EQ(call32(_IO(FSOCKET_IOC_MAGIC, 5), NULL), -1);
	CHECK_EQ(errno, EINVAL);
	CHECK_EQ(call32(FSOCKET_IOC_LISTEN, (void *)8), -1);
	CHECK_EQ(errno, EFAULT);
	serve_by_device(call32);
}

/* The device is for everybody, and makes nobody more. */
TEST(who_is_not_root_gets_no_more_than_by_system_calls)
{
	struct fsocket_ioctl_arg arg = { .op.socket = { AF_INET, SOCK_RAW, 1 } };

	NEED(setuid(12345) == 0);
	CHECK_EQ(call(FSOCKET_IOC_SOCKET, &arg), -1);
	CHECK_EQ(errno, EPERM);
	CHECK_EQ(call(FSOCKET_IOC_VERSION, NULL), FSOCKET_ABI_VERSION);
}

TEST(writing_to_a_table_sets_it_to_zero)
{
	int fd = listener();

	begin(1);
	NEED(connect_to(AF_INET, port_of(fd)) >= 0);
	NEED(accept(fd, NULL, NULL) >= 0);
	call(FSOCKET_IOC_CLOSE, &(struct fsocket_ioctl_arg){ .fd = 99 });
	CHECK_EQ(hash_stat(ALL_CPUS, COMMON_ACCEPT), 1);
	CHECK_EQ(stat_of(MODULE_STAT, ALL_CPUS, CALLS), 1);
	NEED(ktap_write(HASH_STAT, "anything"));
	NEED(ktap_write(MODULE_STAT, "anything"));
	CHECK_EQ(hash_stat(ALL_CPUS, COMMON_ACCEPT), 0);
	CHECK_EQ(stat_of(MODULE_STAT, ALL_CPUS, CALLS), 0);
}
