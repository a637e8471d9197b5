/* quiet.c - see quiet.h. The thread counts in a block of counters that is in no sum and at which no
 * sample is ever due (counters.c), so that malloc's path needs no test for it.
 *
 * A block that was allocated quietly must be freed quietly, by any thread: freed otherwise it would
 * be counted as a free of what was never allocated. The other way round, it would stay counted as
 * in use. So what outlives memkit__quiet_end is only ever touched by code that is quiet, too. */
#include "prof/quiet.h"

#include "hook/counters.h"

void memkit__quiet_begin(void)
{
    memkit__count_aside();
}

void memkit__quiet_end(void)
{
    memkit__count_again();
}
