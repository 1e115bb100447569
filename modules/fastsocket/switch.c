// SPDX-License-Identifier: GPL-2.0-only
/*
 * Parameters that switch something in the core kernel, see switch.h.
 *
 * The kernel reads parameters before it calls our init function, and still
 * takes writes to them while it calls our exit function: the lock keeps a
 * write from switching on what exit has just switched off.
 */

#include <linux/kernel.h>
#include <linux/mutex.h>

#include "switch.h"

static DEFINE_MUTEX(fs_switch_lock);

int fs_switch_set(const char *val, struct kernel_param *kp)
{
	struct fs_switch *sw = kp->arg;
	unsigned long on;

	if (!val || strict_strtoul(val, 0, &on) || on > 1)
		return -EINVAL;

	mutex_lock(&fs_switch_lock);
	sw->on = on;
	if (sw->ready)
		sw->turn(on);
	mutex_unlock(&fs_switch_lock);
	return 0;
}

int fs_switch_get(char *buffer, struct kernel_param *kp)
{
	struct fs_switch *sw = kp->arg;

	return sprintf(buffer, "%d", sw->on);
}

/* From here on the core follows the parameter, or is off for good. */
void fs_switch_ready(struct fs_switch *sw, bool ready)
{
	mutex_lock(&fs_switch_lock);
	sw->ready = ready;
	sw->turn(ready && sw->on);
	mutex_unlock(&fs_switch_lock);
}
