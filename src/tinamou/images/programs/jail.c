/* Runs a program that has no more of this host than it is given here.
 *
 * usage: jail [OPTION VALUE]… -- PROGRAM NAME [WORD]…      PROGRAM is started under NAME, which is its first word
 *
 *   -n LETTERS  namespaces of its own: m mount, p process ids, i System V and POSIX IPC, u host name, c control groups,
 *               n network, U users (of the caller's number; for callers without root, before all others)
 *   -p FD       where its number is written, in decimal: with p it is another process than this one, and its parent's child
 *   -r PATH     seen, read only; a symbolic link stays one. One that is not there is passed over
 *   -w PATH     seen, and written to        -d PATH  a device it uses
 *   -R PATH     without m: seen as it is, read only, with all that is mounted there
 *   -t BYTES    the size of /tmp, its own, in memory
 *   -u UID      whom it runs as; the group has the same number; with U, the caller's own
 *   -g GID      a group beside, as often as there are groups; with U, the caller's own
 *   -k MASK     capabilities it keeps; none without
 *   -L WHAT,MOST  a resource limit, by its number (RLIMIT_*)        -s BYTES  how long its files may be, raised from outside
 *   -D FD       it dies with its parent, of which this is a pidfd        -P PID  the same, without p; this is its number
 *   -c own      no thread of anybody else runs on a core while one of its does (PR_SCHED_CORE, prctl(2))
 *   -a PROFILE  the AppArmor profile it starts under        -e CONTEXT  the SELinux context it starts under
 *   -l FS,NET,SCOPES   Landlock: what is refused (masks of landlock(7)); of files, but those of -r, -w, -d, -o
 *   -o FD       an open file it may open again
 *   --filter FD a system-call filter, laid last of all: an array of struct sock_filter, and after it the key, three words of
 *               64 bits, to the one execve(2) it allows: they go into the fourth to sixth argument, which the kernel ignores
 *               and the filter reads. A path in place of the descriptor is opened before there are any walls
 *
 * With m its root is an empty folder in memory, with these paths, /tmp, and of /proc its own entry. Whatever cannot be done is
 * said on stderr and ends it: the program never runs with less around it. No core dumps, no new privileges, in any case.
 * Source: namespaces(7), pivot_root(2), mount_setattr(2), landlock(7), seccomp(2), capabilities(7).
 */
#include "linux.h"

#if defined(__x86_64__)
enum { UNSHARE = 272, SYMLINKAT = 266, MKNODAT = 259, READLINKAT = 267, PIVOT_ROOT = 155, UMOUNT2 = 166, PRLIMIT64 = 302, SECCOMP = 317,
       KEYCTL = 250, GETPPID = 110 };
#else
enum { UNSHARE = 97, SYMLINKAT = 36, MKNODAT = 33, READLINKAT = 78, PIVOT_ROOT = 41, UMOUNT2 = 39, PRLIMIT64 = 261, SECCOMP = 277,
       KEYCTL = 219, GETPPID = 173 };
#endif
enum { OPEN_TREE = 428, MOVE_MOUNT = 429, MOUNT_SETATTR = 442, CREATE_RULESET = 444, ADD_RULE = 445, RESTRICT_SELF = 446 };
enum { CLONE_NEWNS = 0x20000, CLONE_NEWCGROUP = 0x2000000, CLONE_NEWUTS = 0x4000000, CLONE_NEWIPC = 0x8000000,
       CLONE_NEWUSER = 0x10000000, CLONE_NEWPID = 0x20000000, CLONE_NEWNET = 0x40000000, CLONE_PARENT = 0x8000 };
enum { MS_NOSUID = 2, MS_NODEV = 4, MS_NOEXEC = 8, MS_REC = 0x4000, MS_PRIVATE = 0x40000, MNT_DETACH = 2,
       OPEN_TREE_CLONE = 1, AT_RECURSIVE = 0x8000, AT_EMPTY_PATH = 0x1000, MOVE_MOUNT_F_EMPTY_PATH = 4,
       ATTR_RDONLY = 1, ATTR_NOSUID = 2, ATTR_NODEV = 4, ATTR_NOEXEC = 8, O_PATH = 010000000, S_IFREG = 0100000 };
