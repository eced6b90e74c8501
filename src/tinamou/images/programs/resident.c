/* The resident: answers on a virtio-serial port of a machine that is forked. It gives the fork its own identity and runs
 * commands, without a libc, so that one small program serves every Linux guest of an architecture and runs little code.
 *
 * A frame is a type, three zero bytes, a length (32 bits, little endian) and that many bytes.
 *   to the guest    H echo            I identity records    X command    K kill the command
 *   to the host     H the same bytes  I one errno a record  O E output   D wait status (32 bits)   F errno: not started
 * An identity record is a type, a zero byte, a length (16 bits) and its bytes; see identity().
 */
#include "linux.h"

enum { MAX = 1 << 20, WORDS = 4096 };
struct header { uint8_t type, zero[3]; uint32_t length; };

static uint8_t input[MAX], chunk[32768];
static char *words[WORDS], **environment;
static int port;

/* 0 when all was written, -1 when nobody listens at the other end. */
static int put(const void *data, size_t n) {
    const uint8_t *at = data;
    while (n) {
        long done = call(WRITE, port, (long)at, (long)(n > 32768 ? 32768 : n), 0, 0);
        if (done > 0) { at += done; n -= (size_t)done; continue; }
        if (done != -EAGAIN && done != -EINTR) return -1;
        struct pollfd p = { port, POLLOUT, 0 };
        call(PPOLL, (long)&p, 1, 0, 0, 8);
        if (p.revents & (POLLHUP | POLLERR)) return -1;
    }
    return 0;
}
static int frame(uint8_t type, const void *data, size_t n) {
    static uint8_t out[sizeof(struct header) + sizeof chunk];
    struct header h = { type, { 0 }, (uint32_t)n };
    memcpy(out, &h, sizeof h);
    memcpy(out + sizeof h, data, n);
    return put(out, sizeof h + n);
}

