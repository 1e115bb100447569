// SPDX-License-Identifier: GPL-2.0-only
/* Runs after the one that leaves a process: must be alone in the guest. */
#include "ktap.h"

#include <dirent.h>

TEST(is_alone)
{
	struct dirent *entry;
	DIR *all = opendir("/proc");
	char path[300], text[64];
	int others = 0;

	NEED(all != NULL);
	while ((entry = readdir(all))) {
		snprintf(path, sizeof(path), "/proc/%s/cmdline", entry->d_name);
		ktap_read(path, text, sizeof(text));
		/* Tasks of the kernel have no command line. */
		others += !strcmp(text, "leaves");
	}
	closedir(all);
	CHECK_EQ(others, 0);
}
