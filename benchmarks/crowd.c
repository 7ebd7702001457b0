/* A crowd of real processes, cloned straight into their cgroups; every stride-th wakes once a second.
 *
 *   crowd STRIDE BURN_MICROSECONDS < lines "COUNT CGROUP_DIRECTORY"
 *
 * Prints the pid of each active process, then "ready". An empty line on stdin, or its end, ends all of them.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* For its first seconds an active process works five times as hard, so that the exporter soon knows it. */
enum { EAGER_WAKES = 40, EAGERNESS = 5 };

static void act(long burn_us, long phase_us) {
    struct timespec next, now;
    clock_gettime(CLOCK_MONOTONIC, &next);
    next.tv_nsec = phase_us * 1000;
    for (long wake = 0;; wake++) {
        long wanted = wake < EAGER_WAKES ? burn_us * EAGERNESS : burn_us;
        next.tv_sec++;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
        long began = -1, used = 0;
        while (used < wanted) {
            clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
            long us = now.tv_sec * 1000000 + now.tv_nsec / 1000;
            if (began < 0) began = us;
            used = us - began;
        }
    }
}

int main(int argc, char **argv) {
    long stride = argc > 1 ? atol(argv[1]) : 10, burn_us = argc > 2 ? atol(argv[2]) : 200;
    /* One in `stride` is active: of all processes in turn, or, packed, all processes of one group in `stride`. */
    long packed = argc > 3 ? atol(argv[3]) : 0, groups = 0;
    long count, total = 0, room = 1024;
    pid_t *pids = malloc(room * sizeof *pids), self = getpid();
    char line[4096], path[4096];
    while (fgets(line, sizeof line, stdin) && sscanf(line, "%ld %4095s", &count, path) == 2) {
        int group = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (group < 0) { perror(path); return 1; }
        for (long i = 0; i < count; i++, total++) {
            long active = (packed ? groups : total) % stride == 0;
            if (total == room) pids = realloc(pids, (room *= 2) * sizeof *pids);
            struct clone_args args = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = group};
            pid_t pid = syscall(SYS_clone3, &args, sizeof args);
            if (pid < 0) { perror("clone3"); return 1; }
            if (pid == 0) {
                prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (getppid() != self) _exit(0);
                if (active) act(burn_us, (total * 7919) % 1000000);
                for (;;) pause();
            }
            pids[total] = pid;
            if (active) printf("%d\n", pid);
        }
        close(group);
        groups++;
    }
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) && line[0] != '\n') {}
    for (long i = 0; i < total; i++) kill(pids[i], SIGKILL);
    while (wait(NULL) > 0) {}
    return 0;
}
