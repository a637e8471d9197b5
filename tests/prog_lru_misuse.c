/* prog_lru_misuse.c - reads of the cache's memory that nobody may make, one a run; `fine` makes
 * those that everybody may.
 *
 *     prog_lru_misuse
 * fine|released|deleted|evicted|told|past-end|past-end-ttl|large|large-end|cleared
 *
 * In a build without ASan or MEMKIT_TRACK each ends well: the bytes are there. test_lru_track.c
 * builds it with either, and wants the tool to speak.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <memkit/memkit.h>

static memkit_lru *cache;
static const char *kept; /* what a callback was shown */
static char large[100000];

static void die(const char *what)
{
    perror(what);
    exit(2);
}

static void keep(void *arg, const void *key, size_t klen, const void *val, size_t vlen,
                 memkit_lru_reason reason)
{
    (void)arg;
    (void)reason;
    if (klen + vlen > 0 && *(const char *)key + *(const char *)val != 0)
        kept = val;
}

static void set(const char *key, const void *val, size_t vlen)
{
    if (memkit_lru_set(cache, key, strlen(key), val, vlen) != 0)
        die("memkit_lru_set");
}

static memkit_lru_ref get(const char *key)
{
    memkit_lru_ref ref;
    if (memkit_lru_get(cache, key, strlen(key), &ref) != 1)
        die("memkit_lru_get");
    return ref;
}

static int touch(const void *p)
{
    return *(const volatile char *)p;
}

static int visit(void *arg, const void *key, size_t klen, const void *val, size_t vlen)
{
    for (size_t i = 0; i < vlen; i++)
        *(int *)arg += touch((const char *)val + i);
    return klen > 0 ? 0 * touch(key) : 0;
}

/* Every way to a value, each byte of it. */
static int fine(void)
{
    int sum = 0;
    char key[16], copy[300];
    memkit_buf *b = memkit_buf_new(0);
    for (int i = 0; i < 2000; i++) {
        int n = snprintf(key, sizeof key, "%d", i % 300);
        set(key, large, i % 40 == 7 ? sizeof large : (size_t)i % 299);
        memkit_lru_ref ref = get(key), second = get(key);
        memkit_lru_release(cache, &ref);
        for (size_t k = 0; k < second.len; k++) /* still pinned */
            sum += touch((const char *)second.data + k);
        size_t len;
        if (memkit_lru_get_into(cache, key, (size_t)n, copy, sizeof copy, &len) != 1)
            die("get_into");
        for (size_t k = 0; k < second.len; k++) /* and what has copied has not hidden it */
            sum += touch((const char *)second.data + k);
        memkit_buf_reset(b);
        if (memkit_lru_get_buf(cache, key, (size_t)n, b) != 1)
            die("get_buf");
        memkit_lru_del(cache, key, (size_t)n);
        set(key, second.data, second.len);
        memkit_lru_release(cache, &second);
        if (i % 100 == 0)
            memkit_lru_each(cache, visit, &sum);
        if (i % 400 == 0)
            memkit_lru_resize(cache, 0, (size_t)(i % 800 == 0 ? 1 << 20 : 2 << 20));
        if (i == 1000)
            memkit_lru_clear(cache);
    }
    memkit_buf_free(b);
    return sum;
}

int main(int argc, char **argv)
{
    const char *what = argc == 2 ? argv[1] : "";
    memset(large, 'x', sizeof large);
    bool told = strcmp(what, "told") == 0;
    cache = memkit_lru_new(&(memkit_lru_opts){.max_bytes = 1 << 20,
                                              .ttl_ms = strstr(what, "ttl") ? 1000000 : 0,
                                              .on_evict = told ? keep : NULL});
    if (cache == NULL)
        die("memkit_lru_new");
    if (strcmp(what, "fine") == 0) {
        int sum = fine();
        memkit_lru_free(cache);
        return sum == 0; /* so that nothing of it is left out */
    }
    bool big = strncmp(what, "large", 5) == 0;
    set("k", big ? large : "thirteen byte", big ? sizeof large - 5 : 13);
    memkit_lru_ref ref = get("k"), copy = ref;
    int seen = touch(ref.data) + touch((const char *)ref.data + ref.len - 1);
    if (strstr(what, "end") != NULL) {
        seen += touch((const char *)ref.data + ref.len);
        memkit_lru_release(cache, &ref);
    } else {
        memkit_lru_release(cache, &ref);
        if (strcmp(what, "deleted") == 0 || told)
            memkit_lru_del(cache, "k", 1);
        else if (strcmp(what, "evicted") == 0)
            for (int i = 0; i < 20; i++)
                set((char[]){(char)('a' + i), 0}, large, sizeof large);
        else if (strcmp(what, "cleared") == 0)
            memkit_lru_clear(cache);
        else if (strcmp(what, "released") != 0 && strcmp(what, "large") != 0)
            die("prog_lru_misuse: no such misuse");
        seen += touch(told ? kept : copy.data);
    }
    memkit_lru_free(cache);
    return seen == 0;
}
