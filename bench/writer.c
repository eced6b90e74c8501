/* Writes numbered blocks to disks for ever, each flushed before the next; the guest's side of bench/snapshots.py.
 *
 * writer STATE DEVICE...   Number N goes to block N modulo 1024 of every device in turn, then fdatasync. STATE always holds
 * one line: the last number flushed on all devices; of the writes and flushes since SIGUSR1, in microseconds, the longest, the
 * 99th percentile (to 250), their sum; and their count.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096, BLOCKS = 1024, DEVICES = 8, STEP = 250, STEPS = 4000 };

static volatile sig_atomic_t forget;

static void on_signal(int number)
{
    (void)number;
    forget = 1;
}

static long microseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000L + now.tv_nsec / 1000;
}

static long percentile(const long *by_step, long writes)
{
    long above = writes / 100, step = STEPS - 1;
    while (step > 0 && (above -= by_step[step]) >= 0)
        step--;
    return (step + 1) * STEP;
}

int main(int count, char **words)
{
    static long by_step[STEPS];
    int devices[DEVICES], used = 0;
    unsigned long long *block = aligned_alloc(BLOCK, BLOCK);
    int state = open(words[1], O_RDWR | O_CREAT | O_TRUNC, 0644);
    long longest = 0, sum = 0, writes = 0;

    signal(SIGUSR1, on_signal);
    for (int i = 2; i < count && used < DEVICES; i++)
        if ((devices[used++] = open(words[i], O_RDWR | O_DIRECT)) < 0)
            return perror(words[i]), 1;
    for (unsigned long long number = 1;; number++) {
        char line[128];
        for (int i = 0; i < BLOCK / 8; i++)
            block[i] = number;
        for (int i = 0; i < used; i++) {
            long began = microseconds(), spent;
            if (pwrite(devices[i], block, BLOCK, (off_t)(number % BLOCKS) * BLOCK) != BLOCK || fdatasync(devices[i]))
                return perror("write"), 1;
            spent = microseconds() - began;
            if (forget)
                forget = 0, longest = sum = writes = 0, memset(by_step, 0, sizeof by_step);
            longest = spent > longest ? spent : longest;
            sum += spent, writes++, by_step[spent / STEP < STEPS ? spent / STEP : STEPS - 1]++;
        }
        memset(line, ' ', sizeof line);
        line[snprintf(line, sizeof line, "%llu %ld %ld %ld %ld", number, longest, percentile(by_step, writes), sum, writes)] = ' ';
        line[sizeof line - 1] = '\n';
        if (pwrite(state, line, sizeof line, 0) != sizeof line)
            return 1;
    }
}
