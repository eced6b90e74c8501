/* Keeps what comes out of pipes in files of bounded length: one that is full becomes NAME.1, in the last one's place.
 *
 * usage: logwriter LIMIT {PIPE FILE NAME}…        descriptors of a pipe and of the file NAME, which is open and locked
 *
 * It goes on by itself and ends with the last pipe. What cannot be written is dropped: whoever writes to the pipe never waits
 * for a disk that is full. It has no rights beyond its user's; it can make files and give them other names in the folders
 * of its logs, and open nothing (Landlock, where the kernel has it; landlock(7)), and makes no system call but those it
 * needs for that (seccomp(2), where the kernel has it).
 */
#include "linux.h"

enum { MOST = 8, PIECE = 65536, NEW = O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, O_PATH = 010000000,
       PR_SET_SECCOMP = 22, FILTER = 2, CREATE_RULESET = 444, ADD_RULE = 445, RESTRICT_SELF = 446, EVERY_RIGHT = 0x1fff,
       WRITE_FILE = 1 << 1, REMOVE_FILE = 1 << 5, MAKE_REG = 1 << 8, BENEATH = 1 };
#if defined(__x86_64__)
enum { MACHINE = (int)0xc000003e };
#elif defined(__aarch64__)
enum { MACHINE = (int)0xc00000b7 };
#else
enum { MACHINE = (int)0xc00000f3 };
#endif
struct step { uint16_t code; uint8_t yes, no; int value; };
struct rule { uint64_t allowed; int folder; } __attribute__((packed));
struct log { int pipe, file; const char *name; long length; };

static char piece[PIECE], aside[4096];
static struct log logs[MOST];

static long number(const char *s) {
    long n = 0;
    while (*s >= '0' && *s <= '9') n = n * 10 + (*s++ - '0');
    return n;
}
static void without_rights(void) {
    uint32_t header[2] = { 0x20080522, 0 }, none[6] = { 0 }; /* _LINUX_CAPABILITY_VERSION_3, this process */
    call(PRCTL, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    call(CAPSET, (long)header, (long)none, 0, 0, 0);
    call(CHDIR, (long)"/", 0, 0, 0, 0);
}
/* Files can be made, and named anew, in the folders of the logs; nothing else is opened by a path. */
static void within_folders(int count) {
    uint64_t handled = EVERY_RIGHT;
    long rules = call(CREATE_RULESET, (long)&handled, sizeof handled, 0, 0, 0);
    if (rules < 0) return;
    for (int i = 0; i < count; i++) {
        size_t n = length_of(logs[i].name);
        while (n && logs[i].name[n - 1] != '/') n--;
        memcpy(aside, n ? logs[i].name : ".", n ? n : 1);
        aside[n ? n : 1] = 0;
        struct rule rule = { WRITE_FILE | MAKE_REG | REMOVE_FILE, (int)call(OPENAT, AT_FDCWD, (long)aside, O_PATH, 0, 0) };
        call(ADD_RULE, rules, BENEATH, (long)&rule, 0, 0);
        call(CLOSE, rule.folder, 0, 0, 0, 0);
    }
    call(RESTRICT_SELF, rules, 0, 0, 0, 0);
    call(CLOSE, rules, 0, 0, 0, 0);
}
/* No system call but those below this line; openat makes files that are new. (codes: linux/bpf_common.h) */
static void few_calls(void) {
    enum { LOAD = 0x20, EQUAL = 0x15, RETURN = 6, ALLOW = 0x7fff0000, KILL_PROCESS = (int)0x80000000, NR = 0, ARCH = 4, FLAGS = 32 };
    static const struct step steps[] = {
        { LOAD, 0, 0, ARCH }, { EQUAL, 0, 9, MACHINE }, { LOAD, 0, 0, NR },
        { EQUAL, 8, 0, READ }, { EQUAL, 7, 0, WRITE }, { EQUAL, 6, 0, PPOLL }, { EQUAL, 5, 0, CLOSE }, { EQUAL, 4, 0, FLOCK },
        { EQUAL, 3, 0, RENAMEAT2 }, { EQUAL, 2, 0, EXIT }, { EQUAL, 2, 0, OPENAT }, { RETURN, 0, 0, KILL_PROCESS },
        { RETURN, 0, 0, ALLOW }, { LOAD, 0, 0, FLAGS }, { EQUAL, 0, 1, NEW }, { RETURN, 0, 0, ALLOW }, { RETURN, 0, 0, KILL_PROCESS },
    };
    struct { uint16_t count; const struct step *steps; } filter = { sizeof steps / sizeof *steps, steps };
    call(PRCTL, PR_SET_SECCOMP, FILTER, (long)&filter, 0, 0);
}
static void begin_anew(struct log *l) {
    size_t n = length_of(l->name);
    if (l->file >= 0) {
        memcpy(aside, l->name, n);
        memcpy(aside + n, ".1", 3);
        if (call(RENAMEAT2, AT_FDCWD, (long)l->name, AT_FDCWD, (long)aside, 0) < 0) return; /* again when more comes */
    }
    int file = (int)call(OPENAT, AT_FDCWD, (long)l->name, NEW, 0600, 0);
    if (file >= 0) call(FLOCK, file, LOCK_SH | LOCK_NB, 0, 0, 0);
    if (l->file >= 0) call(CLOSE, l->file, 0, 0, 0, 0);
    l->file = file;
    l->length = 0;
}
/* 0 when the pipe has ended. */
static int carry(struct log *l, long limit) {
    long n = call(READ, l->pipe, (long)piece, PIECE, 0, 0);
    if (n == -EINTR || n == -EAGAIN) return 1;
    if (n <= 0) return 0;
    if (l->file < 0 || l->length >= limit) begin_anew(l);
    for (char *at = piece; n > 0 && l->file >= 0 && l->length < limit;) {
        long done = call(WRITE, l->file, (long)at, n, 0, 0);
        if (done == -EINTR) continue;
        if (done <= 0) break;
        at += done, n -= done, l->length += done;
    }
    return 1;
}

__attribute__((used)) void begin(long *stack) {
    char **argv = (char **)(stack + 1);
    int count = (int)(stack[0] - 2) / 3, left = count;
    if (count < 1 || count > MOST || stack[0] != 2 + 3 * count) call(EXIT, 2, 0, 0, 0, 0);
    for (int i = 0; i < count; i++) {
        char **words = argv + 2 + 3 * i;
        logs[i] = (struct log){ (int)number(words[0]), (int)number(words[1]), words[2], 0 };
        if (length_of(words[2]) + 3 > sizeof aside) call(EXIT, 2, 0, 0, 0, 0);
        logs[i].length = call(LSEEK, logs[i].file, 0, 2, 0, 0);
    }
    long child = call(CLONE, SIGCHLD, 0, 0, 0, 0);
    if (child) call(EXIT, child < 0, 0, 0, 0, 0);
    without_rights();
    within_folders(count);
    few_calls();
    while (left) {
        struct pollfd p[MOST];
        for (int i = 0; i < count; i++) p[i] = (struct pollfd){ logs[i].pipe, POLLIN, 0 };
        call(PPOLL, (long)p, count, 0, 0, 8);
        for (int i = 0; i < count; i++) {
            if (!p[i].revents || logs[i].pipe < 0 || carry(&logs[i], number(argv[1]))) continue;
            call(CLOSE, logs[i].pipe, 0, 0, 0, 0);
            logs[i].pipe = -1;
            left--;
        }
    }
    call(EXIT, 0, 0, 0, 0, 0);
}
