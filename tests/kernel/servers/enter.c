// SPDX-License-Identifier: GPL-2.0-only
/*
 * The way from a quick guest into the userland on its disk: mounts the disk,
 * puts what the kernel shows and what was brought along in its places there,
 * and becomes the Python module guest.NAME, by the name it was called by.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define DISK	"/dev/vda1"
#define ROOT	"/disk"

/* What was brought along: a folder of files, no folder in it. */
#define BROUGHT	"/guest"

/* Folders of the guest that are also seen from the disk. */
static const char *const shared[] = { "/proc", "/sys", "/dev", "/tmp" };

static int fail(const char *what)
{
	printf("KTAP version 1\nBail out! %s: %s\n", what, strerror(errno));
	return 1;
}

/* The first file system of a machine cannot be mounted once more: copy. */
static bool copy(const char *name)
{
	char from[320], to[320];
	struct stat file;
	bool fine;
	int in, out;

	snprintf(from, sizeof(from), BROUGHT "/%s", name);
	snprintf(to, sizeof(to), ROOT BROUGHT "/%s", name);
	in = open(from, O_RDONLY | O_CLOEXEC);
	if (in < 0 || fstat(in, &file))
		return false;
	out = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, file.st_mode);
	fine = out >= 0;
	while (fine && file.st_size > 0) {
		char data[65536];
		ssize_t length = read(in, data, sizeof(data));

		fine = length > 0 && write(out, data, length) == length;
		file.st_size -= length;
	}
	close(in);
	return fine && !close(out);
}

static bool copy_all(void)
{
	DIR *folder = opendir(BROUGHT);
	struct dirent *one;
	bool fine = folder && !mkdir(ROOT BROUGHT, 0755);

	while (fine && (one = readdir(folder)))
		fine = one->d_name[0] == '.' || copy(one->d_name);
	if (folder)
		closedir(folder);
	return fine;
}

int main(int argc, char **argv)
{
	const char *name = argc ? argv[0] : "";
	char module[128], folder[128];
	unsigned int i;

	/* The first program of the guest to come here does it for all. */
	mkdir(ROOT, 0755);
	if (mount(DISK, ROOT, "ext3", MS_NOATIME, NULL) == 0) {
		for (i = 0; i < sizeof(shared) / sizeof(shared[0]); i++) {
			snprintf(folder, sizeof(folder), ROOT "%s", shared[i]);
			mkdir(folder, 0755);
			if (mount(shared[i], folder, NULL,
				  MS_BIND | MS_REC, NULL))
				return fail(folder);
		}
		if (!copy_all())
			return fail(BROUGHT);
		/* Waits for entropy that a guest does not have. */
		unlink("/dev/random");
		if (mknod("/dev/random", S_IFCHR | 0666, makedev(1, 9)))
			return fail("/dev/random");
	} else if (errno != EBUSY) {
		return fail(DISK);
	}
	snprintf(folder, sizeof(folder), "/tmp/%s", name);
	snprintf(module, sizeof(module), "guest.%s", name);
	if (chroot(ROOT) || chdir(folder))
		return fail(folder);
	setenv("PYTHONPATH", "/", 1);
	execl("/usr/bin/python3", "python3", "-m", module, (char *)NULL);
	return fail("/usr/bin/python3");
}