enum { PR_SET_PDEATHSIG = 1, PR_SET_KEEPCAPS = 8, PR_CAPBSET_DROP = 24, PR_CAP_AMBIENT = 47, PR_CAP_AMBIENT_RAISE = 2,
       PR_CAP_AMBIENT_CLEAR_ALL = 4, PR_SCHED_CORE = 62, PR_SCHED_CORE_CREATE = 1, RLIMIT_FSIZE = 1, RLIMIT_CORE = 4, SIGXFSZ = 25,
       SECCOMP_SET_MODE_FILTER = 1, KEYCTL_JOIN_SESSION_KEYRING = 1, EPERM = 1, ENOSYS = 38, EEXIST = 17, EBADFD = 77 };
/* Rights of Landlock: run, write, read a file; read a folder; cut off; commands to a device. */
enum { RUN = 1, PUT = 2, GET = 4, LIST = 8, CUT = 1 << 14, COMMAND = 1 << 15, OF_FILES = RUN | PUT | GET | CUT | COMMAND };
enum { MOST = 64, FILTER_MOST = 4096, KEY = 3, STATUS = 125 };

struct place { const char *path; char kind; int tree; };
static struct place places[MOST];
static uint32_t groups[MOST];
static int again[MOST];
static int place_count, group_count, again_count, limit_count, report, parent, has_uid, landlock;
static long spaces, uid, filter, parent_number;
static uint64_t kept, longest, masks[3], limits[MOST][2];
static const char *room, *profile, *context, *cores, *fixed;
static char text[4096 + 64];
static uint64_t instructions[FILTER_MOST + KEY];

static char *append(char *to, const char *what) {
    size_t n = length_of(what);
    if (to + n >= text + sizeof text) n = (size_t)(text + sizeof text - 1 - to);
    memcpy(to, what, n);
    to[n] = 0;
    return to + n;
}
static char *decimal(char *to, unsigned long n) {
    char digits[24], *d = digits + sizeof digits;
    *--d = 0;
    do *--d = (char)('0' + n % 10); while (n /= 10);
    return append(to, d);
}
static void fail(const char *what, const char *which, long error) {
    char *end = append(append(append(append(append(text, "jail: "), what), " "), which), ": error ");
    end = append(decimal(end, (unsigned long)-error), "\n");
    call(WRITE, 2, (long)text, end - text, 0, 0);
    call(EXIT, STATUS, 0, 0, 0, 0);
}
static long must(long result, const char *what, const char *which) {
    if (result < 0) fail(what, which, result);
    return result;
}
static uint64_t number(const char **s) {
    uint64_t n = 0;
    while (**s >= '0' && **s <= '9') n = n * 10 + (uint64_t)(*(*s)++ - '0');
    if (**s == ',') (*s)++;
    return n;
}
static void write_file(const char *path, const char *what) {
    long file = must(call(OPENAT, AT_FDCWD, (long)path, O_WRONLY | O_CLOEXEC, 0, 0), "open", path);
    must(call(WRITE, file, (long)what, (long)length_of(what), 0, 0), "write", path);
    call(CLOSE, file, 0, 0, 0, 0);
}
static void map_user(const char *path, unsigned long id) {
    static char line[64];
    char *end = decimal(text, id);
    end = append(decimal(append(end, " "), id), " 1");
    memcpy(line, text, (size_t)(end - text) + 1);
    write_file(path, line);
}

/* What the letters stand for. */
static long namespaces_of(const char *letters) {
    static const struct { char letter; long flag; } known[] = { { 'm', CLONE_NEWNS }, { 'p', CLONE_NEWPID }, { 'i', CLONE_NEWIPC },
        { 'u', CLONE_NEWUTS }, { 'c', CLONE_NEWCGROUP }, { 'n', CLONE_NEWNET }, { 'U', CLONE_NEWUSER } };
    long flags = 0;
    for (; *letters; letters++)
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            if (known[i].letter == *letters) flags |= known[i].flag;
    return flags;
}
static void option(char name, const char *value) {
    const char *rest = value;
    if (place_count >= MOST || group_count >= MOST || again_count >= MOST || limit_count >= MOST) fail("too many of option", value, -EINVAL);
    switch (name) {
    case 'n': spaces = namespaces_of(value); break;
    case 'p': report = (int)number(&rest); break;
    case 'r': case 'w': case 'd': places[place_count++] = (struct place){ value, name, -1 }; break;
    case 'R': fixed = value; spaces |= CLONE_NEWNS; break;
    case 't': room = value; break;
    case 'u': uid = (long)number(&rest); has_uid = 1; break;
    case 'g': groups[group_count++] = (uint32_t)number(&rest); break;
    case 'k': kept = number(&rest); break;
    case 'L': limits[limit_count][0] = number(&rest); limits[limit_count++][1] = number(&rest); break;
    case 's': longest = number(&rest); break;
    case 'D': parent = (int)number(&rest); break;
    case 'P': parent_number = (long)number(&rest); break;
    case 'c': cores = value; break;
    case 'a': profile = value; break;
    case 'e': context = value; break;
    case 'l': landlock = 1; for (int i = 0; i < 3; i++) masks[i] = number(&rest); break;
    case 'o': again[again_count++] = (int)number(&rest); break;
    case 'f':
        filter = value[0] == '/' ? must(call(OPENAT, AT_FDCWD, (long)value, O_CLOEXEC, 0, 0), "open", value) : (long)number(&rest);
        break;
    default: fail("there is no such option as for", value, -EINVAL);
    }
}

