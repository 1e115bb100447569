// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tables of counters per CPU in /proc/net, see counters.h. They are in the first
 * network namespace and count for all. remove_proc_entry() waits for a read or
 * write that is under way, and closes files that are open.
 */

#include <linux/cpumask.h>
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/seq_file.h>
#include <linux/slab.h>

#include "counters.h"
#include "kernel.h"

/* Of the bases of all tables: reading and resetting is rare. */
static DEFINE_MUTEX(fs_counters_lock);

static int fs_counters_show(struct seq_file *seq, void *v)
{
	struct fs_counters *table = seq->private;
	int cpu, i;

	seq_puts(seq, "CPU");
	for (i = 0; i < table->width; i++)
		seq_printf(seq, " %20s", table->columns[i]);
	seq_putc(seq, '\n');

	mutex_lock(&fs_counters_lock);
	for_each_possible_cpu(cpu) {
		const unsigned long *base = table->base + cpu * table->width;

		seq_printf(seq, "%-3d", cpu);
		for (i = 0; i < table->width; i++)
			seq_printf(seq, " %20lu",
				   table->count(cpu, i) - base[i]);
		seq_putc(seq, '\n');
	}
	mutex_unlock(&fs_counters_lock);
	return 0;
}

static void fs_counters_reset(struct fs_counters *table)
{
	int cpu, i;

	mutex_lock(&fs_counters_lock);
	for_each_possible_cpu(cpu) {
		unsigned long *base = table->base + cpu * table->width;

		for (i = 0; i < table->width; i++)
			base[i] = table->count(cpu, i);
	}
	mutex_unlock(&fs_counters_lock);
}

static int fs_counters_open(struct inode *inode, struct file *file)
{
	return single_open(file, fs_counters_show, kernel_proc_data(inode));
}

static ssize_t fs_counters_write(struct file *file, const char __user *buffer,
				 size_t length, loff_t *position)
{
	struct seq_file *seq = file->private_data;

	fs_counters_reset(seq->private);
	return length;
}

static const struct file_operations fs_counters_fops = {
	.owner		= THIS_MODULE,
	.open		= fs_counters_open,
	.read		= seq_read,
	.write		= fs_counters_write,
	.llseek		= seq_lseek,
	.release	= single_release,
};

/**
 * fs_counters_add - show a table, all counters at zero
 * @table: table, its base is ours until fs_counters_remove()
 */
int fs_counters_add(struct fs_counters *table)
{
	int err;

	table->base = kcalloc(nr_cpu_ids * table->width, sizeof(*table->base),
			      GFP_KERNEL);
	if (!table->base)
		return -ENOMEM;
	fs_counters_reset(table);
	err = kernel_proc_create(table->name, &fs_counters_fops, table);
	if (err)
		kfree(table->base);
	return err;
}

/**
 * fs_counters_remove - take a table away
 * @table: table that fs_counters_add() shows
 */
void fs_counters_remove(struct fs_counters *table)
{
	kernel_proc_remove(table->name);
	kfree(table->base);
}