/* Fill the buffer; 0 when the host went away, which ends whatever frame was under way. */
static int get(uint8_t *to, size_t n) {
    while (n) {
        long got = call(READ, port, (long)to, (long)n, 0, 0);
        if (got > 0) { to += got; n -= (size_t)got; continue; }
        if (got == -EAGAIN) {
            struct pollfd p = { port, POLLIN, 0 };
            call(PPOLL, (long)&p, 1, 0, 0, 8);
            if (p.revents & POLLIN) continue;
        }
        if (got == -EINTR) continue;
        return 0;
    }
    return 1;
}
static long reseed(const uint8_t *data, size_t n) {
    struct { int bits, size; uint8_t bytes[512]; } pool;
    if (n > sizeof pool.bytes) return -EINVAL;
    pool.bits = (int)n * 8;
    pool.size = (int)n;
    memcpy(pool.bytes, data, n);
    long fd = call(OPENAT, AT_FDCWD, (long)"/dev/urandom", O_WRONLY | O_CLOEXEC, 0, 0);
    if (fd < 0) return fd;
    long r = call(IOCTL, fd, 0x40085203, (long)&pool, 0, 0);
    if (r >= 0) r = call(IOCTL, fd, 0x5207, 0, 0, 0);
    call(CLOSE, fd, 0, 0, 0, 0);
    return r;
}
/* data: the address an interface has, the one it is to have. */
static long readdress(const uint8_t *data, size_t n) {
    struct { char name[16]; union { int index; struct { uint16_t family; uint8_t bytes[14]; } address; uint8_t all[24]; }; } r;
    long result = -ENODEV, fd = call(SOCKET, 2, 2 | O_CLOEXEC, 0, 0, 0);
    if (fd < 0 || n != 12) return fd < 0 ? fd : -EINVAL;
    for (int index = 1; index < 64; index++) {
        memset(&r, 0, sizeof r);
        r.index = index;
        if (call(IOCTL, fd, 0x8910, (long)&r, 0, 0) < 0 || call(IOCTL, fd, 0x8927, (long)&r, 0, 0) < 0) continue;
        if (!same(r.address.bytes, data, 6)) continue;
        memcpy(r.address.bytes, data + 6, 6);
        result = call(IOCTL, fd, 0x8924, (long)&r, 0, 0);
        break;
    }
    call(CLOSE, fd, 0, 0, 0, 0);
    return result;
}
/* data: mode (16 bits), path with its NUL, content. */
static long write_file(const uint8_t *data, size_t n) {
    size_t path = length_of((const char *)data + 2) + 3;
    if (path > n) return -EINVAL;
    long mode = data[0] | data[1] << 8;
    long fd = call(OPENAT, AT_FDCWD, (long)(data + 2), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode, 0);
    if (fd < 0) return fd;
    long r = call(WRITE, fd, (long)(data + path), (long)(n - path), 0, 0);
    call(FCHMOD, fd, mode, 0, 0, 0);
    call(CLOSE, fd, 0, 0, 0, 0);
    return r < 0 ? r : 0;
}
/* data: signal (16 bits), path of a file that holds a process number. */
static long signal_from(const uint8_t *data) {
    char text[16];
    long fd = call(OPENAT, AT_FDCWD, (long)(data + 2), O_CLOEXEC, 0, 0);
    if (fd < 0) return fd;
    long n = call(READ, fd, (long)text, sizeof text, 0, 0), pid = 0;
    call(CLOSE, fd, 0, 0, 0, 0);
    for (long i = 0; i < n && text[i] >= '0' && text[i] <= '9'; i++) pid = pid * 10 + text[i] - '0';
    return pid > 1 ? call(KILL, pid, data[0], 0, 0, 0) : -EINVAL;
}
static void identity(uint8_t *data, size_t n) {
    static uint8_t results[256];
    size_t count = 0;
    while (n >= 4 && count < sizeof results) {
        size_t size = data[2] | data[3] << 8;
        uint8_t *body = data + 4;
        if (size > n - 4) break;
        long r = -EINVAL;
        switch (data[0]) {
            case 'e': r = reseed(body, size); break;
            case 't': r = size == 16 ? call(CLOCK_SETTIME, 0, (long)body, 0, 0, 0) : -EINVAL; break;
            case 'h': r = call(SETHOSTNAME, (long)body, (long)size, 0, 0, 0); break;
            case 'm': r = readdress(body, size); break;
            case 'f': r = write_file(body, size); break;
            case 's': r = signal_from(body); break;
        }
        results[count++] = (uint8_t)(r < 0 ? -r : 0);
        data = body + size;
        n -= 4 + size;
    }
    frame('I', results, count);
}

static void execute(char **argv, char **env) {
    static char path[4096];
    const char *search = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    size_t name = length_of(argv[0]);
    for (size_t i = 0; i < name; i++) if (argv[0][i] == '/') search = "";
    for (char **e = env; *e; e++) if (*search && same((uint8_t *)*e, (const uint8_t *)"PATH=", 5)) search = *e + 5;
    if (!*search) { call(EXECVE, (long)argv[0], (long)argv, (long)env, 0, 0); return; }
    while (*search) {
        size_t n = 0;
        while (search[n] && search[n] != ':') n++;
        if (n + name + 2 < sizeof path) {
            memcpy(path, search, n);
            path[n] = '/';
            memcpy(path + n + 1, argv[0], name + 1);
            call(EXECVE, (long)path, (long)argv, (long)env, 0, 0);
        }
        search += n + (search[n] == ':');
    }
}
/* The next command's process is made before its command is known: that takes as long as becoming the command. It shares this
 * process's memory, has a stack of its own, and waits for a byte on `go`. */
static struct { long pid; int in, out, err, report, go; } next;
static struct { int in[2], out[2], err[2], report[2], go[2]; } pipes;
static char **next_argv, **next_environment;
static uint8_t stack[16384] __attribute__((aligned(16)));
static int signals;

