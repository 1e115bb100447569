/* SPDX-License-Identifier: GPL-2.0-only */
/* Allocations that fail on purpose, where the kernel can do that. */
#ifndef FAILSLAB_H
#define FAILSLAB_H

#include "ktap.h"

#define FAILSLAB	"/sys/kernel/debug/failslab/"

static inline void failslab_set(const char *name, long value)
{
	char path[64], text[16];

	snprintf(path, sizeof(path), FAILSLAB "%s", name);
	snprintf(text, sizeof(text), "%ld", value);
	NEED(ktap_write(path, text));
}

/*
 * So many of a hundred allocations fail, as often as it comes to that: of tasks
 * that ask for it by /proc/self/make-it-fail, or of everybody and in softirqs.
 */
static inline void failslab_begin(int percent, bool everybody)
{
	if (access(FAILSLAB "probability", W_OK))
		SKIP("no fault injection in this kernel");
	NEED(ktap_write(FAILSLAB "ignore-gfp-wait", "N"));
	NEED(ktap_write(FAILSLAB "task-filter", everybody ? "N" : "Y"));
	failslab_set("verbose", 0);
	failslab_set("interval", 1);
	failslab_set("space", 0);
	failslab_set("times", everybody ? 0 : -1);
	failslab_set("probability", percent);
}

static inline void failslab_end(void)
{
	NEED(ktap_write(FAILSLAB "probability", "0"));
}

#endif
