/* lib_toggle.c - preloaded beside libmemkit-prof, for a program that calls nothing of it: a thread
 * that stops, starts and changes the rate of the profiler 100 times while the program works.
 *
 *     MEMKIT_TOGGLE=PREFIX    begins when the file PREFIX.go appears; then writes PREFIX.done: how
 *                             many stops, starts, changes of the rate were done, and all of them
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <memkit/prof.h>

#define TIMES 100

static struct {
    int (*start)(const memkit_prof_opts *opts);
    int (*stop)(void);
    int (*set_rate)(size_t sample_bytes);
    int (*running)(void);
} prof;

static char prefix[4096]; /* a copy: programs write over their environment to set their title */

static void find(const char *name, void *into)
{
    void *fn = dlsym(RTLD_DEFAULT, name);
    memcpy(into, &fn, sizeof fn);
}

static void nap(long microseconds)
{
    nanosleep(&(struct timespec){0, microseconds * 1000}, NULL);
}

static void *toggle(void *unused)
{
    static const size_t rates[] = {1, 524288, 4096};
    char path[sizeof prefix + 10];
    int stops = 0, starts = 0, changes = 0;
    (void)unused;
    snprintf(path, sizeof path, "%s.go", prefix);
    for (int i = 0; access(path, F_OK) != 0 && i < 60000; i++)
        nap(1000);
    for (int i = 0; i < TIMES; i++) {
        memkit_prof_opts opts = {.sample_bytes = rates[i % 3]};
        stops += prof.stop() == 0 && !prof.running();
        nap(2000);
        starts += prof.start(&opts) == 0 && prof.running();
        nap(3000);
        changes += prof.set_rate(rates[(i + 1) % 3]) == 0;
        nap(2000);
    }
    snprintf(path, sizeof path, "%s.done", prefix);
    FILE *f = fopen(path, "w");
    if (f != NULL) {
        fprintf(f, "%d %d %d of %d\n", stops, starts, changes, TIMES);
        fclose(f);
    }
    return NULL;
}

/* The program's signals are for its own threads. */
__attribute__((constructor)) static void begin(void)
{
    pthread_t thread;
    sigset_t all, before;
    const char *value = getenv("MEMKIT_TOGGLE");
    if (value == NULL || strlen(value) + 10 > sizeof prefix)
        return;
    strcpy(prefix, value);
    find("memkit_prof_start", &prof.start);
    find("memkit_prof_stop", &prof.stop);
    find("memkit_prof_set_rate", &prof.set_rate);
    find("memkit_prof_running", &prof.running);
    if (prof.start == NULL || prof.stop == NULL || prof.set_rate == NULL || prof.running == NULL)
        return;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (pthread_create(&thread, NULL, toggle, NULL) == 0)
        pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}
