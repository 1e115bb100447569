// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pipes, named ones among them, which have an ordinary inode, and what moves
 * data through pipes without copying it.
 */
#include "files.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

TEST(end_of_file_and_broken_pipe)
{
	char byte;
	int fds[2];

	signal(SIGPIPE, SIG_IGN);
	make_pipe(fds);
	close(fds[1]);
	CHECK_EQ(read(fds[0], &byte, 1), 0);
	close(fds[0]);
	make_pipe(fds);
	close(fds[0]);
	CHECK_EQ(write(fds[1], "x", 1), -1);
	CHECK_EQ(errno, EPIPE);
}

TEST(flags_are_honoured)
{
	char byte;
	int fds[2];

	NEED_EQ(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
	CHECK_EQ(fcntl(fds[0], F_GETFD), FD_CLOEXEC);
	CHECK(fcntl(fds[1], F_GETFL) & O_NONBLOCK);
	CHECK_EQ(read(fds[0], &byte, 1), -1);
	CHECK_EQ(errno, EAGAIN);
	make_pipe(fds);
	CHECK_EQ(fcntl(fds[0], F_GETFD), 0);
	CHECK(!(fcntl(fds[1], F_GETFL) & O_NONBLOCK));
	CHECK_EQ(fcntl(fds[0], F_GETFL) & O_ACCMODE, O_RDONLY);
	CHECK_EQ(fcntl(fds[1], F_GETFL) & O_ACCMODE, O_WRONLY);
}

TEST(a_full_pipe_empties_again)
{
	char page[4096] = { 0 };
	struct pollfd watched;
	long written = 0, got = 0, one;
	int fds[2];

	NEED_EQ(pipe2(fds, O_NONBLOCK), 0);
	watched = (struct pollfd){ .fd = fds[1], .events = POLLOUT };
	while ((one = write(fds[1], page, sizeof(page))) > 0)
		written += one;
	CHECK_EQ(errno, EAGAIN);
	CHECK_EQ(written, 65536);
	CHECK_EQ(poll(&watched, 1, 0), 0);
	while ((one = read(fds[0], page, sizeof(page))) > 0)
		got += one;
	CHECK_EQ(got, written);
	CHECK_EQ(poll(&watched, 1, 0), 1);
}

TEST(short_writes_are_not_torn)
{
	enum { WRITERS = 4, EACH = 200, SIZE = 512 };
	char block[SIZE], got[SIZE];
	int fds[2], i, j, torn = 0, blocks = 0;
	ssize_t length;

	make_pipe(fds);
	for (i = 0; i < WRITERS; i++) {
		if (fork())
			continue;
		memset(block, 'a' + i, SIZE);
		for (j = 0; j < EACH; j++)
			NEED_EQ(write(fds[1], block, SIZE), SIZE);
		_exit(0);
	}
	close(fds[1]);
	while ((length = read(fds[0], got, SIZE)) > 0) {
		for (j = length; j < SIZE; j += length) {
			length = read(fds[0], got + j, SIZE - j);
			NEED(length > 0);
		}
		blocks++;
		for (j = 1; j < SIZE; j++)
			torn += got[j] != got[0];
	}
	CHECK_EQ(blocks, WRITERS * EACH);
	CHECK_EQ(torn, 0);
}

TEST(splice_tee_and_vmsplice)
{
	char text[16] = "spliced";
	struct iovec one = { .iov_base = "gifted", .iov_len = 7 };
	int a[2], b[2], ends[2], file;

	make_pipe(a);
	make_pipe(b);
	connected(ends);
	file = open("file", O_CREAT | O_RDWR, 0600);
	NEED(file >= 0 && write(file, text, 8) == 8);
	NEED_EQ(lseek(file, 0, SEEK_SET), 0);

	/* File, pipe, two pipes, socket. */
	CHECK_EQ(splice(file, NULL, a[1], NULL, 8, 0), 8);
	CHECK_EQ(tee(a[0], b[1], 8, 0), 8);
	CHECK_EQ(splice(a[0], NULL, ends[0], NULL, 8, 0), 8);
	memset(text, 0, sizeof(text));
	CHECK_EQ(read(ends[1], text, sizeof(text)), 8);
	CHECK(!strcmp(text, "spliced"));
	memset(text, 0, sizeof(text));
	CHECK_EQ(read(b[0], text, sizeof(text)), 8);
	CHECK(!strcmp(text, "spliced"));

	/* Socket, pipe, file; the pipe is closed with data in it. */
	CHECK_EQ(write(ends[0], "back", 5), 5);
	CHECK_EQ(splice(ends[1], NULL, a[1], NULL, 5, 0), 5);
	NEED_EQ(lseek(file, 0, SEEK_SET), 0);
	CHECK_EQ(splice(a[0], NULL, file, NULL, 5, 0), 5);
	CHECK_EQ(pread(file, text, sizeof(text), 0), 8);
	CHECK(!strcmp(text, "back"));
	CHECK_EQ(vmsplice(a[1], &one, 1, 0), 7);
	close_all(a, 2);
	CHECK(carries(ends[0], ends[1]));
}

TEST(sendfile_to_a_socket)
{
	char page[8192], got[8192];
	int ends[2], file, total = 0, length;
	off_t at = 0;

	memset(page, 'p', sizeof(page));
	file = open("page", O_CREAT | O_RDWR, 0600);
	NEED(file >= 0 && write(file, page, sizeof(page)) == sizeof(page));
	connected(ends);
	CHECK_EQ(sendfile(ends[0], file, &at, sizeof(page)), sizeof(page));
	while (total < (int)sizeof(page)) {
		length = read(ends[1], got + total, sizeof(got) - total);
		NEED(length > 0);
		total += length;
	}
	CHECK(!memcmp(page, got, sizeof(page)));
}

/* A fifo in a directory has an inode that is looked up, linked and unlinked. */
TEST(named_fifos_stay_ordinary)
{
	struct stat by_name, by_fd;
	char target[256];
	int reader, writer;

	NEED_EQ(mkfifo("fifo", 0600), 0);
	NEED_EQ(stat("fifo", &by_name), 0);
	CHECK(S_ISFIFO(by_name.st_mode));
	CHECK_EQ(by_name.st_nlink, 1);
	reader = open("fifo", O_RDONLY | O_NONBLOCK);
	writer = open("fifo", O_WRONLY);
	NEED(reader >= 0 && writer >= 0);
	NEED_EQ(fstat(reader, &by_fd), 0);
	CHECK_EQ(by_fd.st_ino, by_name.st_ino);
	CHECK_EQ(by_fd.st_dev, by_name.st_dev);
	CHECK(carries(writer, reader));

	NEED(getcwd(target, sizeof(target) - 32) != NULL);
	strcat(target, "/fifo");
	CHECK(!strcmp(link_in(0, reader), target));
	CHECK_EQ(link("fifo", "second"), 0);
	CHECK_EQ(unlink("fifo"), 0);
	NEED_EQ(fstat(reader, &by_fd), 0);
	CHECK_EQ(by_fd.st_nlink, 1);
	CHECK_EQ(unlink("second"), 0);
	CHECK(strstr(link_in(0, reader), "(deleted)") != NULL);
	CHECK(carries(writer, reader));
	drop_caches();
	CHECK(carries(writer, reader));
	close(writer);
	close(reader);
	CHECK_EQ(open("fifo", O_RDONLY | O_NONBLOCK), -1);
}

/* Opened again through /proc: an anonymous pipe gets a second reader. */
TEST(a_pipe_opened_again_is_the_same_pipe)
{
	char path[64], byte;
	int fds[2], again;

	make_pipe(fds);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fds[0]);
	again = open(path, O_RDONLY | O_NONBLOCK);
	NEED(again >= 0);
	close(fds[0]);
	CHECK(carries(fds[1], again));
	CHECK_EQ(read(again, &byte, 1), -1);
	CHECK_EQ(errno, EAGAIN);
	close(fds[1]);
	CHECK_EQ(read(again, &byte, 1), 0);
}
