/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef FASTSOCKET_RFD_H
#define FASTSOCKET_RFD_H

int fs_rfd_init(void);
void fs_rfd_exit(void);

#endif
