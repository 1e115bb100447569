// SPDX-License-Identifier: GPL-2.0-only
/*
 * POSIX message queues: files with a name in a file system of their own, which
 * stay on the ordinary path.
 */
#include "files.h"

#include <mqueue.h>

TEST(queues_keep_their_name)
{
	struct mq_attr attributes = { .mq_maxmsg = 4, .mq_msgsize = 16 };
	char text[16], wanted[64];
	mqd_t queue;

	mq_unlink("/test");
	queue = mq_open("/test", O_CREAT | O_RDWR, 0600, &attributes);
	if (queue < 0 && errno == ENOSYS)
		SKIP("no message queues in this kernel");
	NEED(queue >= 0);
	snprintf(wanted, sizeof(wanted), "/test");
	CHECK(!strcmp(link_in(0, queue), wanted));
	CHECK_EQ(mq_send(queue, "hello", 6, 1), 0);
	drop_caches();
	CHECK_EQ(mq_receive(queue, text, sizeof(text), NULL), 6);
	CHECK(!strcmp(text, "hello"));
	CHECK_EQ(mq_unlink("/test"), 0);
	CHECK(strstr(link_in(0, queue), "(deleted)") != NULL);
	CHECK_EQ(mq_send(queue, "hello", 6, 1), 0);
	CHECK_EQ(mq_close(queue), 0);
}
