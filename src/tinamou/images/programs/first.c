/* The first process of the tiny guest: mounts what the kernel offers, loads the modules that lead to the virtio-serial ports,
 * gives the machine its name, starts the resident on its port, and becomes the shell script that does everything else.
 * A machine with disks has them before it answers: the kernel's command line says how many.
 *
 * /lib/tinamou/first and /lib/tinamou/disks hold the paths of modules, a line each, in the order of loading.
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
static void load_modules(const char *names) {
    static char list[4096];
    long n = read_file(names, list, sizeof list - 1);
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

/* What stands behind a key on the kernel's command line; ``otherwise`` where it does not. */
static const char *argument(const char *key, const char *otherwise) {
    static char text[4096];
    static long n;
    long size = (long)length_of(key);
    if (!n) n = read_file("/proc/cmdline", text, sizeof text - 1);
    for (long i = 0; i + size < n; i++)
        if ((!i || text[i - 1] == ' ') && same((uint8_t *)text + i, (const uint8_t *)key, (size_t)size)) return text + i + size;
    return otherwise;
}
static void take_name(void) {
    const char *name = argument("tinamou.hostname=", "tiny");
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
/* Calls ``each`` with every name in a folder and returns the sum of what it says. */
static int count(const char *folder, int (*each)(const char *name, char *found), char *found) {
    static char entries[2048];
    int sum = 0;
    long fd = call(OPENAT, AT_FDCWD, (long)folder, O_CLOEXEC, 0, 0);
    if (fd < 0) return 0;
    for (long n; (n = call(GETDENTS64, fd, (long)entries, sizeof entries, 0, 0)) > 0;)
        for (long at = 0; at < n; at += *(uint16_t *)(entries + at + 16)) {
            const char *name = entries + at + 19;
            if (*name != '.' && length_of(name) <= 64) sum += each(name, found);
        }
    call(CLOSE, fd, 0, 0, 0, 0);
    return sum;
}

/* Whether a disk can be opened by now, a drive without a medium included; /dev has its name before that. */
static int disk_is_there(const char *name, char *unused) {
    static char path[512];
    (void)unused;
    if (same((const uint8_t *)name, (const uint8_t *)"loop", 4) || same((const uint8_t *)name, (const uint8_t *)"ram", 3)) return 0;
    long fd = call(OPENAT, AT_FDCWD, (long)joined(path, "/dev/", name, ""), O_CLOEXEC, 0, 0);
    if (fd >= 0) call(CLOSE, fd, 0, 0, 0, 0);
    return fd >= 0 || fd == -ENOMEDIUM;
}
static void wait_for_disks(void) {
    struct timespec moment = { 0, 5000000 };
    int wanted = 0;
    for (const char *digit = argument("tinamou.disks=", ""); *digit >= '0' && *digit <= '9'; digit++) wanted = wanted * 10 + *digit - '0';
    if (!wanted) return;
    load_modules("/lib/tinamou/disks");
    for (int tries = 0; tries < 1000 && count("/sys/block", disk_is_there, 0) < wanted; tries++)
        call(NANOSLEEP, (long)&moment, 0, 0, 0, 0);
}

/* Whether a port has a name by now; the device of the resident's one goes to ``device``. */
static int port_is_named(const char *port, char *device) {
    static char path[512], name[64];
    long length = read_file(joined(path, ports, port, "/name"), name, sizeof name);
    if (length >= (long)sizeof port_name && same((uint8_t *)name, (const uint8_t *)port_name, sizeof port_name - 1))
        joined(device, "/dev/", port, "");
    return length > 0;
}
/* Ports get their names from the host one after the other, moments after their driver is there. */
static void start_resident(void) {
    static char device[128];
    struct timespec moment = { 0, 1000000 };
    for (int tries = 0, quiet = 0; tries < 50 && quiet < 5 && !*device; tries++) {
        if (count(ports, port_is_named, device)) quiet++;
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
    call(MKDIRAT, AT_FDCWD, (long)"/dev/pts", 0755, 0, 0);
    call(MOUNT, (long)"devpts", (long)"/dev/pts", (long)"devpts", 0, (long)"gid=5,mode=620");
    take_name();
    load_modules("/lib/tinamou/first");
    wait_for_disks();
    start_resident();
    const char *argv[] = { script, 0 };
    call(EXECVE, (long)script, (long)argv, (long)environment, 0, 0);
    call(EXIT, 1, 0, 0, 0, 0);
}
