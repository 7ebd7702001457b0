/* A worker that burns CPU in its cgroup and keeps account of it: the truth that charged joules are compared with.
 *
 *   worker [WORD... --] PAGE SLOT CGROUP MODE SECONDS A B SEED
 *
 * The words are what the process looks like on its command line.
 *
 * Adds CPU nanoseconds to slot SLOT (int64) of the mapped file PAGE, from its own CLOCK_PROCESS_CPUTIME_ID while it
 * runs and from wait4's rusage for its children. Says "ready" when it is in its cgroup, starts when a line comes on
 * stdin, says "done" after SECONDS, and then sleeps until it is killed.
 *
 *   duty   A: share of one CPU, in rounds of B ms          burst  busy for A..B ms, asleep for as long again, random
 *   storm  children one after the other that live A..B ms of CPU, at half a CPU          sleep  does nothing
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

static _Atomic int64_t *slot;
static int64_t reported; /* CPU nanoseconds of this process that are in the slot already */

static int64_t ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void report(void) {
    int64_t used = ns(CLOCK_PROCESS_CPUTIME_ID);
    atomic_fetch_add(slot, used - reported);
    reported = used;
}

static void burn(int64_t nanoseconds) {
    int64_t until = ns(CLOCK_PROCESS_CPUTIME_ID) + nanoseconds;
    do {
        for (volatile int i = 0; i < 3000; i++) {}
        report();
    } while (reported < until);
}

static void rest(int64_t nanoseconds) {
    if (nanoseconds <= 0) return;
    struct timespec pause = {nanoseconds / 1000000000, nanoseconds % 1000000000};
    report();
    nanosleep(&pause, NULL);
}

static int64_t between(double low_ms, double high_ms) {
    return (int64_t)((low_ms + (high_ms - low_ms) * drand48()) * 1e6);
}

/* What a child says of itself is corrected by what the kernel says of it once it is gone. */
static void one_child(int64_t life) {
    int64_t before = atomic_load(slot), said;
    int pipes[2];
    if (pipe(pipes)) exit(1);
    report();
    pid_t pid = fork();
    if (pid < 0) { perror("fork"); exit(1); }
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        reported = 0;
        burn(life);
        said = reported;
        if (write(pipes[1], &said, sizeof said) < 0) _exit(1);
        _exit(0);
    }
    struct rusage used;
    close(pipes[1]);
    if (read(pipes[0], &said, sizeof said) != sizeof said) said = 0;
    close(pipes[0]);
    wait4(pid, NULL, 0, &used);
    int64_t truth = (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000000LL +
                    (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1000LL;
    atomic_fetch_add(slot, truth - said);
    report();
    rest(atomic_load(slot) - before);
}

int main(int argc, char **argv) {
    if (argc > 9) {
        argv += argc - 9;
        argc = 9;
    }
    if (argc != 9) { fputs("usage: see the head of worker.c\n", stderr); return 2; }
    int page = open(argv[1], O_RDWR), procs;
    char path[4096], *mode = argv[4];
    double seconds = atof(argv[5]), a = atof(argv[6]), b = atof(argv[7]);
    srand48(atol(argv[8]));
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    _Atomic int64_t *slots = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, page, 0);
    snprintf(path, sizeof path, "%s/cgroup.procs", argv[3]);
    procs = open(path, O_WRONLY);
    if (slots == MAP_FAILED || procs < 0 || write(procs, "0", 1) != 1) { perror(path); return 1; }
    slot = slots + atoi(argv[2]);
    reported = ns(CLOCK_PROCESS_CPUTIME_ID); /* what it used before it joined was charged elsewhere */
    puts("ready");
    fflush(stdout);
    if (read(0, path, sizeof path) <= 0) return 0;
    int64_t end = ns(CLOCK_MONOTONIC) + (int64_t)(seconds * 1e9);
    if (!strcmp(mode, "sleep")) rest(end - ns(CLOCK_MONOTONIC));
    int64_t round = (int64_t)(b * 1e6), due = ns(CLOCK_MONOTONIC) + (int64_t)(drand48() * (double)round);
    while (ns(CLOCK_MONOTONIC) < end) {
        if (!strcmp(mode, "duty")) {
            if (a < 1.0) rest(due - ns(CLOCK_MONOTONIC));
            burn((int64_t)(a * (double)round));
            due += round;
        } else if (!strcmp(mode, "burst")) {
            burn(between(a, b));
            rest(between(a, b));
        } else {
            one_child(between(a, b));
        }
    }
    puts("done");
    fflush(stdout);
    report();
    for (;;) pause();
}
