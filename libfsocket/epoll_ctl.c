// SPDX-License-Identifier: GPL-2.0-only
/*
 * epoll_ctl(): a thread that adds a listener to its set is going to accept from it. The spawn comes
 * first, so that the set sees the clone's queue from the beginning.
 */
#include "fsocket.h"

int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
	if (op == EPOLL_CTL_ADD && fsocket_active())
		fsocket_will_accept(fd);
	return libc()->epoll_ctl(epfd, op, fd, event);
}
