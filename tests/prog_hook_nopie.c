/* prog_hook_nopie.c - prog_hook_family.c as an executable that is linked with -no-pie: there the
 * address of malloc is the program's own stub, and weak references of libraries resolve otherwise.
 */
#include "prog_hook_family.c"
