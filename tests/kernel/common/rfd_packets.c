// SPDX-License-Identifier: GPL-2.0-only
/*
 * Packets made by hand and put into a tap device, which gives them to
 * netif_receive_skb(), in 2.6.32 to netif_rx(): which are steered, to whom,
 * and what becomes of odd, short and foreign ones. No connection is needed for
 * that, so most of them end in a reset; what counts is where they were
 * received.
 *
 * guest: cpus=4 modules=fastsocket variants=patched,patched-debug
 */
#include "rfd.h"

#include <linux/if_ether.h>
#include <linux/if_tun.h>
#include <sys/uio.h>

static int tap;
static uint8_t our_mac[6];
static const uint8_t their_mac[6] = { 2, 0, 0, 0, 0, 9 };

struct in6_request {
	struct in6_addr address;
	uint32_t prefix;
	int index;
};

/* tap0 has 10.2.0.1 and fd00:2::1, and can be found in /sys if asked for */
static void begin_tap_in(bool sys)
{
	struct ifreq request = { .ifr_flags = IFF_TAP | IFF_NO_PI };
	struct in6_request six = { .prefix = 64 };
	struct sockaddr_in *four = (void *)&request.ifr_addr;
	int fd;

	begin(false);
	/* 2.6.32 crashes over a tap device that is made in another namespace */
	if (sys || ktap_target_is("el6"))
		show_sys();
	NEED(ktap_write("/proc/sys/net/ipv4/ip_forward", "0"));
	NEED(ktap_write("/proc/sys/net/ipv6/conf/all/forwarding", "0"));
	NEED(ktap_write("/proc/sys/net/ipv6/conf/default/accept_dad", "0"));
	tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
	NEED(tap >= 0);
	strcpy(request.ifr_name, "tap0");
	NEED(ioctl(tap, TUNSETIFF, &request) == 0);

	fd = socket(AF_INET, SOCK_DGRAM, 0);
	NEED(ioctl(fd, SIOCGIFHWADDR, &request) == 0);
	memcpy(our_mac, request.ifr_hwaddr.sa_data, 6);
	memset(&request.ifr_addr, 0, sizeof(request.ifr_addr));
	four->sin_family = AF_INET;
	four->sin_addr.s_addr = htonl(0x0a020001);
	NEED(ioctl(fd, SIOCSIFADDR, &request) == 0);
	close(fd);
	/*
	 * No neighbours: who does not answer is complained of some seconds
	 * later, in a packet of our own that would be counted.
	 */
	up_with("tap0", IFF_NOARP);
	fd = socket(AF_INET6, SOCK_DGRAM, 0);
	NEED(inet_pton(AF_INET6, "fd00:2::1", &six.address) == 1);
	six.index = if_nametoindex("tap0");
	NEED(ioctl(fd, SIOCSIFADDR, &six) == 0);
	close(fd);
	usleep(100 * 1000);
	steer(true);
}

static void begin_tap(void)
{
	begin_tap_in(false);
}

/* --- making packets --- */

struct frame {
	uint8_t byte[256];
	size_t length;
};

static void add(struct frame *frame, const void *data, size_t length)
{
	memcpy(frame->byte + frame->length, data, length);
	frame->length += length;
}

static void add8(struct frame *frame, unsigned int value)
{
	frame->byte[frame->length++] = value;
}

static void add16(struct frame *frame, unsigned int value)
{
	add8(frame, value >> 8);
	add8(frame, value & 255);
}

static void add32(struct frame *frame, uint32_t value)
{
	add16(frame, value >> 16);
	add16(frame, value & 65535);
}

static void add_ethernet(struct frame *frame, const uint8_t *to, int tags,
			 int type)
{
	frame->length = 0;
	add(frame, to, 6);
	add(frame, their_mac, 6);
	while (tags--) {
		add16(frame, ETH_P_8021Q);
		add16(frame, 7);
	}
	add16(frame, type);
}

static void add_tcp(struct frame *frame, int from, int to)
{
	add16(frame, from);
	add16(frame, to);
	add32(frame, 1);		/* sequence */
	add32(frame, 1);		/* acknowledged */
	add16(frame, 0x5010);		/* 20 bytes, ACK */
	add16(frame, 1000);		/* window */
	add32(frame, 0);		/* checksum: wrong, nobody minds here */
}

struct packet {
	const uint8_t *mac;	/* ours unless given */
	int tags;
	bool ipv6;
	int from, to;
	int protocol;		/* TCP unless given */
	uint32_t daddr;		/* IPv4: ours unless given */
	int options;		/* IPv4: words of options */
	int fragment;		/* IPv4: flags and offset */
	const char *extensions;	/* IPv6: h, d: options; f, F, a: fragments */
	int foreign;		/* IPv6: not to us */
	int cut;		/* bytes missing at the end */
};

