// SPDX-License-Identifier: GPL-2.0-only
/*
 * What programs do to descriptors, each in a process of its own: scenarios NAME. Run under the
 * library and device.c; what reached the device is read back from its log. Ends with 0, or says
 * which expectation failed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXPECT(condition) \
	do { \
		if (!(condition)) { \
			dprintf(2, "%s:%d: %s (errno %d)\n", __func__, __LINE__, #condition, errno); \
			_exit(1); \
		} \
	} while (0)

static const char *self;

/* --- what the device saw --- */

static int count(const char *what, pid_t pid, pid_t tid, int *last_fd)
{
	FILE *log = fopen(getenv("DEVICE_LOG"), "re");
	char line[128], kind[32];
	int n = 0, p, t, fd, cpu, listening;

	if (!log)
		return 0;
	while (fgets(line, sizeof(line), log)) {
		fd = -1;
		cpu = -1;
		listening = 1;
		EXPECT(sscanf(line, "%d %d %31s %d %d %d", &p, &t, kind, &fd, &cpu, &listening) >= 3);
		EXPECT(strcmp(kind, "unexpected"));
		EXPECT(cpu == -1 && listening == 1);
		if (strcmp(kind, what) || (pid && p != pid) || (tid && t != tid))
			continue;
		n++;
		if (last_fd)
			*last_fd = fd;
	}
	fclose(log);
	return n;
}

static int spawns(void)
{
	return count("spawn", 0, 0, NULL);
}

static int spawns_of(pid_t pid)
{
	return count("spawn", pid, 0, NULL);
}

static int last_spawned(void)
{
	int fd = -1;

	count("spawn", 0, 0, &fd);
	return fd;
}

static int opens(void)
{
	return count("open", getpid(), 0, NULL);
}

/* --- pieces --- */

static int family = AF_INET;

static struct sockaddr_in address_of(int fd)
{
	struct sockaddr_in address;
	socklen_t length = sizeof(address);

	EXPECT(!getsockname(fd, (struct sockaddr *)&address, &length));
	return address;
}

static int listener(void)
{
	struct sockaddr_in6 any = { .sin6_family = family };
	socklen_t length = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(any);
	int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0);

	EXPECT(fd >= 0);
	if (family == AF_INET)
		((struct sockaddr_in *)&any)->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	else
		any.sin6_addr = in6addr_loopback;
	EXPECT(!bind(fd, (struct sockaddr *)&any, length));
	EXPECT(!listen(fd, 16));
	return fd;
}

