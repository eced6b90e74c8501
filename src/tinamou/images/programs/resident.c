/* The resident: answers on a virtio-serial port of a machine. It gives a fork its own identity and runs commands, several at a
 * time, without a libc, so that one small program serves every Linux guest of an architecture and runs little code.
 *
 * A frame is a type, a zero byte, a channel (16 bits), a length (32 bits, little endian) and that many bytes. Zero bytes before a
 * type are left out: a host that does not know where the last one stopped sends as many as the longest frame has.
 *   channel 0, to the guest   R the host is another one: what runs is let go of   H echo   I identity records (identity.h)
 *   channel 0, to the host    N the resident has begun   R, H the same bytes   I one errno a record
 *   a command, to the guest   S start it   T its input   C no more input   K signal (8 bits)   Z columns, rows (16 bits each)
 *                             W bytes of output that were taken (32 bits)   B the host wants no more of it
 *   a command, to the host    G its process number (32 bits)   O output   E errors   W bytes of input that were taken
 *                             C nobody reads its input   D wait status (32 bits)   F step, errno: not started
 * The host has a command's channel to itself until D or F. It sends at most RING bytes of input, and the guest WINDOW bytes of
 * output, beyond what the other has said to have taken; so no command waits for another one's reader.
 */
#include "linux.h"
#include "identity.h"
#include "account.h"

enum { MAX = 1 << 20, WORDS = 4096, CHANNELS = 32, RING = 1 << 16, WINDOW = 1 << 18, PIECE = 32768, REST = 1 << 20 };
enum { TERMINAL = 1, TELL = 2 };
#define body (piece + sizeof(struct header))
struct header { uint8_t type, zero; uint16_t channel; uint32_t length; };
struct start { uint8_t flags, zero; uint16_t words, variables, columns, rows; };
struct size { uint16_t rows, columns, x, y; };

/* What runs for the host; ``id`` is 0 where nothing does, ``silent`` what was let go of, ``rest`` how much is read after its end. */
struct channel {
    uint16_t id;
    uint8_t terminal, closing, silent, ended;
    long pid;
    int in, out, err, status;
    uint32_t credit, first, waiting, taken, rest;
};
static struct channel channels[CHANNELS];
static uint8_t rings[CHANNELS][RING], input[MAX], piece[PIECE];
static char *words[WORDS + 8];
static int port, away, children, news;

