/* lib_unwind_plugin.h - a library to load and unload: lib_unwind_a.c and lib_unwind_b.c are it with
 * frames of different sizes, and so of the same layout and size of file. */
#define EXPORTED __attribute__((visibility("default"), noinline))

typedef int (*callback)(int);

EXPORTED int plugin_calls(callback fn, int n);
EXPORTED int plugin_which(void);

EXPORTED int plugin_calls(callback fn, int n)
{
    char room[FRAME_BYTES];
    __asm__ volatile("" ::"r"(room) : "memory");
    int result = fn(n);
    __asm__ volatile("" ::"r"(room) : "memory");
    return result + 1;
}

EXPORTED int plugin_which(void)
{
    return FRAME_BYTES;
}
