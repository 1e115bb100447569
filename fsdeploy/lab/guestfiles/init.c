// SPDX-License-Identifier: GPL-2.0-only
/*
 * The first and only program of a quick guest.
 *
 *  1. mounts what programs expect, brings the other CPUs and the loopback
 *     device up, loads the modules that /etc/modules lists;
 *  2. runs every program that /etc/programs lists, one after the other, each
 *     within its time limit, and ends whatever a program leaves behind;
 *  3. reports in KTAP, a program a test, its own KTAP as subtests;
 *  4. writes the agreed last line and resets the machine, which ends QEMU.
 *
 * Everything goes through /dev/kmsg: a record of the kernel log is one line
 * however many tasks write, and stands in order with what the kernel itself
 * has to say. The marker in front tells the two apart.
 *
 * /etc/modules: a name a line; the module is /modules/name. One that cannot be
 * loaded is a line of the report, and tests that need it fail.
 * /etc/programs: "SECONDS NAME" a line; the program is /programs/NAME.
 * /etc/environment: "NAME=VALUE" a line, given to every program.
 *
 * Built without a C library's help for anything newer than 2.6.32.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MARKER		"ktap: "
#define LAST_LINE	"# end of guest"

/* Both kernels take a longer record, with room for the marker and the level. */
#define LINE_LIMIT	800

/* Exit status by which a program says that it could not test anything. */
#define EXIT_SKIP	4

/* Seconds that a killed program has to be gone. */
#define KILL_LIMIT	20

struct program {
	char name[64];
	int seconds;
};

struct lines {
	char text[LINE_LIMIT];
	size_t length;
};

static int kmsg = -1;

__attribute__((format(printf, 2, 3)))
static void say(int depth, const char *format, ...)
{
	char text[LINE_LIMIT + 64];
	va_list arguments;
	int at, added;

	at = snprintf(text, sizeof(text), "<6>" MARKER "%*s", 2 * depth, "");
	va_start(arguments, format);
	added = vsnprintf(text + at, LINE_LIMIT, format, arguments);
	va_end(arguments);
	at += added < LINE_LIMIT ? added : LINE_LIMIT - 1;
	text[at++] = '\n';
	if (write(kmsg, text, at) < 0 && kmsg != STDERR_FILENO)
		dprintf(STDERR_FILENO, "%s", text + 3);
}

/* Seconds on a clock that nobody sets. */
static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static void mount_at(const char *type, const char *where)
{
	mkdir(where, 0755);
	if (mount(type, where, type, 0, NULL) < 0)
		say(0, "# no %s at %s: %s", type, where, strerror(errno));
}

static void write_to(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0)
		return;
	if (write(fd, text, strlen(text)) < 0)
		say(0, "# %s: %s", path, strerror(errno));
	close(fd);
}

static void loopback_up(void)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	struct ifreq request = { .ifr_name = "lo" };

	request.ifr_flags = IFF_UP | IFF_LOOPBACK | IFF_RUNNING;
	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0)
		say(0, "# no loopback device: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
}

static void set_up(void)
{
	struct rlimit files = { 65536, 65536 };
	struct utsname name;

	kmsg = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	if (kmsg < 0)
		kmsg = STDERR_FILENO;
	mount_at("proc", "/proc");
	mount_at("sysfs", "/sys");
	mount_at("devtmpfs", "/dev");
	mount_at("devpts", "/dev/pts");
	mount_at("tmpfs", "/dev/shm");
	mount_at("tmpfs", "/tmp");
	mount_at("debugfs", "/sys/kernel/debug");
	/* A kernel without queues leaves a folder, on which tests skip. */
	mkdir("/dev/mqueue", 0755);
	mount("mqueue", "/dev/mqueue", "mqueue", 0, NULL);
	loopback_up();
	setrlimit(RLIMIT_NOFILE, &files);
	uname(&name);
	say(0, "# kernel %s", name.release);
}

/* The kernel was told to boot with one CPU only, see guest.py. */
static void start_cpus(void)
{
	char path[64];
	int cpu;

	for (cpu = 1;; cpu++) {
		snprintf(path, sizeof(path),
			 "/sys/devices/system/cpu/cpu%d/online", cpu);
		if (access(path, W_OK))
			return;
		write_to(path, "1");
	}
}

