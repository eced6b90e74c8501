/* Where a file of the guest has data, which no tool of a small guest tells. Without a libc, for every Linux guest.
 *   extents PATH        ends with 0 when the file has holes, else with 1
 *   extents PATH UNIT   prints a line for each stretch of data, "SKIP COUNT" in units of so many bytes, at most 64 of them:
 *                       the smallest holes between them count as data where there would be more
 */
#include "linux.h"

#if defined(__x86_64__)
enum { LSEEK = 8 };
#else
enum { LSEEK = 62 };
#endif
enum { SEEK_END = 2, SEEK_DATA = 3, SEEK_HOLE = 4, MOST = 64 };

static char text[8192];
static size_t used;

static void number(unsigned long value, char after) {
    char digits[20];
    size_t n = 0;
    do digits[n++] = (char)('0' + value % 10);
    while (value /= 10);
    while (n) text[used++] = digits[--n];
    text[used++] = after;
}
/* One pass over the file, written down: how many stretches, when holes of up to `gap` units count as data. */
static int pass(long file, long unit, long gap) {
    long at = 0, data, begin = -1, end = 0;
    int count = 0;
    used = 0;
    while ((data = call(LSEEK, file, at, SEEK_DATA, 0, 0)) >= at && count <= MOST) {
        at = call(LSEEK, file, data, SEEK_HOLE, 0, 0);
        if (at <= data) break;
        long first = data / unit, last = (at + unit - 1) / unit;
        if (begin >= 0 && first - end <= gap) { end = last; continue; }
        if (begin >= 0) { number((unsigned long)begin, ' '); number((unsigned long)(end - begin), '\n'); }
        begin = first;
        end = last;
        count++;
    }
    if (begin >= 0 && count <= MOST) { number((unsigned long)begin, ' '); number((unsigned long)(end - begin), '\n'); }
    return count;
}
__attribute__((noreturn, used)) void begin(long *stack) {
    char **words = (char **)(stack + 1);
    long unit = 0, gap = 16, status = 2;
    if (*stack >= 2) {
        long file = call(OPENAT, AT_FDCWD, (long)words[1], O_CLOEXEC, 0, 0);
        if (file >= 0 && *stack == 2) status = call(LSEEK, file, 0, SEEK_HOLE, 0, 0) < call(LSEEK, file, 0, SEEK_END, 0, 0) ? 0 : 1;
        for (char *c = *stack == 3 ? words[2] : ""; *c >= '0' && *c <= '9'; c++) unit = unit * 10 + *c - '0';
        if (file >= 0 && unit > 0) {
            while (pass(file, unit, gap) > MOST) gap *= 4;
            status = call(WRITE, 1, (long)text, (long)used, 0, 0) == (long)used ? 0 : 2;
        }
    }
    for (;;) call(EXIT, status, 0, 0, 0, 0);
}
