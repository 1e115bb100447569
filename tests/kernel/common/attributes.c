// SPDX-License-Identifier: GPL-2.0-only
/*
 * What else can be done to the inode of a file that lives in no directory:
 * owner, mode, times, attributes, flushing, locks, watches, paths through
 * /proc. Rare, so easily broken by a shortcut.
 */
#include "files.h"

#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/statfs.h>
#include <sys/xattr.h>

#define PIPEFS	0x50495045
#define SOCKFS	0x534f434b

static const char *through_proc(int fd)
{
	static char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return path;
}

TEST(mode_and_owner_change)
{
	struct stat seen;
	int fds[2], i, count;

	for (i = 0; i < KINDS; i++) {
		/* One inode for all of them: not ours to change. */
		if (kinds[i].anonymous)
			continue;
		count = make(&kinds[i], fds);
		CHECK_EQ(fchmod(fds[0], 0640), 0);
		CHECK_EQ(fchown(fds[0], 12, 34), 0);
		NEED_EQ(fstat(fds[0], &seen), 0);
		CHECK_EQ(seen.st_mode & 07777, 0640);
		CHECK_EQ(seen.st_uid, 12);
		CHECK_EQ(seen.st_gid, 34);
		CHECK_EQ(chmod(through_proc(fds[0]), 0600), 0);
		NEED_EQ(fstat(fds[0], &seen), 0);
		CHECK_EQ(seen.st_mode & 07777, 0600);
		close_all(fds, count);
	}
}

TEST(times_change)
{
	struct timespec times[2] = { { .tv_sec = 1000 }, { .tv_sec = 2000 } };
	struct stat seen;
	int fds[2], i, count;

	for (i = 0; i < KINDS; i++) {
		if (kinds[i].anonymous)
			continue;
		count = make(&kinds[i], fds);
		CHECK_EQ(futimens(fds[0], times), 0);
		NEED_EQ(fstat(fds[0], &seen), 0);
		CHECK_EQ(seen.st_atime, 1000);
		CHECK_EQ(seen.st_mtime, 2000);
		close_all(fds, count);
	}
}

/* Reading and writing a pipe moves its times, without harm to anything. */
TEST(a_pipe_notes_its_use)
{
	struct timespec times[2] = { { .tv_sec = 1000 }, { .tv_sec = 2000 } };
	struct stat seen;
	int fds[2];

	make_pipe(fds);
	NEED_EQ(futimens(fds[0], times), 0);
	CHECK(carries(fds[1], fds[0]));
	NEED_EQ(fstat(fds[0], &seen), 0);
	CHECK(seen.st_mtime > 2000);
}

/* After a change of the inode, flushing must neither write nor forget it. */
TEST(changed_inodes_survive_sync)
{
	struct stat seen;
	int fds[KINDS][2], i;

	for (i = 0; i < KINDS; i++) {
		make(&kinds[i], fds[i]);
		if (!kinds[i].anonymous)
			CHECK_EQ(fchmod(fds[i][0], 0604), 0);
	}
	sync();
	drop_caches();
	sync();
	for (i = 0; i < KINDS; i++) {
		NEED_EQ(fstat(fds[i][0], &seen), 0);
		if (!kinds[i].anonymous)
			CHECK_EQ(seen.st_mode & 07777, 0604);
		CHECK(seen.st_ino != 0);
	}
}

TEST(flushing_is_not_for_them)
{
	int fds[2], i, count;

	for (i = 0; i < KINDS; i++) {
		count = make(&kinds[i], fds);
		CHECK_EQ(fsync(fds[0]), -1);
		CHECK_EQ(errno, EINVAL);
		CHECK_EQ(fdatasync(fds[0]), -1);
		CHECK_EQ(errno, EINVAL);
		close_all(fds, count);
	}
}

TEST(size_and_position_are_not_for_them)
{
	int fds[2], i, count;
	struct statfs fs;

	for (i = 0; i < KINDS; i++) {
		if (kinds[i].anonymous)
			continue;
		count = make(&kinds[i], fds);
		CHECK_EQ(ftruncate(fds[0], 0), -1);
		CHECK_EQ(errno, EINVAL);
		CHECK_EQ(lseek(fds[0], 0, SEEK_SET), -1);
		CHECK_EQ(errno, ESPIPE);
		CHECK_EQ(fchdir(fds[0]), -1);
		CHECK_EQ(errno, ENOTDIR);
		CHECK_EQ(fstatfs(fds[0], &fs), 0);
		CHECK_EQ(fs.f_type,
			 kinds[i].type == S_IFSOCK ? SOCKFS : PIPEFS);
		close_all(fds, count);
	}
}

