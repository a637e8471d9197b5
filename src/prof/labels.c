/* labels.c - names of threads, each once: a list that only grows, newest first.
 *
 * A program has few of them, and a thread asks seldom (sampler.c), so a list will do. No lock: a
 * name is added by a compare-and-swap of the head, and who loses that looks again.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>

#include "prof/mem.h"
#include "prof/sampler.h"

#define NAME_ROOM   16   /* the kernel's */
#define MOST_LABELS 1024 /* a program that names each thread anew gets no more than these */

typedef struct label {
    const struct label *older;
    uint32_t id; /* from 1 */
    char name[NAME_ROOM];
} label;

static _Atomic(const label *) newest;

const char *memkit__label_name(uint32_t id)
{
    for (const label *l = atomic_load(&newest); id != 0 && l != NULL; l = l->older)
        if (l->id == id)
            return l->name;
    return NULL;
}

static uint32_t note(const char name[NAME_ROOM])
{
    const label *head = atomic_load(&newest);
    label *made = NULL;
    for (;;) {
        for (const label *l = head; l != NULL; l = l->older)
            if (strcmp(l->name, name) == 0)
                return l->id;
        uint32_t id = head != NULL ? head->id + 1 : 1;
        if (id > MOST_LABELS || (made == NULL && (made = memkit__kept_alloc(sizeof *made)) == NULL))
            return 0;
        made->older = head;
        made->id = id;
        memcpy(made->name, name, NAME_ROOM);
        if (atomic_compare_exchange_strong(&newest, &head, made))
            return id;
    }
}

uint32_t memkit__label_here(void)
{
    int saved = errno;
    char name[NAME_ROOM] = "";
    uint32_t id = prctl(PR_GET_NAME, name) == 0 && name[0] != '\0' ? note(name) : 0;
    errno = saved;
    return id;
}
