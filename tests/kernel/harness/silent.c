// SPDX-License-Identifier: GPL-2.0-only
/* Broken on purpose: ends well without a report. */
int main(void)
{
	return 0;
}
