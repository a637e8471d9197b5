/* lib_unwind_a.c - see lib_unwind_plugin.h. */
#define FRAME_BYTES 1024
#include "lib_unwind_plugin.h"
