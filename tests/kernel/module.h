/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kernel module fastsocket, where the target has one, of guests that ask
 * for it (guest: modules=fastsocket). It is loaded when a program begins; one
 * that unloads it or changes its switches leaves it as it was loaded first.
 */
#ifndef MODULE_H
#define MODULE_H

#include "ktap.h"

#include <sys/syscall.h>

#define MODULE_FILE	"/modules/fastsocket.ko"
#define MODULE_FOLDER	"/sys/module/fastsocket"

static inline bool module_loaded(void)
{
	return access(MODULE_FOLDER, F_OK) == 0;
}

/* Load the module with parameters such as "enable_fast_epoll=0". */
static inline bool module_load(const char *parameters)
{
	int fd = open(MODULE_FILE, O_RDONLY);
	struct stat file;
	void *image;
	bool fine;

	if (fd < 0 || fstat(fd, &file))
		return false;
	image = mmap(NULL, file.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (image == MAP_FAILED)
		return false;
	fine = !syscall(SYS_init_module, image, file.st_size, parameters);
	munmap(image, file.st_size);
	return fine;
}

static inline bool module_unload(void)
{
	return !syscall(SYS_delete_module, "fastsocket", O_NONBLOCK);
}

/* A patched el6 kernel with the module, loaded again after a test without. */
static inline void module_need(void)
{
	if (ktap_target_is("el6") && ktap_patched() && !module_loaded())
		NEED(module_load(""));
}

/* Of the program itself: its tests end by _exit() and do not come here. */
__attribute__((destructor)) static inline void module_leave(void)
{
	if (access(MODULE_FILE, F_OK))
		return;
	if (module_loaded() && !module_unload())
		ktap_note("the module is in use after the last test");
	else if (!module_load(""))
		ktap_note("the module cannot be loaded after the last test");
}

#endif
