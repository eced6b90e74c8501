/* The first process of the tiny guest: mounts what the kernel offers, loads the modules that lead to the virtio-serial ports,
 * gives the machine its name, starts the resident on its port, and becomes the shell script that does everything else.
 *
 * /lib/tinamou/first holds the paths of the modules, a line each, in the order of loading.
 */
#include "linux.h"

static const char resident[] = "/lib/tinamou/resident", script[] = "/lib/tinamou/init";
static const char *const environment[] = { "PATH=/usr/sbin:/usr/bin", "HOME=/root", "TERM=vt220", 0 };
static const char port_name[] = "org.tinamou.resident.0", ports[] = "/sys/class/virtio-ports/";

static void mount(const char *type, const char *where) { call(MOUNT, (long)type, (long)where, (long)type, 0, 0); }

static long read_file(const char *path, char *to, size_t room) {
    long fd = call(OPENAT, AT_FDCWD, (long)path, O_CLOEXEC, 0, 0);
    if (fd < 0) return fd;
    long n = call(READ, fd, (long)to, (long)room, 0, 0);
    call(CLOSE, fd, 0, 0, 0, 0);
    return n;
}
static void load_modules(void) {
    static char list[4096];
    long n = read_file("/lib/tinamou/first", list, sizeof list - 1);
    for (char *at = list, *end = list + (n > 0 ? n : 0), *line = at; at < end; at++) {
        if (*at != '\n') continue;
        *at = 0;
        long fd = call(OPENAT, AT_FDCWD, (long)line, O_CLOEXEC, 0, 0);
        if (fd >= 0) {
            call(FINIT_MODULE, fd, (long)"", 0, 0, 0);
            call(CLOSE, fd, 0, 0, 0, 0);
        }
        line = at + 1;
    }
}

/* The machine's name stands on the kernel's command line. */
static void take_name(void) {
    static char text[4096];
    static const char key[] = "tinamou.hostname=";
    const char *name = "tiny";
    long n = read_file("/proc/cmdline", text, sizeof text - 1);
    for (long i = 0; i + (long)sizeof key <= n; i++)
        if ((!i || text[i - 1] == ' ') && same((uint8_t *)text + i, (const uint8_t *)key, sizeof key - 1))
            name = text + i + sizeof key - 1;
    size_t length = 0;
    while (name[length] > ' ') length++;
    call(SETHOSTNAME, (long)name, (long)length, 0, 0, 0);
}

static char *joined(char *to, const char *a, const char *b, const char *c) {
    char *at = to;
    memcpy(at, a, length_of(a)); at += length_of(a);
    memcpy(at, b, length_of(b)); at += length_of(b);
    memcpy(at, c, length_of(c) + 1);
    return to;
}
/* The number of ports that have a name by now; the device of the resident's one goes to ``device``. */
static int named_ports(char *device) {
    static char entries[2048], path[512], name[64];
    int named = 0;
    long fd = call(OPENAT, AT_FDCWD, (long)ports, O_CLOEXEC, 0, 0);
    if (fd < 0) return 0;
    long n = call(GETDENTS64, fd, (long)entries, sizeof entries, 0, 0);
    call(CLOSE, fd, 0, 0, 0, 0);
    for (long at = 0; at < n; at += *(uint16_t *)(entries + at + 16)) {
        const char *port = entries + at + 19;
        if (*port == '.' || length_of(port) > 64) continue;
        long length = read_file(joined(path, ports, port, "/name"), name, sizeof name);
        if (length <= 0) continue;
        named++;
        if (length >= (long)sizeof port_name && same((uint8_t *)name, (const uint8_t *)port_name, sizeof port_name - 1))
            joined(device, "/dev/", port, "");
    }
    return named;
}
/* Ports get their names from the host one after the other, moments after their driver is there. */
static void start_resident(void) {
    static char device[128];
    struct timespec moment = { 0, 1000000 };
    for (int tries = 0, quiet = 0; tries < 50 && quiet < 5 && !*device; tries++) {
        if (named_ports(device)) quiet++;
        if (!*device) call(NANOSLEEP, (long)&moment, 0, 0, 0, 0);
    }
    const char *argv[] = { resident, device, 0 };
    if (!*device || call(CLONE, SIGCHLD, 0, 0, 0, 0) != 0) return;
    call(SETSID, 0, 0, 0, 0, 0);
    call(EXECVE, (long)resident, (long)argv, (long)environment, 0, 0);
    call(EXIT, 127, 0, 0, 0, 0);
}

__attribute__((used)) void begin(long *stack) {
    (void)stack;
    mount("proc", "/proc");
    mount("sysfs", "/sys");
    mount("devtmpfs", "/dev");
    take_name();
    load_modules();
    start_resident();
    const char *argv[] = { script, 0 };
    call(EXECVE, (long)script, (long)argv, (long)environment, 0, 0);
    call(EXIT, 1, 0, 0, 0, 0);
}