static void build4(struct frame *frame, const struct packet *packet)
{
	size_t start;
	uint32_t sum = 0;
	int i;

	add_ethernet(frame, packet->mac ? packet->mac : our_mac, packet->tags,
		     ETH_P_IP);
	start = frame->length;
	add8(frame, 0x45 + packet->options);
	add8(frame, 0);
	add16(frame, 40 + 4 * packet->options);
	add16(frame, 1);
	add16(frame, packet->fragment);
	add8(frame, 64);
	add8(frame, packet->protocol ? packet->protocol : IPPROTO_TCP);
	add16(frame, 0);
	add32(frame, 0x0a020009);
	add32(frame, packet->daddr ? packet->daddr : 0x0a020001);
	for (i = 0; i < packet->options; i++)
		add32(frame, 0x01010101);
	for (i = start; i < (int)frame->length; i += 2)
		sum += frame->byte[i] << 8 | frame->byte[i + 1];
	sum = (sum & 65535) + (sum >> 16);
	sum = ~((sum & 65535) + (sum >> 16));
	frame->byte[start + 10] = sum >> 8;
	frame->byte[start + 11] = sum;
	add_tcp(frame, packet->from, packet->to);
}

/* The number of the header that an extension character stands for. */
static int header_of(char extension)
{
	switch (extension) {
	case 'h':
		return IPPROTO_HOPOPTS;
	case 'd':
		return IPPROTO_DSTOPTS;
	case '\0':
		return IPPROTO_TCP;
	default:
		return IPPROTO_FRAGMENT;
	}
}

static void build6(struct frame *frame, const struct packet *packet)
{
	const char *extension = packet->extensions ? packet->extensions : "";
	struct in6_addr address;

	add_ethernet(frame, packet->mac ? packet->mac : our_mac, packet->tags,
		     ETH_P_IPV6);
	add32(frame, 0x60000000);
	add16(frame, 20 + 8 * strlen(extension));
	add8(frame, header_of(*extension));
	add8(frame, 64);
	NEED(inet_pton(AF_INET6, "fd00:2::9", &address) == 1);
	add(frame, &address, 16);
	NEED(inet_pton(AF_INET6, packet->foreign ? "fd00:3::1" : "fd00:2::1",
		       &address) == 1);
	add(frame, &address, 16);
	for (; *extension; extension++) {
		add8(frame, header_of(extension[1]));
		add8(frame, 0);
		switch (*extension) {
		case 'f':	/* the first fragment */
			add16(frame, 1);
			add32(frame, 5);
			break;
		case 'F':	/* a later one */
			add16(frame, 8);
			add32(frame, 5);
			break;
		case 'a':	/* the only one */
			add16(frame, 0);
			add32(frame, 5);
			break;
		default:	/* padding */
			add16(frame, 0x0104);
			add32(frame, 0);
		}
	}
	add_tcp(frame, packet->from, packet->to);
}

/* --- what became of them --- */

enum fate { PASS, REMOTE, LOCAL, ERROR };

/*
 * Receive a packet on the CPU we are on and see that its counters, and none
 * else, tell the expected.
 */
static void receive(const char *what, const struct packet *packet,
		    enum fate fate)
{
	struct stat_row row, sum, *rows = calloc(MAX_CPUS, sizeof(*rows));
	int target = packet->to & port_mask();
	unsigned int before = processed(target);
	struct frame frame;
	bool fine;

	if (packet->ipv6)
		build6(&frame, packet);
	else
		build4(&frame, packet);
	frame.length -= packet->cut;
	stat_reset();
	NEED(write(tap, frame.byte, frame.length) == (ssize_t)frame.length);
	sum = stat_rows(rows);
	row = rows[sched_getcpu()];
	free(rows);
	fine = row.pass == (fate == PASS) && row.total == (fate != PASS) &&
	       row.remote == (fate == REMOTE) &&
	       row.local == (fate == LOCAL) && row.error == (fate == ERROR) &&
	       sum.pass + sum.total == 1;
	if (!fine)
		NOTE("%s: pass %llu, steer %llu: remote %llu local %llu error %llu",
		     what, row.pass, row.total, row.remote, row.local,
		     row.error);
	CHECK(fine);
	if (fate == REMOTE)
		CHECK(WAIT_FOR(processed(target) == before + 1, 20));
	else if (target != sched_getcpu())
		CHECK_EQ(processed(target), before);
}