static void load_module(const char *name)
{
	char path[128];
	struct stat file;
	void *image;
	int fd;

	snprintf(path, sizeof(path), "/modules/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &file) < 0) {
		say(0, "# %s: %s", path, strerror(errno));
		return;
	}
	image = mmap(NULL, file.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (image == MAP_FAILED ||
	    syscall(SYS_init_module, image, file.st_size, "") < 0)
		say(0, "# cannot load %s: %s", path, strerror(errno));
	else
		say(0, "# loaded %s", path);
	if (image != MAP_FAILED)
		munmap(image, file.st_size);
	close(fd);
}

static void load_modules(void)
{
	FILE *file = fopen("/etc/modules", "r");
	char name[64];

	if (!file)
		return;
	while (fscanf(file, "%63s", name) == 1)
		load_module(name);
	fclose(file);
}

static void read_environment(void)
{
	FILE *file = fopen("/etc/environment", "r");
	char *line = NULL;
	size_t room = 0;

	if (!file)
		return;
	while (getline(&line, &room, file) > 0) {
		line[strcspn(line, "\n")] = '\0';
		putenv(strdup(line));
	}
	free(line);
	fclose(file);
}

static struct program *read_programs(int *count)
{
	FILE *file = fopen("/etc/programs", "r");
	struct program *programs = NULL;
	struct program one;

	*count = 0;
	if (!file)
		return NULL;
	while (fscanf(file, "%d %63s", &one.seconds, one.name) == 2) {
		programs = realloc(programs, (*count + 1) * sizeof(one));
		programs[(*count)++] = one;
	}
	fclose(file);
	return programs;
}

static void become(const struct program *program, int output)
{
	char path[128];
	int null = open("/dev/null", O_RDONLY);

	setsid();
	dup2(null, STDIN_FILENO);
	dup2(output, STDOUT_FILENO);
	dup2(output, STDERR_FILENO);
	close(null);
	close(output);
	snprintf(path, sizeof(path), "/tmp/%s", program->name);
	mkdir(path, 0755);
	if (chdir(path) < 0)
		_exit(126);
	snprintf(path, sizeof(path), "/programs/%s", program->name);
	execl(path, program->name, (char *)NULL);
	dprintf(STDERR_FILENO, "# %s: %s\n", path, strerror(errno));
	_exit(127);
}

/* Write what came, line by line; an unfinished or overlong line when asked. */
static void pass_on(struct lines *lines, const char *data, size_t length,
		    bool all)
{
	size_t i;

	for (i = 0; i < length; i++) {
		if (data[i] != '\n')
			lines->text[lines->length++] = data[i];
		if (data[i] == '\n' || lines->length == LINE_LIMIT - 1) {
			say(1, "%.*s", (int)lines->length, lines->text);
			lines->length = 0;
		}
	}
	if (all && lines->length) {
		say(1, "%.*s", (int)lines->length, lines->text);
		lines->length = 0;
	}
}

/* Reap everybody; true when the child was among them. */
static bool reap(pid_t child, int *status)
{
	bool found = false;
	int one;
	pid_t pid;

	while ((pid = waitpid(-1, &one, WNOHANG)) > 0) {
		if (pid == child) {
			*status = one;
			found = true;
		}
	}
	return found;
}

/* End every process but this one; false when some are still there. */
static bool end_all(void)
{
	double deadline = now() + KILL_LIMIT;

	do {
		kill(-1, SIGKILL);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		if (waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD)
			return true;
		usleep(10000);
	} while (now() < deadline);
	return false;
}

static void run(const struct program *program, int number)
{
	double deadline = now() + program->seconds;
	struct lines lines = { .length = 0 };
	struct pollfd watched = { .events = POLLIN };
	bool ended = false, expired = false;
	char data[4096];
	int ends[2], status = 0;
	ssize_t length;
	pid_t child;

	say(0, "# program %s", program->name);
	child = pipe2(ends, O_CLOEXEC) < 0 ? -1 : fork();
	if (child < 0) {
		say(0, "not ok %d - %s # ERROR %s", number, program->name,
		    strerror(errno));
		return;
	}
	if (!child)
		become(program, ends[1]);
	close(ends[1]);
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	watched.fd = ends[0];
	while (!ended && !expired) {
		/* Its end is no event here, so look now and then. */
		poll(&watched, 1, 20);
		length = read(ends[0], data, sizeof(data));
		if (length > 0)
			pass_on(&lines, data, length, false);
		else if (length == 0)
			usleep(1000);
		ended = reap(child, &status);
		expired = now() >= deadline;
	}
	if (!ended) {
		say(1, "# still running after %d s; all tasks follow",
		    program->seconds);
		write_to("/proc/sysrq-trigger", "w");
		write_to("/proc/sysrq-trigger", "t");
	}
	if (!end_all()) {
		say(1, "# a process cannot be killed");
		write_to("/proc/sysrq-trigger", "w");
		ended = false;
	}
	while ((length = read(ends[0], data, sizeof(data))) > 0)
		pass_on(&lines, data, length, false);
	pass_on(&lines, NULL, 0, true);
	close(ends[0]);

	if (!ended)
		say(0, "not ok %d - %s # TIMEOUT %d s", number, program->name,
		    program->seconds);
	else if (WIFSIGNALED(status))
		say(0, "not ok %d - %s # ERROR signal %d", number,
		    program->name, WTERMSIG(status));
	else if (WEXITSTATUS(status) == EXIT_SKIP)
		say(0, "ok %d - %s # SKIP", number, program->name);
	else if (WEXITSTATUS(status) > 1)
		say(0, "not ok %d - %s # ERROR exit status %d", number,
		    program->name, WEXITSTATUS(status));
	else
		say(0, "%sok %d - %s", WEXITSTATUS(status) ? "not " : "",
		    number, program->name);
}

int main(void)
{
	struct program *programs;
	int count, i;

	set_up();
	start_cpus();
	load_modules();
	read_environment();
	programs = read_programs(&count);
	say(0, "KTAP version 1");
	say(0, "1..%d", count);
	for (i = 0; i < count; i++)
		run(&programs[i], i + 1);
	say(0, LAST_LINE);
	sync();
	reboot(RB_AUTOBOOT);
	/* The end of the first process is a panic, and that ends QEMU too. */
	return 1;
}
