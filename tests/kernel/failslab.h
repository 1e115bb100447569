/* SPDX-License-Identifier: GPL-2.0-only */
/* Allocations that fail on purpose, in tasks that ask for it. */
#ifndef FAILSLAB_H
#define FAILSLAB_H

#include "ktap.h"

#define FAILSLAB	"/sys/kernel/debug/failslab/"

/* So many per cent of them; SKIPs where the kernel cannot. */
static inline void failslab(int percent)
{
	char text[16];

	if (access(FAILSLAB "probability", W_OK))
		SKIP("no fault injection in this kernel");
	/* first, or writing the others may fail */
	NEED(ktap_write(FAILSLAB "task-filter", "Y"));
	NEED(ktap_write(FAILSLAB "times", "-1"));
	NEED(ktap_write(FAILSLAB "interval", "1"));
	NEED(ktap_write(FAILSLAB "verbose", "0"));
	NEED(ktap_write(FAILSLAB "ignore-gfp-wait", "N"));
	snprintf(text, sizeof(text), "%d", percent);
	NEED(ktap_write(FAILSLAB "probability", text));
}

#endif