/* 40001 names CPU 1, 40002 CPU 2: all of these are received on CPU 0 first. */
#define RECEIVE(fate, ...) \
	receive(#__VA_ARGS__, &(struct packet){ __VA_ARGS__ }, fate)

TEST(ports_tell_what_is_steered)
{
	begin_tap();
	listener("::", 8080);
	listener("10.2.0.1", 40001);
	/* from a well-known port: an answer */
	RECEIVE(REMOTE, .from = 80, .to = 40002);
	RECEIVE(REMOTE, .from = 80, .to = 40001);
	/* a listener, or none */
	RECEIVE(PASS, .from = 2000, .to = 40001);
	RECEIVE(REMOTE, .from = 2000, .to = 40002);
	RECEIVE(REMOTE, .from = 2000, .to = 40003);
	RECEIVE(LOCAL, .from = 2000, .to = 40000);
	/* to a port that connect() would not pick */
	RECEIVE(PASS, .from = 2000, .to = 80);
	RECEIVE(PASS, .from = 900, .to = 80);
	RECEIVE(PASS, .from = 2000, .to = 8080);
	RECEIVE(PASS, .from = 2000, .to = 8081);
	RECEIVE(PASS, .from = 900, .to = 2049);
	/* the ends of the range */
	set_range(40001, 40002);
	RECEIVE(PASS, .from = 80, .to = 40000);
	RECEIVE(REMOTE, .from = 80, .to = 40001);
	RECEIVE(REMOTE, .from = 80, .to = 40002);
	RECEIVE(PASS, .from = 80, .to = 40003);
	/* a range that reaches below the well-known ports' end */
	if (!ktap_target_is("el6"))
		NEED(ktap_write("/proc/sys/net/ipv4/ip_unprivileged_port_start",
				"0"));
	set_range(900, 40002);
	RECEIVE(PASS, .from = 2000, .to = 901);
	RECEIVE(REMOTE, .from = 80, .to = 901);
}

TEST(ipv4_packets)
{
	begin_tap();
	RECEIVE(REMOTE, .from = 80, .to = 40001, .options = 1);
	RECEIVE(REMOTE, .from = 80, .to = 40001, .options = 10);
	RECEIVE(REMOTE, .from = 80, .to = 40001, .fragment = 0x4000);
	RECEIVE(PASS, .from = 80, .to = 40001, .fragment = 0x2000);
	RECEIVE(PASS, .from = 80, .to = 40001, .fragment = 0x0003);
	RECEIVE(PASS, .from = 80, .to = 40001, .protocol = IPPROTO_UDP);
	RECEIVE(PASS, .from = 80, .to = 40001, .protocol = IPPROTO_GRE);
	/* the ports are there, the rest is not: not our business */
	RECEIVE(REMOTE, .from = 80, .to = 40001, .cut = 16);
	RECEIVE(PASS, .from = 80, .to = 40001, .cut = 17);
	RECEIVE(PASS, .from = 80, .to = 40001, .cut = 20);
	RECEIVE(PASS, .from = 80, .to = 40001, .cut = 25);
	RECEIVE(PASS, .from = 80, .to = 40001, .cut = 39);
	RECEIVE(PASS, .from = 80, .to = 40001, .options = 5, .cut = 25);
}

TEST(ipv6_packets)
{
	begin_tap();
	listener("::", 40002);
	RECEIVE(REMOTE, .ipv6 = true, .from = 80, .to = 40001);
	RECEIVE(REMOTE, .ipv6 = true, .from = 2000, .to = 40001);
	RECEIVE(LOCAL, .ipv6 = true, .from = 2000, .to = 40000);
	RECEIVE(PASS, .ipv6 = true, .from = 2000, .to = 40002);
	RECEIVE(PASS, .ipv6 = true, .from = 2000, .to = 8080);
	RECEIVE(REMOTE, .ipv6 = true, .from = 80, .to = 40001,
		.extensions = "h");
	RECEIVE(REMOTE, .ipv6 = true, .from = 80, .to = 40001,
		.extensions = "hd");
	RECEIVE(REMOTE, .ipv6 = true, .from = 80, .to = 40001,
		.extensions = "a");
	RECEIVE(PASS, .ipv6 = true, .from = 80, .to = 40001,
		.extensions = "f");
	RECEIVE(PASS, .ipv6 = true, .from = 80, .to = 40001,
		.extensions = "F");
	RECEIVE(PASS, .ipv6 = true, .from = 80, .to = 40001, .cut = 17);
	RECEIVE(PASS, .ipv6 = true, .from = 80, .to = 40001, .cut = 20);
	RECEIVE(PASS, .ipv6 = true, .from = 80, .to = 40001, .cut = 30);
	RECEIVE(PASS, .ipv6 = true, .from = 80, .to = 40001,
		.extensions = "hd", .cut = 30);
}

TEST(tagged_packets)
{
	begin_tap();
	RECEIVE(REMOTE, .tags = 1, .from = 80, .to = 40001);
	RECEIVE(REMOTE, .tags = 2, .from = 80, .to = 40001);
	RECEIVE(REMOTE, .tags = 1, .ipv6 = true, .from = 80, .to = 40001);
	RECEIVE(PASS, .tags = 3, .from = 80, .to = 40001);
	RECEIVE(PASS, .tags = 1, .from = 80, .to = 40001, .cut = 42);
}

TEST(packets_for_others)
{
	static const uint8_t broadcast[6] = { 255, 255, 255, 255, 255, 255 };
	static const uint8_t multicast[6] = { 1, 0, 0x5e, 0, 0, 1 };
	static const uint8_t another[6] = { 2, 0, 0, 0, 0, 77 };

	begin_tap();
	RECEIVE(PASS, .mac = broadcast, .from = 80, .to = 40001);
	RECEIVE(PASS, .mac = multicast, .from = 80, .to = 40001);
	RECEIVE(PASS, .mac = another, .from = 80, .to = 40001);
	/* a router hands on what is not for its own addresses */
	NEED(ktap_write("/proc/sys/net/ipv4/ip_forward", "1"));
	NEED(ktap_write("/proc/sys/net/ipv6/conf/all/forwarding", "1"));
	RECEIVE(PASS, .from = 80, .to = 40001, .daddr = 0x0a020002);
	RECEIVE(PASS, .from = 80, .to = 40001, .daddr = 0x08080808);
	RECEIVE(REMOTE, .from = 80, .to = 40001);
	RECEIVE(PASS, .ipv6 = true, .from = 80, .to = 40001, .foreign = 1);
	RECEIVE(REMOTE, .ipv6 = true, .from = 80, .to = 40001);
}

/* RPS sends all to CPU 3, but for what is steered, to this CPU too. */
TEST(rps_has_what_is_not_steered)
{
	unsigned int before;

	begin_tap_in(true);
	set_rps("tap0", 3);
	before = processed(3);
	RECEIVE(LOCAL, .from = 80, .to = 40000);
	RECEIVE(REMOTE, .from = 80, .to = 40001);
	CHECK_EQ(processed(3), before);
	RECEIVE(PASS, .from = 2000, .to = 8080);
	CHECK(WAIT_FOR(processed(3) == before + 1, 20));
}

TEST(nothing_is_counted_without_the_switch)
{
	struct packet packet = { .from = 80, .to = 40001 };
	unsigned int calls = taken_over(1);
	struct stat_row sum;
	struct frame frame;

	begin_tap();
	steer(false);
	stat_reset();
	build4(&frame, &packet);
	NEED(write(tap, frame.byte, frame.length) == (ssize_t)frame.length);
	sum = stat_sum();
	CHECK_EQ(sum.pass + sum.total, 0);
	CHECK_EQ(taken_over(1), calls);
}

/* The other CPU's backlog is full: the packet is dropped, not steered. */
TEST(packet_that_is_dropped_is_an_error)
{
	/* only the first namespace has this setting */
	int backlog = open("/proc/sys/net/core/netdev_max_backlog", O_RDWR);
	/* 2.6.32 counts it where the packet comes from */
	int counter = ktap_target_is("el6") ? 0 : 1;
	struct packet packet = { .from = 80, .to = 40001 };
	unsigned int before, lost = 0;
	struct stat_row sum;
	struct frame frame;
	int i;

	begin_tap();
	build4(&frame, &packet);
	before = dropped(counter);
	stat_reset();
	NEED(pwrite(backlog, "0", 1, 0) == 1);
	for (i = 0; i < 20000 && !lost; i++) {
		NEED(write(tap, frame.byte, frame.length) ==
		     (ssize_t)frame.length);
		lost = dropped(counter) - before;
	}
	NEED(pwrite(backlog, "1000", 4, 0) == 4);
	if (!lost)
		SKIP("the other CPU was always faster");
	sum = stat_sum();
	NOTE("%u dropped of %d", lost, i);
	CHECK_EQ(sum.error, lost);
	CHECK_EQ(sum.remote, i - lost);
	CHECK_EQ(sum.total, i);
	CHECK_EQ(sum.local, 0);
}
