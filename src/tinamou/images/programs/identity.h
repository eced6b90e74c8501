/* What makes a fork a machine of its own: records of a type, a zero byte, a length (16 bits) and their bytes.
 *   e entropy   t seconds, nanoseconds   h host name   m old and new MAC address   f mode, path, content   s signal, pid file
 */
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
        if (same(r.address.bytes, data + 6, 6)) result = 0; /* it was told twice */
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
/* Does what the records ask, and writes one errno for each to ``results``; how many. */
static size_t identity(uint8_t *data, size_t n, uint8_t *results, size_t room) {
    size_t count = 0;
    while (n >= 4 && count < room) {
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
    return count;
}
