// SPDX-License-Identifier: GPL-2.0-only
/*
 * Timers of sockets stay on the CPU that starts them while the module is
 * loaded: the timers' lock of another CPU is not wanted for a connection.
 *
 * CPU 0 sends and is busy, CPU 1 is idle and receives all packets of lo. It
 * does so on top of its idle task, and there starts the timer of the answer's
 * acknowledgement. Where that runs shows by who sends it: a packet from CPU 0
 * has to call CPU 1, one from CPU 1 itself does not.
 *
 * guest: modules=fastsocket variants=patched,patched-debug
 */
#include "rfd.h"

#include <linux/sockios.h>

#define SERVER	8080
#define ROUNDS	40

/* How often CPU 1 is called over ROUNDS messages and their acknowledgements. */
static int calls(void)
{
	int listening, sender, receiver, left, zero = 0, one = 1, i, before;
	double end;

	up("lo");
	pin(0);
	listening = listener("127.0.0.1", SERVER);
	sender = connected("127.0.0.1", SERVER);
	receiver = accept(listening, NULL, NULL);
	NEED(receiver >= 0);
	NEED(!setsockopt(sender, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)));
	set_rps("lo", 1);
	before = taken_over(1);
	for (i = 0; i < ROUNDS; i++) {
		/* Not at once: when the timer has run out. */
		NEED(!setsockopt(receiver, IPPROTO_TCP, TCP_QUICKACK, &zero,
				 sizeof(zero)));
		NEED(write(sender, "x", 1) == 1);
		/* No pause: this CPU is the busy one. */
		end = ktap_now() + ktap_scaled(10);
		do {
			NEED(ioctl(sender, SIOCOUTQ, &left) == 0);
		} while (left && ktap_now() < end);
		NEED_EQ(left, 0);
	}
	i = taken_over(1) - before;
	set_rps("lo", -1);
	NOTE("CPU 1 was called %d times for %d messages", i, ROUNDS);
	return i;
}

TEST(timers_stay_with_the_module)
{
	module_need();
	CHECK(calls() < ROUNDS + ROUNDS / 2);
}

TEST(timers_go_to_a_busy_cpu_without_it)
{
	if (module_loaded())
		NEED(module_unload());
	CHECK(calls() > ROUNDS + ROUNDS / 2);
}
