/* before.c - the service as the article's engineers found it, as a C programmer would have written
 * it: correct, simple, and expensive in every way that memkit is about.
 *
 *   - the cache is never bounded: every id that was ever seen stays;
 *   - a hit appends to the value instead of using it, so that a popular id grows without end;
 *   - every request allocates its object, its id and a fresh copy of the whole value.
 *
 * after.c is the same service mended.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <uthash.h>

#include "handler.h"

typedef struct entry {
    char *key;
    size_t key_len;
    char *value;
    size_t value_len;
    UT_hash_handle hh;
} entry;

static struct {
    pthread_mutex_t lock;
    entry *entries;
} cache = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* strdup, for bytes: an id may contain '\0'. */
static char *copy_bytes(const char *p, size_t n)
{
    char *copy = malloc(n + 1);
    if (copy != NULL) {
        memcpy(copy, p, n);
        copy[n] = '\0';
    }
    return copy;
}

static void free_entry(entry *e)
{
    free(e->key);
    free(e->value);
    free(e);
}

/* uthash's macros, and what our warnings say about them, in these three functions alone. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"

static entry *find(const char *key, size_t len)
{
    entry *e;
    HASH_FIND(hh, cache.entries, key, len, e);
    return e;
}

static void insert(entry *e)
{
    HASH_ADD_KEYPTR(hh, cache.entries, e->key, e->key_len, e);
}

static void free_all(void)
{
    entry *e, *next;
    HASH_ITER(hh, cache.entries, e, next)
    {
        HASH_DEL(cache.entries, e);
        free_entry(e);
    }
}

#pragma GCC diagnostic pop

static entry *add(const char *id, size_t len)
{
    entry *e = calloc(1, sizeof *e);
    if (e == NULL)
        return NULL;
    e->key = copy_bytes(id, len);
    e->value = copy_bytes(id, len);
    if (e->key == NULL || e->value == NULL) {
        free_entry(e);
        return NULL;
    }
    e->key_len = e->value_len = len;
    insert(e);
    return e;
}

static entry *append(entry *e, const char *id, size_t len)
{
    char *longer = realloc(e->value, e->value_len + len + 1);
    if (longer == NULL)
        return NULL;
    memcpy(longer + e->value_len, id, len);
    e->value = longer;
    e->value_len += len;
    longer[e->value_len] = '\0';
    return e;
}

int handler_init(const service_config *cfg)
{
    (void)cfg; /* the cache has no bound that CACHE_SIZE could set */
    return 0;
}

void handler_finish(void)
{
    free_all();
}

service_request *handler_begin(unsigned worker, size_t id_len)
{
    service_request *r = calloc(1, sizeof *r);
    if (r == NULL)
        return NULL;
    r->id = calloc(id_len + 1, 1);
    if (r->id == NULL) {
        free(r);
        return NULL;
    }
    r->id_len = id_len;
    r->worker = worker;
    return r;
}

int handler_process(service_request *r)
{
    pthread_mutex_lock(&cache.lock);
    entry *e = find(r->id, r->id_len);
    e = e != NULL ? append(e, r->id, r->id_len) : add(r->id, r->id_len);
    /* The value may change as soon as the lock is gone, so the answer is a copy of all of it. */
    char *answer = e != NULL ? copy_bytes(e->value, e->value_len) : NULL;
    size_t len = e != NULL ? e->value_len : 0;
    pthread_mutex_unlock(&cache.lock);
    if (answer == NULL)
        return -1;
    r->body = (service_body){.data = answer, .len = len, .release = free, .arg = answer};
    return 0;
}

void handler_end(service_request *r)
{
    free(r->id);
    free(r);
}
