/* Becomes a command when somebody at the host opens the other end of a virtio-serial port, and sleeps until then.
 *
 * usage: attended PORT PROGRAM [ARGUMENT…]
 *
 * The guest agent looks ten times a second whether somebody is there; a machine nobody talks to has better things to do.
 */
#include "linux.h"

__attribute__((used)) void begin(long *stack) {
    char **argv = (char **)(stack + 1), **environment = argv + stack[0] + 1;
    uint64_t set = BIT(SIGIO), none = 0;
    if (stack[0] < 3) call(EXIT, 2, 0, 0, 0, 0);
    call(SIGPROCMASK, 0, (long)&set, 0, 8, 0);
    int port = (int)call(OPENAT, AT_FDCWD, (long)argv[1], O_RDWR | O_NONBLOCK | O_CLOEXEC, 0, 0);
    if (port < 0) call(EXIT, 1, 0, 0, 0, 0);
    call(FCNTL, port, F_SETOWN, call(GETPID, 0, 0, 0, 0, 0), 0, 0);
    call(FCNTL, port, F_SETFL, O_NONBLOCK | O_ASYNC, 0, 0);
    for (;;) {
        struct pollfd p = { port, POLLOUT, 0 };
        struct timespec now = { 0, 0 }, minute = { 60, 0 };
        call(PPOLL, (long)&p, 1, (long)&now, 0, 8);
        if (!(p.revents & POLLHUP)) break;
        call(SIGTIMEDWAIT, (long)&set, 0, (long)&minute, 8, 0);
    }
    call(CLOSE, port, 0, 0, 0, 0);
    call(SIGPROCMASK, 2, (long)&none, 0, 8, 0);
    call(EXECVE, (long)argv[2], (long)(argv + 2), (long)environment, 0, 0);
    call(EXIT, 127, 0, 0, 0, 0);
}
