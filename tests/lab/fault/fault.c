// SPDX-License-Identifier: GPL-2.0-only
/*
 * A driver that ends the kernel which loads it, for a lab host: by a panic (how=panic), by a
 * processor that never leaves the kernel but still takes interrupts (how=soft), or by all of them
 * with interrupts off (how=hard), which nothing in the machine's kernel can notice.
 */
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/smp.h>

static char *how = "panic";
module_param(how, charp, 0444);

static void stand_still(void *unused)
{
	local_irq_disable();
	for (;;)
		cpu_relax();
}

static int __init fault_init(void)
{
	if (!strcmp(how, "hard")) {
		smp_call_function(stand_still, NULL, 0);
		stand_still(NULL);
	} else if (!strcmp(how, "soft")) {
		preempt_disable();
		for (;;)
			cpu_relax();
	}
	panic("fault.ko was loaded");
	return 0;
}
module_init(fault_init);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Ends the kernel that loads it, for tests of what comes back");