static void add(int set, int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	EXPECT(!epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
}

static void accept_nothing(int fd)
{
	EXPECT(accept(fd, NULL, NULL) == -1);
	EXPECT(errno == EAGAIN);
}

static void join(pid_t pid)
{
	int status;

	EXPECT(pid > 0);
	EXPECT(waitpid(pid, &status, 0) == pid);
	EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static int connection_to(int fd)
{
	struct sockaddr_in address = address_of(fd);
	int client = socket(AF_INET, SOCK_STREAM, 0);

	EXPECT(client >= 0);
	EXPECT(!connect(client, (struct sockaddr *)&address, sizeof(address)));
	return client;
}

/* A connection that waits to be accepted already. */
static int accept_one(int fd)
{
	int client = connection_to(fd), server = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

	EXPECT(server >= 0);
	EXPECT(!close(client));
	return server;
}

/* --- when it is spawned --- */

static void listening_does_not_spawn(void)
{
	int fd = listener();
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	join(pid);
	EXPECT(!listen(fd, 32));
	EXPECT(spawns() == 0);
}

static void adding_spawns_once(void)
{
	int fd = listener(), set = epoll_create1(0);

	add(set, fd);
	EXPECT(spawns() == 1);
	EXPECT(last_spawned() == fd);
	EXPECT(!epoll_ctl(set, EPOLL_CTL_DEL, fd, NULL));
	add(set, fd);
	accept_one(fd);
	EXPECT(spawns() == 1);
}

static void accepting_spawns_once(void)
{
	int fd = listener(), set = epoll_create1(0);

	accept_nothing(fd);
	EXPECT(spawns() == 1);
	accept_one(fd);
	add(set, fd);
	EXPECT(spawns() == 1);
	accept_nothing(listener());
	EXPECT(spawns() == 2);
}

static void ipv6_spawns(void)
{
	family = AF_INET6;
	accept_nothing(listener());
	EXPECT(spawns() == 1);
}

/* Neither spawned nor looked at: what a connection costs is what it cost before. */
static void connections_are_not_asked_about(void)
{
	int fd = listener(), set = epoll_create1(0), i, client, server;

	for (i = 0; i < 20; i++) {
		add(set, accept_one(fd));
		client = connection_to(fd);
		server = accept(fd, NULL, NULL);
		EXPECT(server >= 0);
		add(set, client);
		add(set, server);
	}
	EXPECT(spawns() == 1);
	/* By listen(). */
	EXPECT(count("ask", 0, 0, NULL) == 1);
}

static void a_master_never_spawns_and_each_worker_once(void)
{
	int fd = listener(), i, go[2], done[2];
	pid_t workers[3];
	char byte;

	EXPECT(!pipe(go) && !pipe(done));
	for (i = 0; i < 3; i++) {
		workers[i] = fork();
		if (!workers[i]) {
			int set = epoll_create1(0);

			add(set, fd);
			EXPECT(spawns_of(getpid()) == 1);
			EXPECT(write(done[1], "d", 1) == 1);
			EXPECT(!close(go[1]));
			EXPECT(read(go[0], &byte, 1) == 0);
			while (accept(fd, NULL, NULL) >= 0)
				;
			_exit(0);
		}
	}
	for (i = 0; i < 3; i++)
		EXPECT(read(done[0], &byte, 1) == 1);
	for (i = 0; i < 5; i++)
		connection_to(fd);
	EXPECT(!close(go[1]));
	for (i = 0; i < 3; i++)
		join(workers[i]);
	EXPECT(spawns() == 3);
	for (i = 0; i < 3; i++)
		EXPECT(spawns_of(workers[i]) == 1);
	EXPECT(spawns_of(getpid()) == 0);
}

static void a_child_spawns_for_itself(void)
{
	int fd = listener();
	pid_t pid;

	accept_nothing(fd);
	pid = fork();
	if (!pid) {
		EXPECT(spawns_of(getpid()) == 0);
		accept_nothing(fd);
		accept_nothing(fd);
		EXPECT(spawns_of(getpid()) == 1);
		_exit(0);
	}
	join(pid);
	accept_nothing(fd);
	EXPECT(spawns_of(getpid()) == 1);
	EXPECT(spawns() == 2);
}

static void *accepting_thread(void *pointer)
{
	int fd = *(int *)pointer;

	accept_nothing(fd);
	accept_nothing(fd);
	EXPECT(count("spawn", 0, syscall(SYS_gettid), NULL) == 1);
	return NULL;
}

static void each_thread_spawns_once(void)
{
	int fd = listener(), i;
	pthread_t threads[8];

	for (i = 0; i < 8; i++)
		EXPECT(!pthread_create(&threads[i], NULL, accepting_thread, &fd));
	for (i = 0; i < 8; i++)
		EXPECT(!pthread_join(threads[i], NULL));
	EXPECT(spawns() == 8);
}

static void many_listeners_are_told_apart(void)
{
	int fds[200], i, round;

	for (i = 0; i < 200; i++)
		fds[i] = listener();
	for (round = 0; round < 3; round++)
		for (i = 0; i < 200; i++)
			accept_nothing(fds[i]);
	EXPECT(spawns() == 200);
}

/* --- the picture of descriptors --- */

static void copies_are_the_same_listener(void)
{
	int fd = listener();

	accept_nothing(fd);
	accept_nothing(dup(fd));
	EXPECT(dup2(fd, 50) == 50);
	accept_nothing(50);
	EXPECT(dup3(fd, 51, O_CLOEXEC) == 51);
	accept_nothing(51);
	EXPECT(fcntl(fd, F_DUPFD, 60) == 60);
	accept_nothing(60);
	EXPECT(fcntl(fd, F_DUPFD_CLOEXEC, 61) == 61);
	accept_nothing(61);
	EXPECT(dup2(fd, fd) == fd);
	accept_nothing(fd);
	EXPECT(spawns() == 1);
	EXPECT(!close(fd));
	accept_nothing(50);
	EXPECT(spawns() == 1);
}

static void a_copy_is_spawned_by_its_own_number(void)
{
	int fd = listener(), copy = dup(fd);

	EXPECT(!close(fd));
	accept_nothing(copy);
	EXPECT(spawns() == 1 && last_spawned() == copy);
}

static void a_copy_onto_a_listener_replaces_it(void)
{
	int fd = listener(), other = listener();

	accept_nothing(fd);
	EXPECT(dup2(other, fd) == fd);
	accept_nothing(fd);
	EXPECT(spawns() == 2);
}

/* Another listener takes the number fd, without a call that the library sees. */
static void arrives(int listening, int fd)
{
	EXPECT(syscall(SYS_dup, listening) == fd);
	accept_nothing(fd);
}

static void closing_forgets(void)
{
	int other = listener(), fd = listener(), set = epoll_create1(0), pipes[2];

	accept_nothing(fd);
	EXPECT(!close(fd));
	EXPECT(listener() == fd);
	accept_nothing(fd);
	EXPECT(spawns() == 2);
	EXPECT(!close(fd));
	arrives(other, fd);
	EXPECT(spawns() == 3);
	EXPECT(!close(fd));
	EXPECT(!pipe(pipes) && pipes[0] == fd);
	add(set, fd);
	EXPECT(spawns() == 3);
}

static void closing_ranges_forgets(void)
{
	int (*range)(unsigned int, unsigned int, int) =
		(int (*)(unsigned int, unsigned int, int))dlsym(RTLD_DEFAULT, "close_range");
	void (*from)(int) = (void (*)(int))dlsym(RTLD_DEFAULT, "closefrom");
	int other = listener(), fd = listener();

	accept_nothing(fd);
	EXPECT(range && !range(fd, fd, 0));
	arrives(other, fd);
	EXPECT(spawns() == 2);
	EXPECT(from);
	from(fd);
	EXPECT(fcntl(fd, F_GETFD) == -1);
	arrives(other, fd);
	EXPECT(spawns() == 3);
	/* CLOSE_RANGE_CLOEXEC closes nothing. */
	EXPECT(!range(fd, fd, 4));
	accept_nothing(fd);
	EXPECT(spawns() == 3);
}

static void an_inherited_listener_spawns(void)
{
	int fd = listener();
	char number[16];
	pid_t pid = fork();

	if (!pid) {
		snprintf(number, sizeof(number), "%d", fd);
		execl(self, self, "inherited", number, NULL);
		_exit(2);
	}
	join(pid);
	EXPECT(spawns_of(pid) == 1);
}

static void inherited(int fd)
{
	add(epoll_create1(0), fd);
	add(epoll_create1(0), fd);
}

static void a_received_listener_spawns(void)
{
	int pair[2], fd, received;
	char byte = 'x';
	struct iovec data = { &byte, 1 };
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(int))];
	} control;
	struct msghdr message = { .msg_iov = &data, .msg_iovlen = 1, .msg_control = &control,
				  .msg_controllen = sizeof(control) };

	EXPECT(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	fd = listener();
	memset(&control, 0, sizeof(control));
	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	EXPECT(sendmsg(pair[0], &message, 0) == 1);
	EXPECT(!close(fd));
	EXPECT(recvmsg(pair[1], &message, 0) == 1);
	memcpy(&received, CMSG_DATA(&control.header), sizeof(received));
	accept_nothing(received);
	accept_nothing(received);
	EXPECT(spawns() == 1);
}

