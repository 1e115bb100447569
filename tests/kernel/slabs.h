/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How many objects of the kernel's slabs are in use, exactly: what CPUs keep for
 * themselves, which counts as used, is given back first.
 */
#ifndef SLABS_H
#define SLABS_H

#include "ktap.h"

/* Numbers of a slab's line in /proc/slabinfo; false when there is no such slab. */
static inline bool slab_line(const char *name, long *used, int tunables[3])
{
	static char text[65536];
	size_t length = strlen(name);
	char *line = ktap_read("/proc/slabinfo", text, sizeof(text));

	for (; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (!strncmp(line, name, length) && line[length] == ' ')
			return sscanf(line + length,
				      "%ld %*d %*d %*d %*d : tunables %d %d %d",
				      used, &tunables[0], &tunables[1],
				      &tunables[2]) == 4;
	}
	return false;
}

/* New limits empty the lists that CPUs keep. */
static inline void slab_tune(const char *name, int limit, int batch, int shared)
{
	char text[128];

	snprintf(text, sizeof(text), "%s %d %d %d", name, limit, batch, shared);
	ktap_write("/proc/slabinfo", text);
}

/* Objects of a slab that are in use, -1 when there is no such slab. */
static inline long slab_in_use(const char *name)
{
	int tunables[3];
	long used;

	if (!slab_line(name, &used, tunables))
		return -1;
	slab_tune(name, 1, 1, 0);
	slab_tune(name, tunables[0], tunables[1], tunables[2]);
	return slab_line(name, &used, tunables) ? used : -1;
}

static inline bool slab_fell_to(const char *name, long limit)
{
	ktap_write("/proc/sys/vm/drop_caches", "3");
	return slab_in_use(name) <= limit;
}

/*
 * Whether each slab is back where it was, but for a few objects that have
 * nothing to do with the test; says which is not.
 */
static inline bool slabs_back(const char *const *names, const long *before,
			      int count, long slack, int seconds)
{
	bool fine = true;
	int i;

	for (i = 0; i < count; i++) {
		bool back = WAIT_FOR(slab_fell_to(names[i], before[i] + slack),
				     seconds);

		ktap_note("%s: %ld before, %ld after%s", names[i], before[i],
			  slab_in_use(names[i]), back ? "" : ": leaked");
		fine &= back;
	}
	return fine;
}

static inline void slabs_now(const char *const *names, long *now, int count)
{
	int i;

	ktap_write("/proc/sys/vm/drop_caches", "3");
	for (i = 0; i < count; i++)
		now[i] = slab_in_use(names[i]);
}

#endif
