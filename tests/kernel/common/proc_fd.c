// SPDX-License-Identifier: GPL-2.0-only
/*
 * Sockets, pipes and anonymous files as /proc and stat(2) show them: what ls,
 * lsof, ss and fuser read.
 */
#include "files.h"

#include <dirent.h>
#include <sched.h>

TEST(link_names_kind_and_inode)
{
	int fds[2], i, j, count;

	for (i = 0; i < KINDS; i++) {
		count = make(&kinds[i], fds);
		for (j = 0; j < count; j++) {
			if (kinds[i].anonymous)
				CHECK(link_is_anonymous(0, fds[j],
							kinds[i].link));
			else
				CHECK(link_is(0, fds[j], kinds[i].link,
					      inode_of(fds[j])));
		}
		close_all(fds, count);
	}
}

TEST(link_is_the_same_in_another_process)
{
	int fds[2], i, count;
	pid_t child;

	for (i = 0; i < KINDS; i++) {
		if (kinds[i].anonymous)
			continue;
		count = make(&kinds[i], fds);
		child = fork();
		if (!child) {
			pause();
			_exit(0);
		}
		CHECK(link_is(child, fds[0], kinds[i].link, inode_of(fds[0])));
		kill(child, SIGKILL);
		waitpid(child, NULL, 0);
		close_all(fds, count);
	}
}

TEST(stat_tells_the_type)
{
	struct stat seen, by_path;
	char path[64];
	int fds[2], i, count;

	for (i = 0; i < KINDS; i++) {
		count = make(&kinds[i], fds);
		NEED_EQ(fstat(fds[0], &seen), 0);
		/* What anonymous files are differs from kernel to kernel. */
		if (!kinds[i].anonymous)
			CHECK_EQ(seen.st_mode & S_IFMT, kinds[i].type);
		CHECK(seen.st_ino != 0);
		CHECK_EQ(seen.st_uid, getuid());
		CHECK(seen.st_dev != 0);
		/* stat() through /proc reaches the same inode. */
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fds[0]);
		NEED_EQ(stat(path, &by_path), 0);
		CHECK_EQ(by_path.st_ino, seen.st_ino);
		CHECK_EQ(by_path.st_dev, seen.st_dev);
		CHECK_EQ(by_path.st_mode, seen.st_mode);
		close_all(fds, count);
	}
}

TEST(modes_are_those_of_old)
{
	struct stat seen;
	int fds[2];

	make_tcp(fds);
	NEED_EQ(fstat(fds[0], &seen), 0);
	CHECK_EQ(seen.st_mode, S_IFSOCK | 0777);
	CHECK_EQ(seen.st_nlink, 1);
	CHECK_EQ(seen.st_size, 0);
	make_pipe(fds);
	NEED_EQ(fstat(fds[0], &seen), 0);
	CHECK_EQ(seen.st_mode, S_IFIFO | 0600);
	CHECK_EQ(seen.st_nlink, 1);
	CHECK_EQ(seen.st_blksize, 4096);
}

static int by_value(const void *a, const void *b)
{
	unsigned long long x = *(unsigned long long *)a;
	unsigned long long y = *(unsigned long long *)b;

	return x < y ? -1 : x > y;
}

static unsigned long long next_number(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	unsigned long long number = inode_of(fd);

	NEED(number != 0);
	close(fd);
	return number;
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	NEED_EQ(sched_setaffinity(0, sizeof(set), &set), 0);
}

/*
 * A CPU may hand out numbers of its own: see that all are at about the same, or
 * two that count alike would not meet.
 */
static void level_cpus(int cpus)
{
	unsigned long long highest = 0, one;
	int cpu;

	for (cpu = 0; cpu < cpus; cpu++) {
		pin(cpu);
		one = next_number();
		highest = one > highest ? one : highest;
	}
	for (cpu = 0; cpu < cpus; cpu++) {
		pin(cpu);
		while (next_number() < highest)
			;
	}
}

TEST(no_two_open_files_share_a_number)
{
	enum { CHILDREN = 4, EACH = 1000 };
	int cpus = sysconf(_SC_NPROCESSORS_ONLN);
	unsigned long long *numbers;
	int i, j, status, doubles = 0, zeroes = 0;
	bool *stop;

	level_cpus(cpus);
	numbers = mmap(NULL, CHILDREN * EACH * sizeof(*numbers) + 4096,
		       PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		       0);
	NEED(numbers != MAP_FAILED);
	stop = (bool *)&numbers[CHILDREN * EACH];
	for (i = 0; i < CHILDREN; i++) {
		if (fork())
			continue;
		pin(i % cpus);
		for (j = 0; j < EACH; j += 2) {
			int fds[2] = { -1, -1 };

			NEED(make_pipe(fds));
			numbers[i * EACH + j] = inode_of(fds[0]);
			numbers[i * EACH + j + 1] =
				inode_of(socket(AF_INET, SOCK_STREAM, 0));
		}
		__sync_synchronize();
		/* All stay open until all are made. */
		NEED(WAIT_FOR(*(volatile bool *)stop, 25));
		_exit(0);
	}
	NEED(WAIT_FOR(({
		for (i = 0; i < CHILDREN * EACH; i++)
			if (!((volatile unsigned long long *)numbers)[i])
				break;
		i == CHILDREN * EACH;
	}), 25));
	*stop = true;
	for (i = 0; i < CHILDREN; i++)
		CHECK(wait(&status) > 0 && status == 0);
	qsort(numbers, CHILDREN * EACH, sizeof(*numbers), by_value);
	for (i = 0; i < CHILDREN * EACH; i++) {
		zeroes += numbers[i] == 0;
		doubles += i && numbers[i] == numbers[i - 1];
	}
	CHECK_EQ(zeroes, 0);
	CHECK_EQ(doubles, 0);
}

