/* What the programs of the guest need of Linux, without a libc: system calls, their constants, and bytes in memory. A program has
 * ``begin(stack)``, where argc, argv and the environment lie on the stack. */
#include <stddef.h>
#include <stdint.h>

enum { SHARING = 0x100 | 17 }; /* CLONE_VM, SIGCHLD */
#if defined(__x86_64__)
enum { READ = 0, WRITE = 1, CLOSE = 3, IOCTL = 16, SIGACTION = 13, SIGPROCMASK = 14, SOCKET = 41, CONNECT = 42, CLONE = 56, EXECVE = 59,
       EXIT = 231, WAIT4 = 61, KILL = 62, FCNTL = 72, CHDIR = 80, SETSID = 112, SIGTIMEDWAIT = 128, SETHOSTNAME = 170,
       NANOSLEEP = 35, MOUNT = 165, GETDENTS64 = 217, CLOCK_SETTIME = 227, OPENAT = 257, PPOLL = 271, SIGNALFD4 = 289, DUP3 = 292, PIPE2 = 293, FCHMOD = 91, GETPID = 39,
       FINIT_MODULE = 313, LSEEK = 8, FLOCK = 73, PRCTL = 157, CAPSET = 126, RENAMEAT2 = 316, FCHOWN = 93, SETGROUPS = 116,
       SETRESUID = 117, SETRESGID = 119, MKDIRAT = 258 };
static long call(long n, long a, long b, long c, long d, long e) {
    long r;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
    return r;
}
/* A child that shares this process's memory and runs `run`, which never returns, on a stack that ends at `top`; its number. */
static __attribute__((unused)) long spawn(void *top, void (*run)(void)) {
    long r;
    register long r10 __asm__("r10") = 0;
    register long r8 __asm__("r8") = 0;
    __asm__ volatile("syscall\n test %%rax,%%rax\n jnz 1f\n xor %%ebp,%%ebp\n call *%6\n1:"
                     : "=a"(r) : "a"(CLONE), "D"(SHARING), "S"(top), "d"(0), "r"(r10), "b"(run), "r"(r8) : "rcx", "r11", "memory");
    return r;
}
__asm__(".globl _start\n_start: xor %ebp,%ebp\n mov %rsp,%rdi\n and $-16,%rsp\n call begin\n");
#else
enum { READ = 63, WRITE = 64, CLOSE = 57, IOCTL = 29, SIGACTION = 134, SIGPROCMASK = 135, SOCKET = 198, CONNECT = 203, CLONE = 220,
       EXECVE = 221, EXIT = 94, WAIT4 = 260, KILL = 129, FCNTL = 25, CHDIR = 49, SETSID = 157, SIGTIMEDWAIT = 137,
       SETHOSTNAME = 161, CLOCK_SETTIME = 112, OPENAT = 56, PPOLL = 73, SIGNALFD4 = 74, DUP3 = 24, PIPE2 = 59, FCHMOD = 52,
       GETPID = 172, NANOSLEEP = 101, MOUNT = 40, GETDENTS64 = 61, FINIT_MODULE = 273, LSEEK = 62, FLOCK = 32, PRCTL = 167,
       CAPSET = 91, RENAMEAT2 = 276, FCHOWN = 55, SETGROUPS = 159, SETRESUID = 147, SETRESGID = 149, MKDIRAT = 34 };
#if defined(__aarch64__)
#define NUMBER "x8"
#define ARGUMENT(n) "x" #n
#define TRAP "svc 0"
#define RUN_IN_CHILD "cbnz x0, 1f\n mov x29, #0\n blr %6\n1:"
__asm__(".globl _start\n_start: mov x29,#0\n mov x30,#0\n mov x0,sp\n and sp,x0,#-16\n bl begin\n");
#elif defined(__riscv)
#define NUMBER "a7"
#define ARGUMENT(n) "a" #n
#define TRAP "ecall"
#define RUN_IN_CHILD "bnez a0, 1f\n jalr %6\n1:"
__asm__(".globl _start\n_start: mv a0,sp\n andi sp,sp,-16\n call begin\n");
#endif
static long call(long n, long a, long b, long c, long d, long e) {
    register long number __asm__(NUMBER) = n;
    register long a0 __asm__(ARGUMENT(0)) = a;
    register long a1 __asm__(ARGUMENT(1)) = b;
    register long a2 __asm__(ARGUMENT(2)) = c;
    register long a3 __asm__(ARGUMENT(3)) = d;
    register long a4 __asm__(ARGUMENT(4)) = e;
    __asm__ volatile(TRAP : "+r"(a0) : "r"(number), "r"(a1), "r"(a2), "r"(a3), "r"(a4) : "memory");
    return a0;
}
static __attribute__((unused)) long spawn(void *top, void (*run)(void)) {
    register long number __asm__(NUMBER) = CLONE;
    register long a0 __asm__(ARGUMENT(0)) = SHARING;
    register long a1 __asm__(ARGUMENT(1)) = (long)top;
    register long a2 __asm__(ARGUMENT(2)) = 0;
    register long a3 __asm__(ARGUMENT(3)) = 0;
    register long a4 __asm__(ARGUMENT(4)) = 0;
    __asm__ volatile(TRAP "\n " RUN_IN_CHILD
                     : "+r"(a0) : "r"(number), "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(run) : "memory");
    return a0;
}
#endif

enum { AT_FDCWD = -100, O_WRONLY = 1, O_RDWR = 2, O_CREAT = 0100, O_EXCL = 0200, O_NOCTTY = 0400, O_TRUNC = 01000,
       O_APPEND = 02000, O_NONBLOCK = 04000, O_ASYNC = 020000, LOCK_SH = 1, LOCK_NB = 4, PR_SET_NO_NEW_PRIVS = 38,
       O_CLOEXEC = 02000000, F_SETFL = 4, F_SETOWN = 8, F_DUPFD_CLOEXEC = 1030, ENOENT = 2, EINTR = 4, ENOEXEC = 8, EAGAIN = 11,
       EACCES = 13, EINVAL = 22, ENODEV = 19, ENOMEDIUM = 123, SIGIO = 29, SIGCHLD = 17, SIGKILL = 9, SIGPIPE = 13,
       WNOHANG = 1, POLLIN = 1, POLLOUT = 4, POLLERR = 8, POLLHUP = 16 };
#define BIT(s) (1ul << ((s) - 1))

struct pollfd { int fd; short events, revents; };
struct timespec { long sec, nsec; };

void *memcpy(void *to, const void *from, size_t n) {
    uint8_t *t = to;
    const uint8_t *f = from;
    while (n--) *t++ = *f++;
    return to;
}
void *memset(void *to, int value, size_t n) {
    uint8_t *t = to;
    while (n--) *t++ = (uint8_t)value;
    return to;
}
static __attribute__((unused)) size_t length_of(const char *s) {
    size_t n = 0;
    while (s[n]) n++;
    return n;
}
static __attribute__((unused)) int same(const uint8_t *a, const uint8_t *b, size_t n) {
    while (n--) if (*a++ != *b++) return 0;
    return 1;
}