static void others_are_not_spawned(void)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	int set = epoll_create1(0), local = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0), pipes[2];
	int stream = socket(AF_INET, SOCK_STREAM, 0);
	/* MPTCP, on kernels that have it. */
	int multipath = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 262);

	if (multipath >= 0) {
		EXPECT(!listen(multipath, 4));
		accept_nothing(multipath);
	}
	/* An abstract name, chosen by the kernel. */
	EXPECT(!bind(local, (struct sockaddr *)&name, sizeof(sa_family_t)));
	EXPECT(!listen(local, 4));
	accept_nothing(local);
	add(set, local);
	add(set, socket(AF_INET, SOCK_DGRAM, 0));
	add(set, stream);
	EXPECT(!pipe(pipes));
	add(set, pipes[0]);
	EXPECT(accept(pipes[0], NULL, NULL) == -1 && errno == ENOTSOCK);
	EXPECT(accept(stream, NULL, NULL) == -1 && errno == EINVAL);
	EXPECT(listen(pipes[0], 4) == -1 && errno == ENOTSOCK);
	EXPECT(spawns() == 0);
}

static void a_listener_added_before_it_listens_spawns(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	add(epoll_create1(0), fd);
	EXPECT(!listen(fd, 4));
	EXPECT(spawns() == 0);
	accept_nothing(fd);
	EXPECT(spawns() == 1);
}

