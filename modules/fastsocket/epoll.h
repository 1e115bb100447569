/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef FASTSOCKET_EPOLL_H
#define FASTSOCKET_EPOLL_H

int fs_epoll_init(void);
void fs_epoll_exit(void);

#endif
