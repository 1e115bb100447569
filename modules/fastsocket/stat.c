// SPDX-License-Identifier: GPL-2.0-only
/*
 * /proc/net/hash_stat and /proc/net/fsocket_stats of the first network
 * namespace: a line a core. Whatever is written to them sets them to zero.
 */
#include <linux/seq_file.h>

#include "fastsocket.h"
#include "kernel.h"

struct table {
	const char *name;
	const char *title;
	int columns;
	unsigned long *(*cell)(int cpu, int column);
};

/* What the first Fastsocket had, then the tables of established connections. */
static unsigned long *hash_cell(int cpu, int column)
{
	if (column < INET_LISTEN_STATS)
		return &per_cpu(inet_listen_cpus, cpu).stat[column];
	column -= INET_LISTEN_STATS;
	return &per_cpu(inet_est_stats, cpu).count[column];
}

static unsigned long *module_cell(int cpu, int column)
{
	return &per_cpu(fsocket_stats, cpu)[column];
}

static const struct table hash_table = {
	.name = "hash_stat",
	.title = "CPU\tLoc_lst_lookup\tGlo_lst_lookup\tCom_accept\tLoc_accept\tRem_accept\tGlo_accept"
		 "\tEst_insert\tLoc_est_lookup\tGlo_est_lookup\tRem_est_lookup",
	.columns = INET_LISTEN_STATS + INET_EST_STATS,
	.cell = hash_cell,
};

static const struct table module_table = {
	.name = "fsocket_stats",
	.title = "CPU\tCalls\tSpawn_calls\tSpawned\tBound\tSurplus\tFailed",
	.columns = FSOCKET_STATS,
	.cell = module_cell,
};

static int show(struct seq_file *seq, void *unused)
{
	const struct table *table = seq->private;
	int cpu, i;

	seq_printf(seq, "%s\n", table->title);
	for_each_online_cpu(cpu) {
		seq_printf(seq, "%d", cpu);
		for (i = 0; i < table->columns; i++)
			seq_printf(seq, "\t%lu", *table->cell(cpu, i));
		seq_putc(seq, '\n');
	}
	return 0;
}

static ssize_t reset(struct file *file, const char __user *text, size_t length,
		     loff_t *at)
{
	const struct table *table =
		((struct seq_file *)file->private_data)->private;
	int cpu, i;

	for_each_possible_cpu(cpu)
		for (i = 0; i < table->columns; i++)
			*table->cell(cpu, i) = 0;
	return length;
}

static int open_hash(struct inode *inode, struct file *file)
{
	return single_open(file, show, (void *)&hash_table);
}

static int open_module(struct inode *inode, struct file *file)
{
	return single_open(file, show, (void *)&module_table);
}

static const struct file_operations hash_operations = {
	.owner = THIS_MODULE,
	.open = open_hash,
	.read = seq_read,
	.write = reset,
	.llseek = seq_lseek,
	.release = single_release,
};

static const struct file_operations module_operations = {
	.owner = THIS_MODULE,
	.open = open_module,
	.read = seq_read,
	.write = reset,
	.llseek = seq_lseek,
	.release = single_release,
};

int fsocket_stat_register(void)
{
	int err = kernel_proc_create(hash_table.name, &hash_operations);

	if (err)
		return err;
	err = kernel_proc_create(module_table.name, &module_operations);
	if (err)
		kernel_proc_remove(hash_table.name);
	return err;
}

void fsocket_stat_unregister(void)
{
	kernel_proc_remove(module_table.name);
	kernel_proc_remove(hash_table.name);
}
