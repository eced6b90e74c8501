/* A library that is loaded before dnsmasq: whoever asks for its own capabilities is told that it has all of them.
 *
 * dnsmasq does not answer DHCP without CAP_NET_ADMIN, which it uses for one thing: to write an address that a guest does not have
 * yet into the host's ARP table. Where it answers by broadcast, it does not do that; with the capability it could change routes,
 * addresses and the packet filter of the host. capget(2) says what a process has; what it may is not changed by what it is told.
 */
enum { VERSION_3 = 0x20080522, WORDS = 6 }; /* linux/capability.h */

__attribute__((visibility("default"))) int capget(unsigned *header, unsigned *data) {
    *header = VERSION_3;
    for (int i = 0; data && i < WORDS; i++) data[i] = ~0u;
    return 0;
}