static void shutdown_ends_a_listener(void)
{
	int fd = listener();

	/* A listener has nothing to write; this ends nothing. */
	EXPECT(!shutdown(fd, SHUT_WR));
	accept_nothing(fd);
	EXPECT(spawns() == 1);
	EXPECT(!listen(fd, 64));
	accept_nothing(fd);
	EXPECT(spawns() == 1);
	EXPECT(!shutdown(fd, SHUT_RD));
	EXPECT(accept(fd, NULL, NULL) == -1 && errno == EINVAL);
	EXPECT(!listen(fd, 64));
	accept_nothing(fd);
	EXPECT(spawns() == 2);
}

static void strange_numbers_are_bad_descriptors(void)
{
	static const int numbers[] = { -1, -70000, INT_MIN, 70000, 1 << 20, INT_MAX };
	struct epoll_event event = { .events = EPOLLIN };
	int set = epoll_create1(0), fd = listener();
	unsigned int i;

#define IS_BAD(call) EXPECT((errno = 0, (call) == -1) && errno == EBADF)
	for (i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
		int n = numbers[i];

		IS_BAD(listen(n, 1));
		IS_BAD(accept(n, NULL, NULL));
		IS_BAD(accept4(n, NULL, NULL, 0));
		IS_BAD(epoll_ctl(set, EPOLL_CTL_ADD, n, &event));
		IS_BAD(shutdown(n, SHUT_RDWR));
		IS_BAD(dup(n));
		IS_BAD(dup2(n, 40));
		IS_BAD(dup3(n, 40, 0));
		IS_BAD(fcntl(n, F_DUPFD, 0));
		IS_BAD(close(n));
	}
	IS_BAD(dup2(fd, -1));
	EXPECT(spawns() == 0);
}

/* Higher than most programs go, or as high as we may. */
static void a_high_descriptor_is_served(void)
{
	int fd = listener(), high = 70000;
	struct rlimit limit;

	EXPECT(!getrlimit(RLIMIT_NOFILE, &limit));
	limit.rlim_cur = limit.rlim_max;
	EXPECT(!setrlimit(RLIMIT_NOFILE, &limit));
	if (limit.rlim_cur <= (rlim_t)high)
		high = (int)limit.rlim_cur - 1;
	EXPECT(dup2(fd, high) == high);
	EXPECT(!close(fd));
	accept_nothing(high);
	EXPECT(spawns() == 1 && last_spawned() == high);
	EXPECT(!close(high));
}

/* Which of the descriptors is the device; there is one. */
static int channel(void)
{
	struct stat now;
	int fd, found = -1;

	for (fd = 3; fd < 4096; fd++) {
		if (fstat(fd, &now) || !S_ISCHR(now.st_mode) || now.st_rdev != 0x107)
			continue;
		EXPECT(found == -1);
		found = fd;
	}
	EXPECT(found >= 0);
	return found;
}

/* --- the channel --- */

static void the_channel_is_out_of_the_way(void)
{
	int first = open("/dev/null", O_RDONLY);

	EXPECT(first == 3);
	EXPECT(channel() >= 200);
	EXPECT(fcntl(channel(), F_GETFD) == FD_CLOEXEC);
}

static void closing_everything_keeps_the_channel(void)
{
	int (*range)(unsigned int, unsigned int, int) =
		(int (*)(unsigned int, unsigned int, int))dlsym(RTLD_DEFAULT, "close_range");
	void (*from)(int) = (void (*)(int))dlsym(RTLD_DEFAULT, "closefrom");
	int fd;

	for (fd = 3; fd < 4096; fd++)
		close(fd);
	accept_nothing(listener());
	EXPECT(spawns() == 1 && opens() == 1);
	for (fd = 4095; fd > 2; fd--)
		close(fd);
	accept_nothing(listener());
	EXPECT(spawns() == 2 && opens() == 1);
	EXPECT(!range(3, ~0U, 0));
	accept_nothing(listener());
	EXPECT(spawns() == 3 && opens() == 1);
	from(3);
	accept_nothing(listener());
	EXPECT(spawns() == 4 && opens() == 1);
	EXPECT(channel() >= 200);
}