/* A path below the new root, which is the current folder; the folders above it are made. */
static const char *below(const char *path) {
    static char made[4096];
    size_t n = length_of(path);
    if (n < 2 || n >= sizeof made) fail("too short or too long:", path, -EINVAL);
    for (size_t i = 1; i <= n; i++) {
        made[i - 1] = 0;
        if (path[i] == '/') {
            long done = call(MKDIRAT, AT_FDCWD, (long)made, 0755, 0, 0);
            if (done < 0 && done != -EEXIST) fail("mkdir", path, done);
        }
        made[i - 1] = path[i];
    }
    return made;
}
static int tree_of(const char *path, uint64_t attributes, int recursive) {
    uint64_t set[4] = { attributes, 0, MS_PRIVATE, 0 };
    long tree = call(OPEN_TREE, AT_FDCWD, (long)path, OPEN_TREE_CLONE | O_CLOEXEC | recursive, 0, 0);
    if (tree < 0) return (int)tree;
    must(call(MOUNT_SETATTR, tree, (long)"", AT_EMPTY_PATH | recursive, (long)set, sizeof set), "mount_setattr", path);
    return (int)tree;
}
static void put_tree(int tree, const char *path) {
    long folder = call(OPENAT, tree, (long)".", O_PATH | O_CLOEXEC, 0, 0);
    const char *made = below(path);
    long done = folder >= 0 ? call(MKDIRAT, AT_FDCWD, (long)made, 0755, 0, 0)
                            : call(MKNODAT, AT_FDCWD, (long)made, S_IFREG | 0444, 0, 0);
    if (done < 0 && done != -EEXIST) fail("mkdir", path, done);
    must(call(MOVE_MOUNT, tree, (long)"", AT_FDCWD, (long)made, MOVE_MOUNT_F_EMPTY_PATH), "move_mount", path);
    call(CLOSE, tree, 0, 0, 0, 0);
    if (folder >= 0) call(CLOSE, folder, 0, 0, 0, 0);
}
static void put_link(const char *to, const char *path) {
    must(call(SYMLINKAT, (long)to, AT_FDCWD, (long)below(path), 0, 0), "symlink", path);
}
static long link_of(const char *path) {
    long n = call(READLINKAT, AT_FDCWD, (long)path, (long)text, 4096, 0);
    if (n >= 0) text[n] = 0;
    return n;
}
static void take_places(void) {
    for (int i = 0; i < place_count; i++) {
        struct place *p = &places[i];
        if (p->kind == 'r' && link_of(p->path) >= 0) continue;
        uint64_t attributes = p->kind == 'd' ? ATTR_NOSUID | ATTR_NOEXEC : ATTR_NOSUID | ATTR_NODEV;
        attributes |= p->kind == 'r' ? ATTR_RDONLY : p->kind == 'w' ? ATTR_NOEXEC : 0;
        p->tree = tree_of(p->path, attributes, AT_RECURSIVE);
        if (p->tree < 0 && !(p->kind == 'r' && p->tree == -ENOENT)) fail("open_tree", p->path, p->tree);
    }
}
static void own_memory(const char *where, const char *options, long flags) {
    must(call(MOUNT, (long)"tmpfs", (long)where, (long)"tmpfs", MS_NOSUID | MS_NODEV | flags, (long)options), "mount", where);
}
/* Everything is opened first: the new root covers /proc, the one folder that is always there, until it is the root. */
static void own_root(void) {
    must(call(MOUNT, 0, (long)"/", 0, MS_REC | MS_PRIVATE, 0), "make private", "/");
    take_places();
    int own = (int)must(tree_of("/proc/self", ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC, 0), "open_tree", "/proc/self");
    own_memory("/proc", "mode=755,size=1m", 0);
    must(call(CHDIR, (long)"/proc", 0, 0, 0, 0), "chdir", "/proc");
    must(call(MKDIRAT, AT_FDCWD, (long)"tmp", 0755, 0, 0), "mkdir", "/tmp");
    append(append(text, "mode=1777,size="), room);
    own_memory("tmp", text, MS_NOEXEC); /* what is seen of the host's own /tmp is put in it */
    for (int i = 0; i < place_count; i++) {
        if (places[i].tree >= 0) put_tree(places[i].tree, places[i].path);
        else if (link_of(places[i].path) >= 0) put_link(text, places[i].path);
    }
    put_tree(own, "/proc/self");
    put_link("/proc/self/fd", "/dev/fd");
    put_link("/tmp", "/dev/shm");
    must(call(PIVOT_ROOT, (long)".", (long)".", 0, 0, 0), "pivot_root", "/");
    must(call(UMOUNT2, (long)".", MNT_DETACH, 0, 0, 0), "umount", "/");
    uint64_t set[4] = { ATTR_RDONLY, 0, 0, 0 };
    must(call(MOUNT_SETATTR, AT_FDCWD, (long)"/", 0, (long)set, sizeof set), "mount_setattr", "/");
}
static void read_only(void) {
    must(call(MOUNT, 0, (long)"/", 0, MS_REC | MS_PRIVATE, 0), "make private", "/");
    int tree = (int)must(tree_of(fixed, ATTR_RDONLY, AT_RECURSIVE), "open_tree", fixed);
    must(call(MOVE_MOUNT, tree, (long)"", AT_FDCWD, (long)fixed, MOVE_MOUNT_F_EMPTY_PATH), "move_mount", fixed);
    call(CLOSE, tree, 0, 0, 0, 0);
}

