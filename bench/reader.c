/* reader DEVICE COUNT: reads COUNT random blocks of 4 KiB past the cache and prints the median and 99th percentile in µs. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096, SPAN = 8192 };

static int by_size(const void *a, const void *b)
{
    long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **words)
{
    int device = open(words[1], O_RDONLY | O_DIRECT), count = argc > 2 ? atoi(words[2]) : 2000;
    void *block = aligned_alloc(BLOCK, BLOCK);
    long *spent = calloc(count, sizeof *spent);

    srandom(1);
    for (int i = 0; i < count; i++) {
        struct timespec began, ended;
        clock_gettime(CLOCK_MONOTONIC, &began);
        if (pread(device, block, BLOCK, (off_t)(random() % SPAN) * BLOCK) != BLOCK)
            return perror("read"), 1;
        clock_gettime(CLOCK_MONOTONIC, &ended);
        spent[i] = (ended.tv_sec - began.tv_sec) * 1000000L + (ended.tv_nsec - began.tv_nsec) / 1000;
    }
    qsort(spent, count, sizeof *spent, by_size);
    printf("%ld %ld\n", spent[count / 2], spent[count * 99 / 100]);
    return 0;
}
