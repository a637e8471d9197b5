/* support.c - see support.h. */
#include "support.h"

int faults;
char last_fault[256];

static void catch_fault(const char *message)
{
    faults++;
    snprintf(last_fault, sizeof last_fault, "%s", message);
}

unsigned model_steps(unsigned wanted)
{
    unsigned part = getenv("MEMKIT_SLOW") != NULL ? 100 : SANITIZED ? 10 : 1;
    unsigned steps = wanted / part > 10 ? wanted / part : 10;
    print_message("%u steps\n", steps);
    return steps;
}

void catch_faults(void)
{
    faults = 0;
    memkit_set_fault_handler(catch_fault);
}