static void allow(long rules, long file, uint64_t rights, const char *path) {
    struct { uint64_t rights; int32_t file; } __attribute__((packed)) rule = { rights & masks[0], (int32_t)file };
    long done = call(ADD_RULE, rules, 1, (long)&rule, 0, 0);
    if (done == -EINVAL) {
        rule.rights &= OF_FILES;
        done = call(ADD_RULE, rules, 1, (long)&rule, 0, 0);
    }
    if (done < 0 && done != -EBADFD) fail("landlock_add_rule", path, done); /* EBADFD: a socket, memory */
}
static void no_more_than_landlock_lets(void) {
    size_t size = masks[2] ? 24 : masks[1] ? 16 : 8;
    long rules = must(call(CREATE_RULESET, (long)masks, (long)size, 0, 0, 0), "landlock_create_ruleset", "");
    for (int i = 0; i < place_count && masks[0]; i++) {
        long file = call(OPENAT, AT_FDCWD, (long)places[i].path, O_PATH | O_CLOEXEC, 0, 0);
        uint64_t rights = places[i].kind == 'r' ? GET | LIST | RUN : places[i].kind == 'd' ? GET | PUT | COMMAND : masks[0] & ~(uint64_t)RUN;
        if (file < 0 && places[i].kind != 'r') fail("open", places[i].path, file);
        if (file >= 0) allow(rules, file, rights, places[i].path);
        call(CLOSE, file, 0, 0, 0, 0);
    }
    for (int i = 0; i < again_count && masks[0]; i++) allow(rules, again[i], GET | PUT | CUT, "of an open file");
    must(call(RESTRICT_SELF, rules, 0, 0, 0, 0), "landlock_restrict_self", "");
    call(CLOSE, rules, 0, 0, 0, 0);
}