static void using_its_number_keeps_the_channel(void)
{
	int number = channel(), file = open("/dev/zero", O_RDONLY);
	struct stat zero, there;

	EXPECT(!fstat(file, &zero));
	EXPECT(dup2(file, number) == number);
	EXPECT(channel() != number);
	EXPECT(dup3(file, channel(), 0) >= 0);
	accept_nothing(listener());
	EXPECT(spawns() == 1 && opens() == 1);
	EXPECT(!fstat(number, &there) && there.st_rdev == zero.st_rdev);
}

static void a_lost_channel_is_opened_anew(void)
{
	int number = channel(), fd = listener(), file = open("/dev/zero", O_RDONLY);
	struct stat there;

	EXPECT(syscall(SYS_dup2, file, number) == number);
	accept_nothing(fd);
	EXPECT(spawns() == 1 && opens() == 2);
	EXPECT(!fstat(number, &there) && there.st_rdev != 0x107);
	EXPECT(!syscall(SYS_close, channel()));
	accept_nothing(listener());
	EXPECT(spawns() == 2 && opens() == 3);
}

static void a_channel_lost_for_good_is_said_once(void)
{
	int fd = listener(), i;

	EXPECT(!setenv("DEVICE_ERRNO", "13", 1));
	EXPECT(!syscall(SYS_close, channel()));
	for (i = 0; i < 3; i++)
		accept_nothing(fd);
	accept_nothing(listener());
	EXPECT(spawns() == 0);
}

static void a_reused_stderr_is_not_written_to(void)
{
	int fd = listener(), pipes[2];

	EXPECT(!pipe2(pipes, O_NONBLOCK));
	EXPECT(dup2(pipes[1], 2) == 2);
	EXPECT(!setenv("DEVICE_ERRNO", "13", 1));
	EXPECT(!syscall(SYS_close, channel()));
	EXPECT(accept(fd, NULL, NULL) == -1);
	if (read(pipes[0], &fd, 1) != -1 || errno != EAGAIN)
		_exit(3);
}

/* --- children that share memory --- */

static void a_vfork_child_leaves_the_picture_alone(void)
{
	int fd = listener();
	volatile int seen = 0;
	pid_t pid, number = channel();

	accept_nothing(fd);
	pid = vfork();
	if (!pid) {
		close(number);
		dup2(0, 30);
		close(fd);
		socket(AF_UNIX, SOCK_STREAM, 0);
		seen = 1;
		_exit(0);
	}
	EXPECT(seen == 1);
	join(pid);
	accept_nothing(fd);
	EXPECT(spawns() == 1);
	EXPECT(channel() == number);
	accept_nothing(listener());
	EXPECT(spawns() == 2 && opens() == 1);
}

static int shared_fd;

static int close_it(void *unused)
{
	(void)unused;
	close(shared_fd);
	socket(AF_UNIX, SOCK_STREAM, 0);
	return 0;
}

static int accept_on_it(void *fd)
{
	accept_nothing(*(int *)fd);
	accept_nothing(*(int *)fd);
	EXPECT(spawns_of(getpid()) == 1);
	return 0;
}

static void clones_are_told_apart(void)
{
	char *stack = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = shared_fd = listener();
	pid_t pid;

	EXPECT(stack != MAP_FAILED);
	accept_nothing(fd);
	pid = clone(close_it, stack + (1 << 20), CLONE_VM | CLONE_VFORK | SIGCHLD, NULL);
	join(pid);
	accept_nothing(fd);
	EXPECT(spawns() == 1);
	pid = clone(accept_on_it, stack + (1 << 20), SIGCHLD, &fd);
	join(pid);
	EXPECT(spawns() == 2 && spawns_of(pid) == 1);
	accept_nothing(fd);
	EXPECT(spawns() == 2);
}

/* --- what a wrapper must not do --- */