static __attribute__((noreturn)) void child(void) {
    uint64_t none = 0;
    uint8_t failed = 2, go;
    int report = pipes.report[1];
    call(SIGPROCMASK, 2, (long)&none, 0, 8, 0);
    call(SETSID, 0, 0, 0, 0, 0);
    call(DUP3, pipes.in[0], 0, 0, 0, 0);
    call(DUP3, pipes.out[1], 1, 0, 0, 0);
    call(DUP3, pipes.err[1], 2, 0, 0, 0);
    call(CLOSE, pipes.go[1], 0, 0, 0, 0);
    if (call(READ, pipes.go[0], (long)&go, 1, 0, 0) == 1) {
        execute(next_argv, next_environment);
        call(WRITE, report, (long)&failed, 1, 0, 0);
    }
    for (;;) call(EXIT, 127, 0, 0, 0, 0);
}
static void drop(int *fd) {
    if (*fd >= 0) call(CLOSE, *fd, 0, 0, 0, 0);
    *fd = -1;
}
static void forget(void) {
    drop(&next.in); drop(&next.out); drop(&next.err); drop(&next.report); drop(&next.go);
    next.pid = 0;
}
/* The process of the next command, or an error. */
static long prepare(void) {
    if (next.pid) return next.pid;
    memset(&pipes, 0xff, sizeof pipes);
    long failed = call(PIPE2, (long)pipes.in, O_CLOEXEC, 0, 0, 0) | call(PIPE2, (long)pipes.out, O_CLOEXEC, 0, 0, 0)
                | call(PIPE2, (long)pipes.err, O_CLOEXEC, 0, 0, 0) | call(PIPE2, (long)pipes.report, O_CLOEXEC, 0, 0, 0)
                | call(PIPE2, (long)pipes.go, O_CLOEXEC, 0, 0, 0);
    long pid = failed ? failed : spawn(stack + sizeof stack, child);
    next.in = pipes.in[1]; next.out = pipes.out[0]; next.err = pipes.err[0]; next.report = pipes.report[0]; next.go = pipes.go[1];
    call(FCNTL, next.in, F_SETFL, O_NONBLOCK, 0, 0);
    call(FCNTL, next.out, F_SETFL, O_NONBLOCK, 0, 0);
    call(FCNTL, next.err, F_SETFL, O_NONBLOCK, 0, 0);
    int theirs[] = { pipes.in[0], pipes.out[1], pipes.err[1], pipes.report[1], pipes.go[0] };
    for (int i = 0; i < 5; i++) drop(&theirs[i]);
    if (pid < 0) forget(); else next.pid = pid;
    return pid;
}
static void wait_for_host(void) {
    uint64_t set = BIT(SIGIO);
    struct timespec second = { 1, 0 };
    if (call(SIGTIMEDWAIT, (long)&set, 0, (long)&second, 8, 0) == -EAGAIN) prepare();
}
/* Nothing to do for a moment: make ready for the next command. */
static void use_the_pause(void) {
    struct pollfd p = { port, POLLIN, 0 };
    struct timespec moment = { 0, 20000000 };
    if (!next.pid && call(PPOLL, (long)&p, 1, (long)&moment, 0, 8) == 0) prepare();
}
/* One read of the command's output; 0 when there is nothing (now, or any more). */
static int forward(int *fd, uint8_t type) {
    long n = *fd < 0 ? 0 : call(READ, *fd, (long)chunk, sizeof chunk, 0, 0);
    if (n > 0) return frame(type, chunk, (size_t)n) == 0;
    if (n != -EAGAIN) drop(fd);
    return 0;
}
static void attend(long pid, int *in, int *out, int *err, uint8_t *data, size_t n) {
    int status = 0, listening = 1;
    for (;;) {
        if (!n) drop(in);
        struct pollfd p[5] = { { signals, POLLIN, 0 }, { *out, POLLIN, 0 }, { *err, POLLIN, 0 }, { *in, POLLOUT, 0 },
                               { listening ? port : -1, POLLIN, 0 } };
        call(PPOLL, (long)p, 5, 0, 0, 8);
        if (p[3].revents) {
            long done = call(WRITE, *in, (long)data, (long)(n > 4096 ? 4096 : n), 0, 0);
            if (done > 0) { data += done; n -= (size_t)done; } else n = 0;
        }
        if (p[1].revents) forward(out, 'O');
        if (p[2].revents) forward(err, 'E');
        if (p[4].revents) {
            struct header h;
            int there = (p[4].revents & POLLIN) && get((uint8_t *)&h, sizeof h);
            if (!there) listening = 0;
            if (!there || h.type == 'K') call(KILL, -pid, SIGKILL, 0, 0, 0);
        }
        if (p[0].revents) {
            call(READ, signals, (long)chunk, 128, 0, 0);
            if (call(WAIT4, pid, (long)&status, 1, 0, 0) == pid) break;
        }
    }
    while (forward(out, 'O')) {}
    while (forward(err, 'E')) {}
    frame('D', &status, 4);
}
/* data: number of words and of environment entries (16 bits each), the strings with their NULs, then standard input. */
static void command(uint8_t *data, size_t n) {
    int argc = data[0] | data[1] << 8, envc = data[2] | data[3] << 8, count = 0;
    uint8_t *at = data + 4, *end = data + n, code = EINVAL;
    if (n < 4 || argc < 1 || argc + envc + 2 > WORDS) { frame('F', &code, 1); return; }
    for (int i = 0; i < argc + envc; i++) {
        if (i == argc) words[count++] = 0;
        words[count++] = (char *)at;
        while (at < end && *at) at++;
        if (at++ >= end) { frame('F', &code, 1); return; }
    }
    words[count] = 0;
    if (!envc) words[argc] = 0;
    next_argv = words;
    next_environment = envc ? words + argc + 1 : environment;
    long pid = prepare();
    if (pid > 0 && call(WRITE, next.go, (long)"", 1, 0, 0) != 1) {
        call(WAIT4, pid, 0, 0, 0, 0);
        forget();
        pid = prepare();
        if (pid > 0) call(WRITE, next.go, (long)"", 1, 0, 0);
    }
    if (pid < 0) { code = (uint8_t)-pid; frame('F', &code, 1); return; }
    if (call(READ, next.report, (long)&code, 1, 0, 0) == 1) { call(WAIT4, pid, 0, 0, 0, 0); frame('F', &code, 1); }
    else attend(pid, &next.in, &next.out, &next.err, at, (size_t)(end - at));
    forget();
    prepare();
}

