// SPDX-License-Identifier: GPL-2.0-only
/* Stands after the one that takes the kernel with it. */
#include "ktap.h"

TEST(is_fine)
{
	CHECK(true);
}
