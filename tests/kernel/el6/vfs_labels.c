// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest: append=selinux=1
 *
 * With SELinux on (no policy is loaded, so it allows all) every inode carries
 * a label of its own, also those that are on no list.
 */
#include "files.h"

#include <sys/mount.h>
#include <sys/xattr.h>

static long in_use(const char *name)
{
	static char text[65536];
	char *line;

	ktap_read("/proc/slabinfo", text, sizeof(text));
	line = strstr(text, name);
	return line ? atol(line + strlen(name)) : 0;
}

static bool is_on(void)
{
	char text[4096];

	return strstr(ktap_read("/proc/filesystems", text, sizeof(text)),
		      "selinuxfs") != NULL;
}

TEST(labels_can_be_read)
{
	int fds[2], i, count;
	char label[256];
	ssize_t length;

	if (!is_on())
		SKIP("no SELinux in this kernel");
	for (i = 0; i < KINDS; i++) {
		count = make(&kinds[i], fds);
		length = fgetxattr(fds[0], "security.selinux", label,
				   sizeof(label) - 1);
		label[length < 0 ? 0 : length] = '\0';
		NOTE("%s: %zd %s", kinds[i].name, length, label);
		/* Sockets get their maker's, the others wait for a policy. */
		CHECK(!strcmp(label, kinds[i].type == S_IFSOCK ? "kernel" :
						     "unlabeled"));
		close_all(fds, count);
	}
}

TEST(labels_are_freed)
{
	enum { EACH = 2000 };
	long before, after;
	int fds[2], i, j, count;

	before = in_use("selinux_inode_security");
	if (!is_on() || !before)
		SKIP("no SELinux in this kernel, or no count of labels");
	for (i = 0; i < QUICK_KINDS; i++) {
		for (j = 0; j < EACH; j++) {
			count = make(&kinds[i], fds);
			close_all(fds, count);
		}
	}
	CHECK(WAIT_FOR(({
		drop_caches();
		after = in_use("selinux_inode_security");
		after <= before + 600;
	}), 20));
	NOTE("labels: %ld before, %ld after", before, after);
}
