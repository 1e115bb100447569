/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef FASTSOCKET_SWITCH_H
#define FASTSOCKET_SWITCH_H

#include <linux/moduleparam.h>
#include <linux/types.h>

/*
 * A switch of the core kernel that is a parameter of ours, 0 or 1. The value
 * is kept from the module's load on and handed to the core as soon as the
 * feature is ready, and the core is switched off when it no longer is.
 */
struct fs_switch {
	void (*turn)(int on);		/* the core's */
	int on;
	bool ready;
};

int fs_switch_set(const char *val, struct kernel_param *kp);
int fs_switch_get(char *buffer, struct kernel_param *kp);
void fs_switch_ready(struct fs_switch *sw, bool ready);

#endif