__attribute__((used)) void begin(long *stack) {
    char **argv = (char **)(stack + 1);
    environment = argv + stack[0] + 1;
    uint64_t set = BIT(SIGIO) | BIT(SIGCHLD) | BIT(13);
    call(SIGPROCMASK, 0, (long)&set, 0, 8, 0);
    call(CHDIR, (long)"/", 0, 0, 0, 0);
    port = stack[0] > 1 ? (int)call(OPENAT, AT_FDCWD, (long)argv[1], O_RDWR | O_NONBLOCK | O_CLOEXEC, 0, 0) : -1;
    if (port < 0) call(EXIT, 1, 0, 0, 0, 0);
    call(FCNTL, port, F_SETOWN, call(GETPID, 0, 0, 0, 0, 0), 0, 0);
    call(FCNTL, port, F_SETFL, O_NONBLOCK | O_ASYNC, 0, 0);
    set = BIT(SIGCHLD);
    signals = (int)call(SIGNALFD4, -1, (long)&set, 8, O_NONBLOCK | O_CLOEXEC, 0);
    for (;;) {
        struct header h;
        use_the_pause();
        if (!get((uint8_t *)&h, sizeof h)) { wait_for_host(); continue; }
        if (h.length > MAX || !get(input, h.length)) continue;
        if (h.type == 'H') frame('H', input, h.length > sizeof chunk ? sizeof chunk : h.length);
        if (h.type == 'I') identity(input, h.length);
        if (h.type == 'X') command(input, h.length);
    }
}