static void a_refused_spawn_changes_nothing(void)
{
	int fd = listener(), set = epoll_create1(0);
	struct epoll_event event = { .events = EPOLLIN };

	errno = 77;
	EXPECT(!epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
	EXPECT(errno == 77);
	EXPECT(spawns() == 1);
	accept_nothing(fd);
	accept_one(fd);
	EXPECT(spawns() == 1);
}

static void errno_is_kept(void)
{
	int fd, copy, set = epoll_create1(0);
	struct epoll_event event = { .events = EPOLLIN };

	EXPECT(!syscall(SYS_close, channel()));
	errno = 77;
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	EXPECT(errno == 77 && !listen(fd, 4) && errno == 77);
	EXPECT(!epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) && errno == 77);
	copy = dup(fd);
	EXPECT(errno == 77 && dup2(fd, copy) == copy && errno == 77);
	EXPECT(!close(copy) && errno == 77);
	EXPECT(close(copy) == -1 && errno == EBADF);
	EXPECT(spawns() == 1 && opens() == 2);
}

static long allocations;

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);

void *malloc(size_t size)
{
	__atomic_add_fetch(&allocations, 1, __ATOMIC_RELAXED);
	return __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
	__atomic_add_fetch(&allocations, 1, __ATOMIC_RELAXED);
	return __libc_calloc(n, size);
}

static void nothing_is_allocated(void)
{
	int fd = listener(), set = epoll_create1(0), i;
	long before;
	void *probe;

	before = allocations;
	probe = malloc(1);
	EXPECT(probe && allocations == before + 1);
	free(probe);
	before = allocations;
	add(set, fd);
	for (i = 0; i < 100; i++) {
		int server = accept_one(fd);

		add(set, server);
		EXPECT(!close(dup(server)));
		EXPECT(!shutdown(server, SHUT_RDWR));
		EXPECT(!close(server));
	}
	EXPECT(allocations == before);
	EXPECT(spawns() == 1);
}

static volatile sig_atomic_t handled;
static int signal_fd;

static void on_signal(int number)
{
	int saved = errno, fd;

	(void)number;
	accept(signal_fd, NULL, NULL);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	close(dup(fd));
	close(fd);
	handled++;
	errno = saved;
}

static void a_signal_handler_may_use_it(void)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	int armed_for = -1;

	signal_fd = listener();
	EXPECT(!sigaction(SIGALRM, &action, NULL));
	/* One shot at a time, at another moment each: the program below must get on as well. */
	while (handled < 500) {
		struct itimerval soon = { { 0, 0 }, { 0, 20 + handled % 97 } };
		int fd;

		if (armed_for != handled) {
			armed_for = handled;
			EXPECT(!setitimer(ITIMER_REAL, &soon, NULL));
		}
		fd = listener();
		accept_nothing(fd);
		errno = 77;
		EXPECT(!close(fd) && errno == 77);
	}
	accept_nothing(signal_fd);
	EXPECT(spawns() > 1 && opens() == 1);
}

static void *blocked(void *pointer)
{
	return (void *)(long)accept(*(int *)pointer, NULL, NULL);
}

static void a_blocked_accept_can_be_cancelled(void)
{
	int fd = listener();
	pthread_t thread;
	void *result;

	EXPECT(!fcntl(fd, F_SETFL, 0));
	EXPECT(!pthread_create(&thread, NULL, blocked, &fd));
	while (!spawns())
		sched_yield();
	EXPECT(!pthread_cancel(thread));
	EXPECT(!pthread_join(thread, &result));
	EXPECT(result == PTHREAD_CANCELED);
}

static void *churn(void *unused)
{
	int i;

	for (i = 0; i < 300; i++) {
		int fd = listener(), copy = dup(fd);

		accept_nothing(copy);
		EXPECT(!close(fd) && !close(copy));
	}
	return unused;
}

static void threads_do_not_disturb_each_other(void)
{
	pthread_t threads[4];
	int i;

	for (i = 0; i < 4; i++)
		EXPECT(!pthread_create(&threads[i], NULL, churn, NULL));
	for (i = 0; i < 4; i++)
		EXPECT(!pthread_join(threads[i], NULL));
	EXPECT(spawns() == 1200);
}

/* --- affinity; there are two CPUs or more --- */

static int cpus(void)
{
	cpu_set_t set;

	EXPECT(!sched_getaffinity(0, sizeof(set), &set));
	return CPU_COUNT(&set);
}

static int wide;

static void *is_wide(void *unused)
{
	EXPECT(cpus() == wide);
	return unused;
}

