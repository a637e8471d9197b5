/* lib_unwind_b.c - see lib_unwind_plugin.h. */
#define FRAME_BYTES 2048
#include "lib_unwind_plugin.h"