static void bound(long what, uint64_t most) {
    uint64_t limit[2] = { most, most };
    must(call(PRLIMIT64, 0, what, (long)limit, 0, 0), "prlimit", "");
}
static void bound_files(void) {
    uint64_t limit[2];
    must(call(PRLIMIT64, 0, RLIMIT_FSIZE, 0, (long)limit, 0), "prlimit", "");
    limit[0] = longest < limit[1] ? longest : limit[1];
    must(call(PRLIMIT64, 0, RLIMIT_FSIZE, (long)limit, 0, 0), "prlimit", "");
}
static void become_somebody_without_rights(void) {
    for (long right = 0; kept >> right & 1 || call(PRCTL, PR_CAPBSET_DROP, right, 0, 0, 0) >= 0; right++) {}
    call(PRCTL, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (kept) must(call(PRCTL, PR_SET_KEEPCAPS, 1, 0, 0, 0), "prctl", "PR_SET_KEEPCAPS");
    if (!(spaces & CLONE_NEWUSER)) {
        long keys = call(KEYCTL, KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0); /* the caller's keys are not to be its own */
        if (keys < 0 && keys != -ENOSYS && keys != -EPERM) fail("keyctl", "", keys);
        must(call(SETGROUPS, group_count, (long)groups, 0, 0, 0), "setgroups", "");
        must(call(SETRESGID, uid, uid, uid, 0, 0), "setresgid", "");
        must(call(SETRESUID, uid, uid, uid, 0, 0), "setresuid", "");
    }
    uint32_t low = (uint32_t)kept, high = (uint32_t)(kept >> 32);
    uint32_t header[2] = { 0x20080522, 0 }, rights[6] = { low, low, low, high, high, high }; /* _LINUX_CAPABILITY_VERSION_3 */
    must(call(CAPSET, (long)header, (long)rights, 0, 0, 0), "capset", "");
    for (long right = 0; right < 64; right++)
        if (kept >> right & 1) must(call(PRCTL, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, right, 0, 0), "prctl", "PR_CAP_AMBIENT_RAISE");
}
static void die_with_parent(void) {
    struct pollfd p = { parent, POLLIN, 0 };
    struct timespec none = { 0, 0 };
    must(call(PRCTL, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "prctl", "PR_SET_PDEATHSIG");
    if (call(PPOLL, (long)&p, 1, (long)&none, 0, 8) != 0) call(EXIT, STATUS, 0, 0, 0, 0); /* gone already */
    call(CLOSE, parent, 0, 0, 0, 0);
}
static void die_with_parent_of_number(void) {
    must(call(PRCTL, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "prctl", "PR_SET_PDEATHSIG");
    if (call(GETPPID, 0, 0, 0, 0, 0) != parent_number) call(EXIT, STATUS, 0, 0, 0, 0); /* gone already */
}
/* The key to the one execve that is allowed. */
static const uint64_t *filter_calls(void) {
    struct { uint16_t count; const uint64_t *first; } program = { 0, instructions };
    long n, size = 0;
    while ((n = call(READ, filter, (long)instructions + size, (long)sizeof instructions - size, 0, 0)) > 0) size += n;
    must(n, "read", "the filter");
    call(CLOSE, filter, 0, 0, 0, 0);
    if (size / 8 <= KEY) fail("there is no filter in", "what was given", -EINVAL);
    program.count = (uint16_t)(size / 8 - KEY);
    must(call(SECCOMP, SECCOMP_SET_MODE_FILTER, 0, (long)&program, 0, 0), "seccomp", "");
    return instructions + program.count;
}

/* Since Linux 5.8 the name is AppArmor's own; before, the directory is that of the one module that had it. */
static void enter_with_next_program(void) {
    long file = call(OPENAT, AT_FDCWD, (long)"/proc/self/attr/apparmor/exec", O_WRONLY | O_CLOEXEC, 0, 0);
    if (file < 0) file = call(OPENAT, AT_FDCWD, (long)"/proc/self/attr/exec", O_WRONLY | O_CLOEXEC, 0, 0);
    char *end = append(append(text, "exec "), profile);
    must(call(WRITE, file, (long)text, end - text, 0, 0), "the AppArmor profile cannot be entered:", profile);
    call(CLOSE, file, 0, 0, 0, 0);
}
static void labelled_with_next_program(void) {
    long file = must(call(OPENAT, AT_FDCWD, (long)"/proc/self/attr/exec", O_WRONLY | O_CLOEXEC, 0, 0), "open", "/proc/self/attr/exec");
    must(call(WRITE, file, (long)text, append(text, context) - text, 0, 0), "the SELinux context cannot be entered:", context);
    call(CLOSE, file, 0, 0, 0, 0);
}
/* This process goes on as another one where it has process numbers of its own: its parent's child, as it is itself. */
static void into_namespaces(void) {
    if (spaces & CLONE_NEWUSER) {
        must(call(UNSHARE, CLONE_NEWUSER, 0, 0, 0, 0), "unshare", "user namespace");
        write_file("/proc/self/setgroups", "deny");
        map_user("/proc/self/uid_map", (unsigned long)uid);
        map_user("/proc/self/gid_map", groups[0]);
    }
    if (spaces & CLONE_NEWPID) {
        long child = must(call(CLONE, CLONE_PARENT | CLONE_NEWPID, 0, 0, 0, 0), "clone", "with process numbers of its own");
        if (child) {
            char *end = decimal(text, (unsigned long)child);
            call(WRITE, report, (long)text, end - text, 0, 0);
            call(EXIT, 0, 0, 0, 0, 0);
        }
        call(SETSID, 0, 0, 0, 0, 0);
    }
    if (report >= 0) call(CLOSE, report, 0, 0, 0, 0);
    if (profile) enter_with_next_program();
    if (context) labelled_with_next_program();
    if (cores) must(call(PRCTL, PR_SCHED_CORE, PR_SCHED_CORE_CREATE, 0, 0, 0), "no cores of its own", "(security.sched_core)");
    static const struct { long flag; const char *name; } kinds[] = { { CLONE_NEWIPC, "ipc" }, { CLONE_NEWUTS, "uts" },
        { CLONE_NEWCGROUP, "cgroup" }, { CLONE_NEWNET, "network" }, { CLONE_NEWNS, "mount" } };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (spaces & kinds[i].flag) must(call(UNSHARE, kinds[i].flag, 0, 0, 0, 0), "unshare", kinds[i].name);
    if (spaces & CLONE_NEWUTS) must(call(SETHOSTNAME, (long)"machine", 7, 0, 0, 0), "sethostname", "");
    if (fixed) read_only();
    else if (spaces & CLONE_NEWNS) own_root();
}

static long become(const char *program, char **argv, char **environment, const uint64_t *key) {
#if defined(__x86_64__)
    long r;
    register uint64_t r10 __asm__("r10") = key[0];
    register uint64_t r8 __asm__("r8") = key[1];
    register uint64_t r9 __asm__("r9") = key[2];
    __asm__ volatile("syscall" : "=a"(r) : "a"((long)EXECVE), "D"(program), "S"(argv), "d"(environment), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return r;
#else
    register long number __asm__(NUMBER) = EXECVE;
    register long a0 __asm__(ARGUMENT(0)) = (long)program;
    register long a1 __asm__(ARGUMENT(1)) = (long)argv;
    register long a2 __asm__(ARGUMENT(2)) = (long)environment;
    register uint64_t a3 __asm__(ARGUMENT(3)) = key[0];
    register uint64_t a4 __asm__(ARGUMENT(4)) = key[1];
    register uint64_t a5 __asm__(ARGUMENT(5)) = key[2];
    __asm__ volatile(TRAP : "+r"(a0) : "r"(number), "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a5) : "memory");
    return a0;
#endif
}

__attribute__((used)) void begin(long *stack) {
    char **word = (char **)(stack + 1), **environment = word + stack[0] + 1;
    report = parent = -1;
    filter = -1;
    room = "0";
    for (word++; *word && !(word[0][0] == '-' && word[0][1] == '-' && !word[0][2]); word += 2) {
        if (word[0][0] != '-' || !word[1]) fail("what is", *word, -EINVAL);
        option(word[0][1] == '-' ? word[0][2] : word[0][1], word[1]);
    }
    into_namespaces();
    must(call(CHDIR, (long)"/", 0, 0, 0, 0), "chdir", "/");
    bound(RLIMIT_CORE, 0);
    for (int i = 0; i < limit_count; i++) bound((long)limits[i][0], limits[i][1]);
    if (longest) bound_files();
    uint64_t ignored[4] = { 1, 0, 0, 0 }; /* SIG_IGN: a file that would be too long is an error to who writes it, and no end */
    call(SIGACTION, SIGXFSZ, (long)ignored, 0, 8, 0);
    must(call(PRCTL, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl", "PR_SET_NO_NEW_PRIVS");
    if (landlock) no_more_than_landlock_lets();
    if (has_uid) become_somebody_without_rights();
    if (parent >= 0) die_with_parent();
    if (parent_number) die_with_parent_of_number();
    if (!*word || !word[1]) call(EXIT, 0, 0, 0, 0, 0); /* a trial */
    const uint64_t *key = filter >= 0 ? filter_calls() : instructions;
    must(become(word[1], word + 2, environment, key), "execve", word[1]);
}
