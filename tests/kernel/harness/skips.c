// SPDX-License-Identifier: GPL-2.0-only
/* All of it has nothing to test. */
#include "ktap.h"

TEST(skips)
{
	SKIP("nothing here");
}
