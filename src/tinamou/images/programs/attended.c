/* Starts the guest agent when somebody at the host opens the other end of its virtio-serial port, and passes on what both say.
 *
 * usage: attended PORT SOCKET PROGRAM [ARGUMENT…]        PROGRAM listens on the unix socket SOCKET
 *
 * Left to itself the agent looks ten times a second whether somebody is there; a machine nobody talks to has better to do.
 */
#include "linux.h"

struct address { uint16_t family; char path[108]; };

static char bytes[4096];
static long agent;

static int attended(int port) {
    struct pollfd p = { port, POLLOUT, 0 };
    struct timespec now = { 0, 0 };
    call(PPOLL, (long)&p, 1, (long)&now, 0, 8);
    return !(p.revents & POLLHUP);
}
static void start(char **argv, char **environment) {
    uint64_t none = 0;
    if (agent > 0 && call(WAIT4, agent, 0, 1, 0, 0) == 0) return;
    agent = call(CLONE, SIGCHLD, 0, 0, 0, 0);
    if (agent != 0) return;
    call(SIGPROCMASK, 2, (long)&none, 0, 8, 0);
    call(EXECVE, (long)argv[0], (long)argv, (long)environment, 0, 0);
    call(EXIT, 127, 0, 0, 0, 0);
}
/* A connection to the agent, which is started where it does not run; an error when there is none after five seconds. */
static long reach(const char *path, char **argv, char **environment) {
    struct address to = { 1, { 0 } };
    struct timespec moment = { 0, 5000000 };
    long fd = -EINVAL;
    memcpy(to.path, path, length_of(path));
    for (int tries = 0; tries < 1000; tries++) {
        fd = call(SOCKET, 1, 1 | O_CLOEXEC, 0, 0, 0);
        if (fd < 0 || call(CONNECT, fd, (long)&to, sizeof to, 0, 0) == 0) return fd;
        call(CLOSE, fd, 0, 0, 0, 0);
        fd = -EAGAIN;
        start(argv, environment);
        call(NANOSLEEP, (long)&moment, 0, 0, 0, 0);
    }
    return fd;
}
/* Passes on what can be read; 0 when one of both has gone. */
static int pass(int from, int to) {
    long n = call(READ, from, (long)bytes, sizeof bytes, 0, 0);
    if (n == -EAGAIN || n == -EINTR) return 1;
    for (char *at = bytes; n > 0;) {
        long done = call(WRITE, to, (long)at, n, 0, 0);
        if (done > 0) { at += done; n -= done; if (!n) return 1; continue; }
        if (done != -EAGAIN && done != -EINTR) return 0;
        struct pollfd p = { to, POLLOUT, 0 };
        call(PPOLL, (long)&p, 1, 0, 0, 8);
        if (p.revents & (POLLHUP | POLLERR)) return 0;
    }
    return 0;
}

__attribute__((used)) void begin(long *stack) {
    char **argv = (char **)(stack + 1), **environment = argv + stack[0] + 1;
    uint64_t set = BIT(SIGIO) | BIT(SIGPIPE);
    if (stack[0] < 4 || length_of(argv[2]) > 107) call(EXIT, 2, 0, 0, 0, 0);
    call(SIGPROCMASK, 0, (long)&set, 0, 8, 0);
    int port = (int)call(OPENAT, AT_FDCWD, (long)argv[1], O_RDWR | O_NONBLOCK | O_CLOEXEC, 0, 0);
    if (port < 0) call(EXIT, 1, 0, 0, 0, 0);
    call(FCNTL, port, F_SETOWN, call(GETPID, 0, 0, 0, 0, 0), 0, 0);
    call(FCNTL, port, F_SETFL, O_NONBLOCK | O_ASYNC, 0, 0);
    for (;;) {
        struct timespec minute = { 60, 0 };
        if (!attended(port)) { call(SIGTIMEDWAIT, (long)&set, 0, (long)&minute, 8, 0); continue; }
        int line = (int)reach(argv[2], argv + 3, environment);
        if (line < 0) continue;
        for (int both = 1; both;) {
            struct pollfd p[2] = { { port, POLLIN, 0 }, { line, POLLIN, 0 } };
            call(PPOLL, (long)p, 2, 0, 0, 8);
            if (p[0].revents & POLLIN) both = pass(port, line);
            else if (p[0].revents) both = 0;
            if (both && p[1].revents) both = pass(line, port);
        }
        call(CLOSE, line, 0, 0, 0, 0);
    }
}
