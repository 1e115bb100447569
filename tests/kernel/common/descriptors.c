// SPDX-License-Identifier: GPL-2.0-only
/*
 * Sockets, pipes and anonymous files live and die by the kernel's ordinary
 * reference rules: dup(), fork(), threads, SCM_RIGHTS, kill -9, and a close in
 * one thread while another is in a call on the same descriptor.
 */
#include "files.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>

/* Whether the other end of a connection or pipe is gone. */
static bool is_closed(int fd)
{
	struct pollfd watched = { .fd = fd, .events = POLLIN };
	char byte;

	return poll(&watched, 1, 0) == 1 && read(fd, &byte, 1) <= 0;
}

static void both_directions(int ends[2])
{
	CHECK(carries(ends[0], ends[1]));
	CHECK(carries(ends[1], ends[0]));
}

TEST(dup_keeps_the_file_alive)
{
	int ends[2], other;
	unsigned long long inode;

	connected(ends);
	inode = inode_of(ends[0]);
	other = dup(ends[0]);
	NEED(other >= 0);
	CHECK_EQ(inode_of(other), inode);
	close(ends[0]);
	CHECK(!is_closed(ends[1]));
	CHECK(link_is(0, other, "socket", inode));
	CHECK(carries(other, ends[1]));
	CHECK_EQ(dup2(other, 70), 70);
	CHECK_EQ(fcntl(other, F_DUPFD_CLOEXEC, 80), 80);
	close(other);
	CHECK(carries(80, ends[1]));
	close(80);
	CHECK(carries(70, ends[1]));
	close(70);
	CHECK(WAIT_FOR(is_closed(ends[1]), 10));
}

TEST(fork_shares_the_file)
{
	int ends[2];
	pid_t child;

	connected(ends);
	child = fork();
	if (!child) {
		close(ends[1]);
		CHECK(carries(ends[0], ends[0]));
		_exit(0);
	}
	close(ends[0]);
	/* Echo what the child says to its own end. */
	CHECK(carries(ends[1], ends[1]) || errno == 0);
	CHECK(ktap_child_fine(child));
	CHECK(WAIT_FOR(is_closed(ends[1]), 10));
}

TEST(vfork_and_exec_share_the_file)
{
	int ends[2];
	pid_t child;

	connected(ends);
	fcntl(ends[1], F_SETFD, FD_CLOEXEC);
	child = vfork();
	if (!child) {
		/* Not a program: fails, and the file must have survived it. */
		execl("/proc/self/mounts", "mounts", (char *)NULL);
		_exit(0);
	}
	CHECK(ktap_child_fine(child));
	both_directions(ends);
}

TEST(kill_closes_what_was_open)
{
	enum { EACH = 200 };
	int ends[EACH][2], lasting[2], i, round;
	pid_t child;

	connected(lasting);
	for (round = 0; round < 3; round++) {
		for (i = 0; i < EACH; i++)
			NEED(make_socketpair(ends[i]));
		child = fork();
		if (!child) {
			for (i = 0; i < EACH; i++)
				close(ends[i][1]);
			NEED(write(ends[0][0], "x", 1) == 1);
			pause();
			_exit(0);
		}
		for (i = 0; i < EACH; i++)
			close(ends[i][0]);
		CHECK_EQ(read(ends[0][1], &i, 1), 1);
		CHECK(!is_closed(ends[EACH - 1][1]));
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		for (i = 0; i < EACH; i++) {
			if (!CHECK(is_closed(ends[i][1])))
				break;
			close(ends[i][1]);
		}
	}
	both_directions(lasting);
}

struct accepting {
	int listener;
	volatile int result, error;
	volatile bool in, done;
};

static void *accept_one(void *argument)
{
	struct accepting *state = argument;

	state->in = true;
	state->result = accept(state->listener, NULL, NULL);
	state->error = errno;
	state->done = true;
	return NULL;
}

