/* A RAPL package whose joules follow from the CPU time that workers report: idle watts, and watts per core for each.
 *
 *   meter PAGE ENERGY_FILE RANGE_MICROJOULES IDLE_WATTS WATTS_PER_CORE...
 *
 * Slot n of the mapped file PAGE (int64 nanoseconds) burns the n-th WATTS_PER_CORE. ENERGY_FILE gets one line of
 * fixed length every 2 ms in a single pwrite, so that no reader sees a part of it; it wraps at RANGE_MICROJOULES.
 * Answers each line on stdin with the joules it has written so far, unwrapped.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv) {
    if (argc < 5) return 2;
    int page = open(argv[1], O_RDONLY), file = open(argv[2], O_WRONLY | O_CREAT, 0644), parts = argc - 5;
    int64_t range = atoll(argv[3]);
    double idle = atof(argv[4]), joules = 0;
    const _Atomic int64_t *slots = mmap(NULL, 4096, PROT_READ, MAP_SHARED, page, 0);
    if (slots == MAP_FAILED || file < 0) { perror("meter"); return 1; }
    setpriority(PRIO_PROCESS, 0, -20); /* hardware is never late; without the right to, it is a little */
    struct timespec start, now;
    struct pollfd asked = {.fd = 0, .events = POLLIN};
    char line[32], request[64];
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (;;) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        joules = idle * ((double)(now.tv_sec - start.tv_sec) + (double)(now.tv_nsec - start.tv_nsec) * 1e-9);
        for (int i = 0; i < parts; i++) joules += atof(argv[5 + i]) * (double)atomic_load(&slots[i]) * 1e-9;
        snprintf(line, sizeof line, "%018lld\n", (long long)((int64_t)(joules * 1e6) % range));
        if (pwrite(file, line, 19, 0) != 19) return 1;
        if (poll(&asked, 1, 2) > 0) {
            if (read(0, request, sizeof request) <= 0) return 0;
            printf("%.6f\n", joules);
            fflush(stdout);
        }
    }
}