/* lsof's way: every descriptor of every process, then the table of TCP. */
TEST(every_tcp_socket_is_found_from_its_inode)
{
	char line[512], want[64];
	int ends[2], port, listener, seen[3] = { 0 }, i;
	unsigned long long wanted[3], inode;
	struct dirent *entry;
	FILE *table;
	DIR *folder;
	int found = 0;

	listener = listen_any(&port);
	ends[0] = connect_to(port);
	ends[1] = accept(listener, NULL, NULL);
	NEED(ends[1] >= 0);
	wanted[0] = inode_of(listener);
	wanted[1] = inode_of(ends[0]);
	wanted[2] = inode_of(ends[1]);

	table = fopen("/proc/net/tcp", "r");
	NEED(table != NULL);
	NEED(fgets(line, sizeof(line), table) != NULL);
	while (fgets(line, sizeof(line), table)) {
		NEED_EQ(sscanf(line, "%*d: %*s %*s %*s %*s %*s %*s %*d %*d %llu",
			       &inode), 1);
		for (i = 0; i < 3; i++)
			seen[i] += inode == wanted[i];
	}
	fclose(table);
	for (i = 0; i < 3; i++)
		CHECK_EQ(seen[i], 1);

	folder = opendir("/proc/self/fd");
	NEED(folder != NULL);
	while ((entry = readdir(folder))) {
		for (i = 0; i < 3; i++) {
			snprintf(want, sizeof(want), "socket:[%llu]",
				 wanted[i]);
			found += !strcmp(link_in(0, atoi(entry->d_name)), want);
		}
	}
	closedir(folder);
	CHECK_EQ(found, 3);
}

TEST(unix_table_has_the_inode)
{
	unsigned long long inode, wanted;
	char line[512];
	int fds[2], seen = 0;
	FILE *table;

	make_socketpair(fds);
	wanted = inode_of(fds[0]);
	table = fopen("/proc/net/unix", "r");
	NEED(table != NULL && fgets(line, sizeof(line), table) != NULL);
	while (fgets(line, sizeof(line), table)) {
		NEED_EQ(sscanf(line, "%*s %*s %*s %*s %*s %*s %llu", &inode),
			1);
		seen += inode == wanted;
	}
	fclose(table);
	CHECK_EQ(seen, 1);
}

TEST(fdinfo_is_there)
{
	char path[64], text[256];
	int fds[2], i, count;

	for (i = 0; i < KINDS; i++) {
		count = make(&kinds[i], fds);
		snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fds[0]);
		ktap_read(path, text, sizeof(text));
		CHECK(strstr(text, "flags:") != NULL);
		close_all(fds, count);
	}
}

TEST(a_pipe_opens_again_by_its_link_and_a_socket_does_not)
{
	char path[64];
	int fds[2], again;

	make_pipe(fds);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fds[1]);
	again = open(path, O_WRONLY);
	NEED(again >= 0);
	CHECK_EQ(inode_of(again), inode_of(fds[0]));
	CHECK(carries(again, fds[0]));
	/* The second writer keeps the pipe alive. */
	close(fds[1]);
	CHECK(carries(again, fds[0]));
	close(again);
	CHECK_EQ(read(fds[0], path, 1), 0);

	make_tcp(fds);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fds[0]);
	CHECK_EQ(open(path, O_RDWR), -1);
	CHECK_EQ(errno, ENXIO);
}

TEST(closed_descriptors_leave_proc)
{
	int fds[2], i, count;

	for (i = 0; i < KINDS; i++) {
		count = make(&kinds[i], fds);
		close_all(fds, count);
		CHECK(!*link_in(0, fds[0]));
	}
}

/* Nothing of these kinds can be reached by a path, so none can be unlinked. */
TEST(links_say_nothing_of_deletion)
{
	int fds[2], i, count;

	for (i = 0; i < KINDS; i++) {
		count = make(&kinds[i], fds);
		CHECK(*link_in(0, fds[0]));
		CHECK(!strstr(link_in(0, fds[0]), "deleted"));
		close_all(fds, count);
	}
}
