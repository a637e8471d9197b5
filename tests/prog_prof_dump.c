/* prog_prof_dump.c MODE - a program that allocates, and ends in one of several ways; for
 * test_prof_dump.c, which includes it to be one that the hook is linked into. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void *volatile kept_block[100];

__attribute__((noinline)) static void allocates_for_the_profile(void)
{
    for (int i = 0; i < 100; i++)
        kept_block[i] = malloc(1000);
}

__attribute__((noinline)) static void allocates_in_the_child(void)
{
    for (int i = 0; i < 100; i++)
        kept_block[i] = malloc(2000);
}

/* Says "ready", and waits for a byte or the end of the input, whatever interrupts it. */
static void wait_for_word(void)
{
    char c;
    if (write(STDOUT_FILENO, "ready\n", 6) != 6)
        _exit(9);
    while (read(STDIN_FILENO, &c, 1) < 0)
        ;
}

static void forks(void)
{
    pid_t pid = fork();
    if (pid < 0)
        exit(9);
    if (pid == 0) {
        allocates_in_the_child();
        dprintf(STDOUT_FILENO, "%ld\n", (long)getpid());
        exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    if (status != 0)
        exit(8);
}

static void *stays_a_little(void *unused)
{
    usleep(200000);
    return unused;
}

/* The first thread leaves, then the other. */
static void threads_leave(void)
{
    pthread_t other;
    if (pthread_create(&other, NULL, stays_a_little, NULL) != 0)
        exit(9);
    pthread_exit(NULL);
}

static int dump_program(const char *mode)
{
    allocates_for_the_profile();
    if (strcmp(mode, "exit") == 0)
        exit(7);
    if (strcmp(mode, "_exit") == 0)
        _exit(7);
    if (strcmp(mode, "abort") == 0)
        abort();
    if (strcmp(mode, "kill") == 0)
        raise(SIGTERM);
    if (strcmp(mode, "chdir") == 0 && chdir("/") != 0)
        return 9;
    if (strcmp(mode, "closed") == 0) {
        close(STDERR_FILENO);
        close(STDOUT_FILENO);
    }
    if (strcmp(mode, "fork") == 0)
        forks();
    if (strcmp(mode, "threads") == 0)
        threads_leave();
    if (strcmp(mode, "wait") == 0)
        wait_for_word();
    if (strcmp(mode, "child-waits") == 0) {
        pid_t pid = fork();
        if (pid == 0) {
            allocates_in_the_child();
            dprintf(STDOUT_FILENO, "%ld\n", (long)getpid());
            wait_for_word();
            exit(0);
        }
        waitpid(pid, NULL, 0);
    }
    return 0;
}

#ifndef INCLUDED_BY_A_TEST
int main(int argc, char **argv)
{
    return dump_program(argc > 1 ? argv[1] : "return");
}
#endif