/* Whether a thread of ours sleeps in the kernel: state S of every other one. */
static bool all_sleep(void)
{
	char path[64], text[512], *state;
	bool sleeps = true;
	int tid;

	for (tid = getpid() + 1; tid < getpid() + 50; tid++) {
		snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
		state = strrchr(ktap_read(path, text, sizeof(text)), ')');
		sleeps &= !state || state[2] == 'S';
	}
	return sleeps;
}

/*
 * The call in progress holds the file: the listener lives on, and a connection
 * that comes is accepted.
 */
TEST(close_in_another_thread_during_accept)
{
	struct accepting state = { 0 };
	int port, client;
	pthread_t thread;

	state.listener = listen_any(&port);
	NEED_EQ(pthread_create(&thread, NULL, accept_one, &state), 0);
	NEED(WAIT_FOR(state.in && all_sleep(), 10));
	CHECK_EQ(close(state.listener), 0);
	CHECK(!state.done);
	client = connect_to(port);
	NEED(WAIT_FOR(state.done, 10));
	CHECK(state.result >= 0);
	CHECK(carries(client, state.result));
	pthread_join(thread, NULL);
	/* The last reference is gone now. */
	close(client);
	client = socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_in address = loopback(port);

	CHECK_EQ(connect(client, (struct sockaddr *)&address, sizeof(address)),
		 -1);
	CHECK_EQ(errno, ECONNREFUSED);
}

TEST(shutdown_in_another_thread_wakes_accept)
{
	struct accepting state = { 0 };
	pthread_t thread;
	int port;

	state.listener = listen_any(&port);
	NEED_EQ(pthread_create(&thread, NULL, accept_one, &state), 0);
	NEED(WAIT_FOR(state.in && all_sleep(), 10));
	CHECK_EQ(shutdown(state.listener, SHUT_RDWR), 0);
	NEED(WAIT_FOR(state.done, 10));
	CHECK_EQ(state.result, -1);
	CHECK_EQ(state.error, EINVAL);
	pthread_join(thread, NULL);
}

struct reading {
	int fd;
	volatile ssize_t result;
	volatile bool in, done;
};

static void *read_one(void *argument)
{
	struct reading *state = argument;
	char byte;

	state->in = true;
	state->result = read(state->fd, &byte, 1);
	state->done = true;
	return NULL;
}

TEST(close_in_another_thread_during_read)
{
	int (*const makers[])(int *) = { make_socketpair, make_pipe };
	int fds[2], i;
	pthread_t thread;

	for (i = 0; i < 2; i++) {
		struct reading state = { 0 };

		NEED(makers[i](fds) == 2);
		state.fd = fds[0];
		NEED_EQ(pthread_create(&thread, NULL, read_one, &state), 0);
		NEED(WAIT_FOR(state.in && all_sleep(), 10));
		CHECK_EQ(close(fds[0]), 0);
		CHECK_EQ(write(fds[1], "x", 1), 1);
		NEED(WAIT_FOR(state.done, 10));
		CHECK_EQ(state.result, 1);
		pthread_join(thread, NULL);
		close(fds[1]);
	}
}

/* Many threads open and close the same numbers: each close wins or is EBADF. */
static void *close_again_and_again(void *argument)
{
	volatile bool *stop = argument;
	int fd;

	while (!*stop)
		for (fd = 100; fd < 120; fd++)
			if (close(fd) < 0 && errno != EBADF)
				CHECK(!"close failed otherwise");
	return NULL;
}