TEST(attributes_are_refused)
{
	int fds[2], i, count;
	char value[64];

	for (i = 0; i < KINDS; i++) {
		count = make(&kinds[i], fds);
		CHECK_EQ(fgetxattr(fds[0], "user.test", value, sizeof(value)),
			 -1);
		CHECK(errno == EOPNOTSUPP || errno == EPERM ||
		      errno == ENODATA);
		CHECK_EQ(fsetxattr(fds[0], "user.test", "x", 1, 0), -1);
		CHECK(errno == EOPNOTSUPP || errno == EPERM);
		CHECK(flistxattr(fds[0], value, sizeof(value)) >= -1);
		close_all(fds, count);
	}
}

TEST(they_get_no_second_name)
{
	int fds[2], i, count, plain;

	plain = open("plain", O_CREAT | O_WRONLY, 0600);
	NEED(plain >= 0);
	for (i = 0; i < KINDS; i++) {
		count = make(&kinds[i], fds);
		CHECK_EQ(linkat(AT_FDCWD, through_proc(fds[0]), AT_FDCWD,
				"name", AT_SYMLINK_FOLLOW), -1);
		CHECK(errno == EXDEV || errno == EPERM);
		CHECK_EQ(mount(through_proc(fds[0]), "plain", NULL, MS_BIND,
			       NULL), -1);
		CHECK_EQ(errno, EINVAL);
		CHECK_EQ(mount("plain", through_proc(fds[0]), NULL, MS_BIND,
			       NULL), -1);
		CHECK(*link_in(0, fds[0]));
		close_all(fds, count);
	}
}

TEST(they_can_be_locked)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int fds[2], i, count, taken;

	for (i = 0; i < KINDS; i++) {
		count = make(&kinds[i], fds);
		/* flock() goes by file, fcntl() by inode and owner. */
		CHECK_EQ(flock(fds[0], LOCK_EX | LOCK_NB), 0);
		taken = fcntl(fds[0], F_SETLK, &lock);
		CHECK(taken == 0 || errno == EBADF || errno == EINVAL);
		close_all(fds, count);
	}
}

/* Closed by a process that holds locks on it, the inode goes with them. */
TEST(locks_end_with_their_owner)
{
	int fds[2];
	pid_t child;

	make_socketpair(fds);
	child = fork();
	if (!child) {
		int own[2];

		make_socketpair(own);
		CHECK_EQ(flock(own[0], LOCK_EX), 0);
		CHECK_EQ(flock(fds[0], LOCK_EX | LOCK_NB), 0);
		_exit(0);
	}
	CHECK(ktap_child_fine(child));
	CHECK_EQ(flock(fds[0], LOCK_EX | LOCK_NB), 0);
}

/* A watch holds the inode: the file goes first, then the watch. */
TEST(a_watch_outlives_its_file)
{
	int fds[2], i, j, count, watcher, watch;

	for (i = 0; i < KINDS; i++) {
		if (kinds[i].anonymous)
			continue;
		for (j = 0; j < 2; j++) {
			watcher = inotify_init1(IN_NONBLOCK);
			NEED(watcher >= 0);
			count = make(&kinds[i], fds);
			watch = inotify_add_watch(watcher, through_proc(fds[0]),
						  IN_ALL_EVENTS);
			CHECK(watch >= 0);
			close_all(fds, count);
			if (j)
				CHECK_EQ(inotify_rm_watch(watcher, watch), 0);
			CHECK_EQ(close(watcher), 0);
		}
	}
}

TEST(a_watch_sees_a_pipe_used)
{
	int fds[2], watcher = inotify_init1(IN_NONBLOCK);
	char events[4096];

	NEED(watcher >= 0);
	make_pipe(fds);
	NEED(inotify_add_watch(watcher, through_proc(fds[0]), IN_MODIFY) >= 0);
	CHECK_EQ(write(fds[1], "x", 1), 1);
	CHECK(read(watcher, events, sizeof(events)) > 0);
	CHECK_EQ(((struct inotify_event *)events)->mask, IN_MODIFY);
}

TEST(bytes_waiting_and_signals)
{
	sigset_t io, seen;
	int fds[2], i, waiting;

	sigemptyset(&io);
	sigaddset(&io, SIGIO);
	sigprocmask(SIG_BLOCK, &io, NULL);
	for (i = 0; i < 3; i++) {
		if (i == 0)
			make_pipe(fds);
		else if (i == 1)
			make_socketpair(fds);
		else
			connected(fds);
		CHECK_EQ(ioctl(fds[0], FIONREAD, &waiting), 0);
		CHECK_EQ(waiting, 0);
		CHECK_EQ(fcntl(fds[0], F_SETOWN, getpid()), 0);
		CHECK_EQ(fcntl(fds[0], F_SETFL, O_ASYNC | O_NONBLOCK), 0);
		CHECK_EQ(write(fds[1], "12345", 5), 5);
		CHECK(WAIT_FOR(!ioctl(fds[0], FIONREAD, &waiting) &&
			       waiting == 5, 10));
		CHECK(WAIT_FOR(!sigpending(&seen) &&
			       sigismember(&seen, SIGIO), 10));
		/* Closed while the owner is still registered. */
		close_all(fds, 2);
		sigtimedwait(&io, NULL, &(struct timespec){ 0 });
	}
}
