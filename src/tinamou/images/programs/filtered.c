/* Loads a filter of system calls, and becomes another program, which starts under it and an AppArmor profile.
 *
 * usage: filtered FD OWN PROFILE CORES PROGRAM [ARGUMENT]…
 *
 * FD has an array of struct sock_filter, and after it three words of 64 bits; OWN is the descriptor this was started from.
 * PROGRAM has neither. A dash in place of FD or PROFILE is none. Where CORES is "own", no thread of anybody else runs on a core
 * while one of PROGRAM's does (PR_SCHED_CORE, prctl(2)).
 *
 * The words are the key to execve(2): they go into its fourth to sixth argument, which the kernel ignores and the filter reads.
 * It needs no_new_privs, and no other right.
 */
#include "linux.h"

enum { MOST = 4096, PR_SET_SECCOMP = 22, SECCOMP_MODE_FILTER = 2, PR_SCHED_CORE = 62, PR_SCHED_CORE_CREATE = 1 };
static uint64_t read_here[MOST + 3];

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
static int number(const char *s) {
    int n = 0;
    while (*s >= '0' && *s <= '9') n = n * 10 + (*s++ - '0');
    return n;
}
static void fail(const char *why) {
    call(WRITE, 2, (long)why, length_of(why), 0, 0);
    call(EXIT, 126, 0, 0, 0, 0);
}

/* Since Linux 5.8 the name is AppArmor's own; before, the directory is that of the one module that had it. */
static void enter_with_next_program(const char *profile) {
    static char words[512] = "exec ";
    size_t n = length_of(profile);
    int file = (int)call(OPENAT, AT_FDCWD, (long)"/proc/self/attr/apparmor/exec", O_WRONLY | O_CLOEXEC, 0, 0);
    if (file < 0) file = (int)call(OPENAT, AT_FDCWD, (long)"/proc/self/attr/exec", O_WRONLY | O_CLOEXEC, 0, 0);
    if (n > sizeof words - 6) fail("filtered: the profile's name is too long\n");
    memcpy(words + 5, profile, n);
    if (call(WRITE, file, (long)words, 5 + (long)n, 0, 0) < 0) fail("filtered: the AppArmor profile cannot be entered\n");
    call(CLOSE, file, 0, 0, 0, 0);
}
static const uint64_t *load(int descriptor) {
    call(LSEEK, descriptor, 0, 0, 0, 0);
    long length = call(READ, descriptor, (long)read_here, sizeof read_here, 0, 0) / 8 - 3;
    if (length < 1 || length > MOST) fail("filtered: there is no filter in this descriptor\n");
    call(CLOSE, descriptor, 0, 0, 0, 0);
    struct { unsigned short length; uint64_t *filter; } program = { (unsigned short)length, read_here };
    if (call(PRCTL, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, (long)&program, 0, 0) < 0) fail("filtered: the kernel does not take the filter\n");
    return read_here + length;
}

__attribute__((used)) void begin(long *stack) {
    char **argv = (char **)(stack + 1), **environment = argv + stack[0] + 1;
    if (stack[0] < 6) fail("usage: filtered FD OWN PROFILE CORES PROGRAM [ARGUMENT]...\n");
    if (argv[4][0] != '-' && call(PRCTL, PR_SCHED_CORE, PR_SCHED_CORE_CREATE, 0, 0, 0) < 0)
        fail("filtered: the kernel gives no cores of its own (security.sched_core)\n");
    if (argv[3][0] != '-') enter_with_next_program(argv[3]);
    call(CLOSE, number(argv[2]), 0, 0, 0, 0);
    const uint64_t *key = argv[1][0] == '-' ? read_here : load(number(argv[1]));
    become(argv[5], argv + 5, environment, key);
    fail("filtered: the program cannot be started\n");
}