static void what_a_pinned_task_makes_is_not_pinned(void)
{
	pthread_t thread;
	pid_t pid;
	cpu_set_t one;

	wide = cpus();
	EXPECT(wide > 1);
	accept_nothing(listener());
	EXPECT(cpus() == 1);
	accept_nothing(listener());
	pid = fork();
	if (!pid) {
		EXPECT(cpus() == wide);
		_exit(0);
	}
	join(pid);
	EXPECT(!pthread_create(&thread, NULL, is_wide, NULL));
	EXPECT(!pthread_join(thread, NULL));
	EXPECT(cpus() == 1);
	/* An affinity that the program chooses itself is inherited as ever. */
	CPU_ZERO(&one);
	CPU_SET(0, &one);
	EXPECT(!sched_setaffinity(0, sizeof(one), &one));
	wide = 1;
	EXPECT(!pthread_create(&thread, NULL, is_wide, NULL));
	EXPECT(!pthread_join(thread, NULL));
	CPU_SET(1, &one);
	EXPECT(!pthread_setaffinity_np(pthread_self(), sizeof(one), &one));
	wide = 2;
	EXPECT(!pthread_create(&thread, NULL, is_wide, NULL));
	EXPECT(!pthread_join(thread, NULL));
	/* Pinned once more: it goes back to what the program chose. */
	accept_nothing(listener());
	EXPECT(cpus() == 1);
	EXPECT(!pthread_create(&thread, NULL, is_wide, NULL));
	EXPECT(!pthread_join(thread, NULL));
}

#define SCENARIO(name) { #name, name }
static const struct {
	const char *name;
	void (*run)(void);
} scenarios[] = {
	SCENARIO(listening_does_not_spawn),
	SCENARIO(adding_spawns_once),
	SCENARIO(accepting_spawns_once),
	SCENARIO(ipv6_spawns),
	SCENARIO(connections_are_not_asked_about),
	SCENARIO(a_master_never_spawns_and_each_worker_once),
	SCENARIO(a_child_spawns_for_itself),
	SCENARIO(each_thread_spawns_once),
	SCENARIO(many_listeners_are_told_apart),
	SCENARIO(copies_are_the_same_listener),
	SCENARIO(a_copy_is_spawned_by_its_own_number),
	SCENARIO(a_copy_onto_a_listener_replaces_it),
	SCENARIO(closing_forgets),
	SCENARIO(closing_ranges_forgets),
	SCENARIO(an_inherited_listener_spawns),
	SCENARIO(a_received_listener_spawns),
	SCENARIO(others_are_not_spawned),
	SCENARIO(a_listener_added_before_it_listens_spawns),
	SCENARIO(shutdown_ends_a_listener),
	SCENARIO(strange_numbers_are_bad_descriptors),
	SCENARIO(a_high_descriptor_is_served),
	SCENARIO(the_channel_is_out_of_the_way),
	SCENARIO(closing_everything_keeps_the_channel),
	SCENARIO(using_its_number_keeps_the_channel),
	SCENARIO(a_lost_channel_is_opened_anew),
	SCENARIO(a_channel_lost_for_good_is_said_once),
	SCENARIO(a_reused_stderr_is_not_written_to),
	SCENARIO(a_vfork_child_leaves_the_picture_alone),
	SCENARIO(clones_are_told_apart),
	SCENARIO(a_refused_spawn_changes_nothing),
	SCENARIO(errno_is_kept),
	SCENARIO(nothing_is_allocated),
	SCENARIO(a_signal_handler_may_use_it),
	SCENARIO(a_blocked_accept_can_be_cancelled),
	SCENARIO(threads_do_not_disturb_each_other),
	SCENARIO(what_a_pinned_task_makes_is_not_pinned),
};

int main(int argc, char **argv)
{
	unsigned int i;

	self = argv[0];
	if (argc == 3 && !strcmp(argv[1], "inherited")) {
		inherited(atoi(argv[2]));
		return 0;
	}
	for (i = 0; i < sizeof(scenarios) / sizeof(*scenarios); i++) {
		if (argc == 2 && !strcmp(argv[1], scenarios[i].name)) {
			scenarios[i].run();
			return 0;
		}
	}
	for (i = 0; i < sizeof(scenarios) / sizeof(*scenarios); i++)
		puts(scenarios[i].name);
	return 2;
}