TEST(threads_race_to_close)
{
	pthread_t threads[3];
	bool stop = false;
	int fds[2], round, i;
	struct stat seen;

	for (i = 0; i < 3; i++)
		NEED_EQ(pthread_create(&threads[i], NULL, close_again_and_again,
				       &stop), 0);
	for (round = 0; round < 2000; round++) {
		i = kinds[round % QUICK_KINDS].make(fds);
		NEED(i > 0);
		dup2(fds[0], 100 + round % 20);
		fstat(100 + round % 20, &seen);
		close_all(fds, i);
	}
	stop = true;
	for (i = 0; i < 3; i++)
		CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

TEST(rights_pass_every_kind)
{
	unsigned long long inode;
	int over[2], fds[2], got, i, count;

	make_socketpair(over);
	for (i = 0; i < KINDS; i++) {
		count = make(&kinds[i], fds);
		inode = inode_of(fds[0]);
		CHECK(send_fd(over[0], fds[0]));
		/* Only the message holds it now. */
		close_all(fds, count);
		got = receive_fd(over[1]);
		NEED(got >= 0);
		CHECK_EQ(inode_of(got), inode);
		if (kinds[i].anonymous)
			CHECK(link_is_anonymous(0, got, kinds[i].link));
		else
			CHECK(link_is(0, got, kinds[i].link, inode));
		close(got);
	}
}

TEST(rights_outlive_the_sender)
{
	int over[2], ends[2], got;
	pid_t child;

	make_socketpair(over);
	connected(ends);
	child = fork();
	if (!child) {
		CHECK(send_fd(over[0], ends[0]));
		_exit(0);
	}
	close(ends[0]);
	close(over[0]);
	CHECK(ktap_child_fine(child));
	got = receive_fd(over[1]);
	NEED(got >= 0);
	both_directions((int[]){ got, ends[1] });
}

TEST(rights_nobody_received_are_closed)
{
	int over[2], ends[2];

	make_socketpair(over);
	connected(ends);
	CHECK(send_fd(over[0], ends[0]));
	close(ends[0]);
	CHECK(!is_closed(ends[1]));
	close(over[0]);
	CHECK(!is_closed(ends[1]));
	close(over[1]);
	CHECK(WAIT_FOR(is_closed(ends[1]), 10));
}

/*
 * Sockets that hold each other, and a witness that tells when they are gone:
 * only the garbage collector can free them.
 */
TEST(garbage_of_unix_sockets_is_collected)
{
	int a[2], b[2], ends[2], spare[2];

	connected(ends);
	make_socketpair(a);
	make_socketpair(b);
	NEED(send_fd(a[0], b[1]));
	NEED(send_fd(b[0], a[1]));
	NEED(send_fd(a[0], ends[0]));
	/* A socket in its own queue, too. */
	NEED(send_fd(a[0], a[1]));
	close(ends[0]);
	close_all(a, 2);
	close_all(b, 2);
	/* The end of a UNIX socket starts a collection. */
	CHECK(WAIT_FOR(({
		make_socketpair(spare);
		close_all(spare, 2);
		is_closed(ends[1]);
	}), 20));
}

TEST(descriptor_tables_are_shared_and_unshared)
{
	int ends[2], status;
	pid_t child;

	connected(ends);
	/* A child with the same table closes the parent's descriptor. */
	child = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
	if (!child) {
		close(ends[0]);
		_exit(0);
	}
	NEED(waitpid(child, &status, 0) == child);
	CHECK_EQ(fcntl(ends[0], F_GETFD), -1);
	CHECK(WAIT_FOR(is_closed(ends[1]), 10));
	close(ends[1]);

	connected(ends);
	child = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
	if (!child) {
		unshare(CLONE_FILES);
		close(ends[0]);
		_exit(0);
	}
	NEED(waitpid(child, &status, 0) == child);
	both_directions(ends);
}

TEST(out_of_descriptors)
{
	struct rlimit limit = { 64, 64 };
	int fds[2], i, count, held[64];

	NEED_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
	for (count = 0; (held[count] = dup(0)) >= 0; count++)
		;
	for (i = 0; i < KINDS; i++) {
		errno = 0;
		CHECK_EQ(kinds[i].make(fds), 0);
		CHECK_EQ(errno, EMFILE);
	}
	/* With one left, those that need two must give the one back. */
	close(held[--count]);
	CHECK_EQ(make_pipe(fds), 0);
	CHECK_EQ(make_socketpair(fds), 0);
	CHECK_EQ(dup(0), held[count]);
}
