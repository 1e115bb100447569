/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef FASTSOCKET_EST_H
#define FASTSOCKET_EST_H

void fs_est_init(void);
void fs_est_exit(void);

#endif