/* 0 when all was written, -1 when nobody listens at the other end. */
static int put(const void *data, size_t n) {
    const uint8_t *at = data;
    while (n) {
        long done = call(WRITE, port, (long)at, (long)n, 0, 0);
        if (done > 0) { at += done; n -= (size_t)done; continue; }
        if (done != -EAGAIN && done != -EINTR) return -1;
        struct pollfd p = { port, POLLOUT, 0 };
        call(PPOLL, (long)&p, 1, 0, 0, 8);
        if (p.revents & (POLLHUP | POLLERR)) return -1;
    }
    return 0;
}
/* A frame is one write, which arrives whole or not at all; what is in ``body`` already is not copied. */
static void frame(uint8_t type, uint16_t channel, const void *data, size_t n) {
    struct header h = { type, 0, channel, (uint32_t)n };
    memcpy(piece, &h, sizeof h);
    if (data != body) memcpy(body, data, n);
    put(piece, sizeof h + n);
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
static int skip(size_t n) {
    for (size_t part; n; n -= part) {
        part = n > PIECE ? PIECE : n;
        if (!get(piece, part)) return 0;
    }
    return 1;
}
static void drop(int *fd) {
    if (*fd >= 0) call(CLOSE, *fd, 0, 0, 0, 0);
    *fd = -1;
}

/* The next command's process is made before its command is known: that takes as long as becoming the command. It shares this
 * process's memory, has a stack of its own, and waits for a byte on `go`. It is made while nothing runs: it would keep the
 * pipes of what does open, and a command that reads to the end of its input would wait for ever. */
static struct { long pid; int in, out, err, report, go; } next;
static struct { int in[2], out[2], err[2], report[2], go[2]; } pipes;
static struct { char **argv, **environment, *folder; uint8_t flags, terminal[16]; } job;
static uint8_t stack[16384] __attribute__((aligned(16)));

/* Becomes the program; returns an errno. argv[-1] is free, for the shell of a script that does not name one. */
static long execute(char **argv, char **env) {
    static char path[4096];
    const char *search = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    size_t name = length_of(argv[0]);
    long result = -ENOENT, r;
    for (size_t i = 0; i < name; i++) if (argv[0][i] == '/') search = "";
    for (char **e = env; *e; e++) if (*search && same((uint8_t *)*e, (const uint8_t *)"PATH=", 5)) search = *e + 5;
    do {
        size_t n = 0;
        while (search[n] && search[n] != ':') n++;
        if (n + name + 2 < sizeof path) {
            memcpy(path, search, n);
            if (n) path[n] = '/';
            memcpy(path + n + (n > 0), argv[0], name + 1);
            r = call(EXECVE, (long)path, (long)argv, (long)env, 0, 0);
            if (r == -ENOEXEC) {
                argv[-1] = "/bin/sh";
                argv[0] = path;
                return call(EXECVE, (long)argv[-1], (long)(argv - 1), (long)env, 0, 0);
            }
            if (r != -ENOENT) result = r;
        }
        search += n + (search[n] == ':');
    } while (*search);
    return result;
}
static long open_terminal(void) {
    long fd = call(OPENAT, AT_FDCWD, (long)job.terminal, O_RDWR, 0, 0);
    if (fd < 0) return fd;
    struct { uint32_t input, rest[14]; } modes;
    if (call(IOCTL, fd, 0x5401, (long)&modes, 0, 0) == 0) {
        modes.input |= 040000; /* IUTF8 */
        call(IOCTL, fd, 0x5402, (long)&modes, 0, 0);
    }
    call(FCHOWN, fd, account.uid, -1, 0, 0);
    for (int i = 0; i < 3; i++) call(DUP3, fd, i, 0, 0, 0);
    if (fd > 2) call(CLOSE, fd, 0, 0, 0, 0);
    return 0;
}
/* What stands between the process and its program; returns the step that failed, and why. */
static uint8_t become(long *why) {
    if (job.flags & TERMINAL && (*why = open_terminal()) < 0) return 't';
    if (account.uid) {
        if ((*why = call(SETGROUPS, (long)account.count, (long)account.groups, 0, 0, 0)) < 0) return 'u';
        if ((*why = call(SETRESGID, account.gid, account.gid, account.gid, 0, 0)) < 0) return 'u';
        if ((*why = call(SETRESUID, account.uid, account.uid, account.uid, 0, 0)) < 0) return 'u';
    }
    if (*job.folder) {
        if ((*why = call(CHDIR, (long)job.folder, 0, 0, 0, 0)) < 0) return 'd';
    } else {
        call(CHDIR, (long)account.home, 0, 0, 0, 0);
    }
    *why = execute(job.argv, job.environment);
    return 'x';
}
static __attribute__((noreturn)) void child(void) {
    uint64_t none = 0;
    uint8_t go;
    int report = pipes.report[1];
    call(SIGPROCMASK, 2, (long)&none, 0, 8, 0);
    call(SETSID, 0, 0, 0, 0, 0);
    call(DUP3, pipes.in[0], 0, 0, 0, 0);
    call(DUP3, pipes.out[1], 1, 0, 0, 0);
    call(DUP3, pipes.err[1], 2, 0, 0, 0);
    call(CLOSE, pipes.go[1], 0, 0, 0, 0);
    if (call(READ, pipes.go[0], (long)&go, 1, 0, 0) == 1) {
        long why;
        uint8_t failed[2] = { become(&why), 0 };
        failed[1] = (uint8_t)-why;
        call(WRITE, report, (long)failed, 2, 0, 0);
    }
    for (;;) call(EXIT, 127, 0, 0, 0, 0);
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

/* Nothing to do: make ready for the next command. */
static void use_the_pause(void) {
    for (int i = 0; i < CHANNELS; i++) if (channels[i].id) return;
    prepare();
}

static struct channel *find(uint16_t id) {
    for (int i = 0; i < CHANNELS; i++) if (id && channels[i].id == id && !channels[i].silent) return &channels[i];
    return 0;
}
static void let_go(struct channel *c) {
    drop(&c->in); drop(&c->out); drop(&c->err);
    c->id = 0;
}
/* Nobody at the host wants a command any more. A terminal hangs up, which its session is told by the kernel. */
static void abandon(struct channel *c) {
    if (!c->terminal && !c->ended) call(KILL, -c->pid, SIGKILL, 0, 0, 0);
    let_go(c);
}
/* One read of a command's output. How much there was; 0 when there is nothing (now, or any more). */
static long forward(struct channel *c, int *fd, uint8_t type) {
    size_t room = PIECE - sizeof(struct header);
    if (!c->silent && c->credit < room) room = c->credit;
    long n = *fd < 0 || !room ? 0 : call(READ, *fd, (long)body, (long)room, 0, 0);
    if (n > 0 && !c->silent) {
        c->credit -= (uint32_t)n;
        frame(type, c->id, body, (size_t)n);
    }
    if (n <= 0 && n != -EAGAIN && room) drop(fd);
    return n > 0 ? n : 0;
}
static void take_note(struct channel *c, uint32_t taken) {
    c->taken += taken;
    if (c->taken < RING / 2) return;
    frame('W', c->id, &c->taken, 4);
    c->taken = 0;
}
/* Nobody reads the input any more: what is there, and what comes, is taken as read. */
static void refuse_input(struct channel *c) {
    drop(&c->in);
    c->waiting = 0;
    if (!c->silent && !c->closing) frame('C', c->id, 0, 0);
}
static void feed(struct channel *c) {
    uint8_t *ring = rings[c - channels];
    while (c->in >= 0 && c->waiting) {
        uint32_t n = RING - c->first < c->waiting ? RING - c->first : c->waiting;
        long done = call(WRITE, c->in, (long)(ring + c->first), n, 0, 0);
        if (done == -EAGAIN) return;
        if (done <= 0) { refuse_input(c); return; }
        c->first = (c->first + (uint32_t)done) & (RING - 1);
        c->waiting -= (uint32_t)done;
        if (!c->silent) take_note(c, (uint32_t)done);
    }
    if (c->closing && !c->terminal) drop(&c->in);
}
/* What comes for a command's input goes to its ring at once. */
static int take_input(struct channel *c, size_t n) {
    if (!c || c->in < 0 || n > RING - c->waiting) return skip(n);
    uint8_t *ring = rings[c - channels];
    uint32_t at = (c->first + c->waiting) & (RING - 1);
    size_t part = RING - at < n ? RING - at : n;
    if (!get(ring + at, part) || !get(ring, n - part)) return 0;
    c->waiting += (uint32_t)n;
    feed(c);
    return 1;
}
/* The last words of a command that has ended, as far as the host takes them; what its children print later is not waited for. */
static void finish(struct channel *c) {
    for (long n; c->rest && (n = forward(c, &c->out, 'O') + forward(c, &c->err, 'E'));) c->rest = n < c->rest ? c->rest - (uint32_t)n : 0;
    if (!c->silent && !c->credit && c->rest && (c->out >= 0 || c->err >= 0)) return;
    if (!c->silent) frame('D', c->id, &c->status, 4);
    let_go(c);
    use_the_pause();
}
static void reap(void) {
    int status;
    call(READ, children, (long)body, 128, 0, 0);
    for (long pid; (pid = call(WAIT4, -1, (long)&status, WNOHANG, 0, 0)) > 0;) {
        if (pid == next.pid) forget();
        for (int i = 0; i < CHANNELS; i++)
            if (channels[i].id && channels[i].pid == pid) channels[i].ended = 1, channels[i].status = status;
    }
}

static int pair(uint16_t first, uint16_t second, struct size *size) {
    size->columns = first, size->rows = second, size->x = size->y = 0;
    return first && second;
}
/* The host's end of a new terminal, whose other end has the path ``job.terminal``; an error without one. */
static long make_terminal(const struct start *s) {
    int number = 0, unlocked = 0, at = 9;
    struct size size;
    long fd = call(OPENAT, AT_FDCWD, (long)"/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC, 0, 0);
    if (fd < 0) return fd;
    call(IOCTL, fd, 0x40045431, (long)&unlocked, 0, 0);
    call(IOCTL, fd, 0x80045430, (long)&number, 0, 0);
    if (pair(s->columns, s->rows, &size)) call(IOCTL, fd, 0x5414, (long)&size, 0, 0);
    memcpy(job.terminal, "/dev/pts/", 9);
    for (int power = 100000; power; power /= 10)
        if (number >= power || power == 1) job.terminal[at++] = (uint8_t)('0' + number / power % 10);
    job.terminal[at] = 0;
    return fd;
}
/* A variable of the login, unless the host has set it. */
static void add_variable(const char *name, const char *value, int *count, int first) {
    static char text[8192];
    static size_t used;
    size_t n = length_of(name), m = length_of(value) + 1;
    if (same((const uint8_t *)name, (const uint8_t *)"HOME=", 5)) used = 0;
    for (int i = first; i < *count; i++) if (same((uint8_t *)words[i], (const uint8_t *)name, n)) return;
    if (used + n + m > sizeof text) return;
    memcpy(text + used, name, n);
    memcpy(text + used + n, value, m);
    words[(*count)++] = text + used;
    used += n + m;
}
static void add_login(int *count, int first) {
    add_variable("HOME=", account.home, count, first);
    add_variable("USER=", account.name, count, first);
    add_variable("LOGNAME=", account.name, count, first);
    add_variable("SHELL=", account.shell, count, first);
    add_variable("PATH=", account.uid ? "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"
                                      : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", count, first);
}
/* Fills in ``job`` from the payload of S: struct start, then strings, each with its NUL: user, folder, words, variables. Returns
 * the step that failed, 0 for none. */
static uint8_t read_job(const struct start *s, uint8_t *at, const uint8_t *end) {
    const char *user = 0;
    int count = 1, strings = 2 + s->words + s->variables;
    if (!s->words || strings + 8 > WORDS) return 'x';
    for (int i = 0; i < strings; i++) {
        char *text = (char *)at;
        while (at < end && *at) at++;
        if (at++ >= end) return 'x';
        if (i == 0) user = text;
        else if (i == 1) job.folder = text;
        else words[count++] = text;
        if (i == s->words + 1) words[count++] = 0;
    }
    job.flags = s->flags;
    job.argv = words + 1;
    job.environment = words + s->words + 2;
    if (!look_up(user)) return 'u';
    add_login(&count, s->words + 2);
    words[count] = 0;
    return 0;
}
/* Lets the process that waits become the job. Its number; an error, with the step that failed. */
static long launch(uint8_t *step) {
    uint8_t failed[2];
    long pid = prepare();
    *step = 'x';
    if (pid > 0 && call(WRITE, next.go, (long)"", 1, 0, 0) != 1) {
        call(WAIT4, pid, 0, 0, 0, 0);
        forget();
        pid = prepare();
        if (pid > 0) call(WRITE, next.go, (long)"", 1, 0, 0);
    }
    if (pid < 0) return pid;
    if (call(READ, next.report, (long)failed, 2, 0, 0) != 2) return pid;
    call(WAIT4, pid, 0, 0, 0, 0);
    forget();
    *step = failed[0];
    return -(long)failed[1];
}
static void start(uint16_t id, uint8_t *data, size_t n) {
    struct start s;
    struct channel *c = channels;
    long master = -1, pid = -EINVAL;
    uint8_t step = 'x';
    while (c < channels + CHANNELS && c->id) c++;
    if (c == channels + CHANNELS) step = 'n';
    else if (n > sizeof s) {
        memcpy(&s, data, sizeof s);
        step = read_job(&s, data + sizeof s, data + n);
        if (!step && s.flags & TERMINAL && (pid = master = make_terminal(&s)) < 0) step = 't';
        if (!step) pid = launch(&step);
    }
    if (pid < 0) {
        uint8_t failed[2] = { step, (uint8_t)-pid };
        int fd = (int)master;
        drop(&fd);
        frame('F', id, failed, 2);
        return;
    }
    *c = (struct channel){ .id = id, .pid = pid, .in = next.in, .out = next.out, .err = next.err, .credit = WINDOW, .rest = REST };
    if (master >= 0) {
        drop(&next.in); drop(&next.out); drop(&next.err);
        c->terminal = 1;
        c->out = (int)master;
        c->in = (int)call(FCNTL, master, F_DUPFD_CLOEXEC, 0, 0, 0);
        c->err = -1;
    }
    next.in = next.out = next.err = -1;
    forget();
    if (s.flags & TELL) frame('G', id, &pid, 4);
}

static void lose_host(void) {
    away = 1;
    for (int i = 0; i < CHANNELS; i++) if (channels[i].id && !channels[i].silent) abandon(&channels[i]);
}
static void release_all(void) {
    for (int i = 0; i < CHANNELS; i++) if (channels[i].id) channels[i].silent = 1, drop(&channels[i].in);
}
static void tell_command(struct channel *c, uint8_t type, size_t n) {
    uint16_t *both = (uint16_t *)input;
    struct size size;
    if (type == 'C') c->closing = 1, feed(c);
    if (type == 'B') abandon(c);
    if (type == 'K' && n == 1 && !c->ended) call(KILL, -c->pid, *input, 0, 0, 0);
    if (type == 'Z' && n == 4 && c->terminal && pair(both[0], both[1], &size)) call(IOCTL, c->out, 0x5414, (long)&size, 0, 0);
    if (type == 'W' && n == 4) c->credit += *(uint32_t *)input;
}
static int get_header(struct header *h) {
    uint8_t *at = (uint8_t *)h;
    if (!get(at, sizeof *h)) return 0;
    while (!h->type) {
        size_t n = 1;
        while (n < sizeof *h && !at[n]) n++;
        memcpy(at, at + n, sizeof *h - n);
        if (!get(at + sizeof *h - n, n)) return 0;
    }
    return 1;
}
static void take_frame(void) {
    static uint8_t results[256];
    struct header h;
    if (!get_header(&h)) { lose_host(); return; }
    if (h.type == 'T' || h.length > MAX) {
        if (!(h.type == 'T' ? take_input(find(h.channel), h.length) : skip(h.length))) lose_host();
        return;
    }
    if (!get(input, h.length)) { lose_host(); return; }
    size_t echoed = h.length > PIECE - sizeof h ? PIECE - sizeof h : h.length;
    struct channel *c = find(h.channel);
    if (c) tell_command(c, h.type, h.length);
    else if (h.type == 'S' && h.channel) start(h.channel, input, h.length);
    else if (h.type == 'R') { release_all(); frame('R', 0, input, echoed); }
    else if (h.type == 'H') frame('H', 0, input, echoed);
    else if (h.type == 'I') frame('I', 0, results, identity(input, h.length, results, sizeof results));
}

/* One round: wait for the host or a command, and do what is to be done. A port that nobody at the host is connected to reports a
 * hang-up at every look; a signal tells of the next one. After a pause the next command's process is made. */
static void round(void) {
    struct pollfd p[2 + 3 * CHANNELS] = { { away ? news : port, POLLIN, 0 }, { children, POLLIN, 0 } };
    struct timespec moment = { away ? 1 : 0, away ? 0 : 20000000 };
    int count = 2, idle = !next.pid;
    for (struct channel *c = channels; c < channels + CHANNELS; c++) {
        if (!c->id) continue;
        idle = 0;
        int open = c->silent || c->credit;
        p[count++] = (struct pollfd){ c->waiting ? c->in : -1, POLLOUT, 0 };
        p[count++] = (struct pollfd){ open ? c->out : -1, POLLIN, 0 };
        p[count++] = (struct pollfd){ open ? c->err : -1, POLLIN, 0 };
    }
    if (!call(PPOLL, (long)p, count, idle ? (long)&moment : 0, 0, 8)) { prepare(); return; }
    count = 2;
    for (struct channel *c = channels; c < channels + CHANNELS; c++) {
        if (!c->id) continue;
        if (p[count++].revents) feed(c);
        if (p[count++].revents) forward(c, &c->out, 'O');
        if (p[count++].revents) forward(c, &c->err, 'E');
    }
    if (p[1].revents) reap();
    for (struct channel *c = channels; c < channels + CHANNELS; c++) if (c->id && c->ended) finish(c);
    if (away) { if (p[0].revents) { call(READ, news, (long)body, 128, 0, 0); away = 0; } }
    else if (p[0].revents & POLLIN) take_frame();
    else if (p[0].revents) lose_host();
}

static int signals(int which) {
    uint64_t set = BIT(which);
    call(SIGPROCMASK, 0, (long)&set, 0, 8, 0);
    return (int)call(SIGNALFD4, -1, (long)&set, 8, O_NONBLOCK | O_CLOEXEC, 0);
}
__attribute__((used)) void begin(long *stack) {
    char **argv = (char **)(stack + 1);
    uint64_t set = BIT(SIGPIPE);
    call(SIGPROCMASK, 0, (long)&set, 0, 8, 0);
    children = signals(SIGCHLD);
    news = signals(SIGIO);
    call(CHDIR, (long)"/", 0, 0, 0, 0);
    port = stack[0] > 1 ? (int)call(OPENAT, AT_FDCWD, (long)argv[1], O_RDWR | O_NONBLOCK | O_CLOEXEC, 0, 0) : -1;
    if (port < 0) call(EXIT, 1, 0, 0, 0, 0);
    call(FCNTL, port, F_SETOWN, call(GETPID, 0, 0, 0, 0, 0), 0, 0);
    call(FCNTL, port, F_SETFL, O_NONBLOCK | O_ASYNC, 0, 0);
    frame('N', 0, 0, 0);
    for (;;) round();
}
