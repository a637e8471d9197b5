// gbench.cc - gbench.h over google-benchmark (1.7.1 or later): all that has to be C++.
//
//   enter() -> the C function -> GBENCH_LOOP: gbench__begin ... gbench__end
//
// KeepRunningBatch(all of the iterations) is called twice: the first call starts the clock, after a
// barrier of all threads, and the second stops it, before one. The C loop between them counts down
// by itself, so nothing of the library is in it, however the library was built.
#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "gbench.h"
#include "gbench_count.h"
#include "gbench_report.h"

struct gbench {
    benchmark::internal::Benchmark *bench;
    std::string name;
    size_t args; // of each instance
};

struct gbench_state {
    benchmark::State &state;
    const gbench *bench;
    void *context;
    gbench__count count = {};
    bool begun = false, ended = false, paused = false, uncounted = false;
};

namespace {

std::vector<std::unique_ptr<gbench>> benches;
const char early[] = "GBENCH_LOOP was left before its end";
bool help_asked;

// ---- a run ------------------------------------------------------------------------------------

// After the last barrier, so that no thread is in its loop. Counters of several threads are summed,
// and so are their iterations: what is divided is exact.
void publish(gbench_state *s)
{
    using benchmark::Counter;
    if (s->state.error_occurred() || s->uncounted || !s->count.counted)
        return;
    auto &counters = s->state.counters;
    counters[gbench__allocs] = Counter(double(s->count.allocs), Counter::kAvgIterations);
    counters[gbench__bytes] = Counter(double(s->count.bytes), Counter::kAvgIterations);

    int64_t peak = s->state.thread_index() == 0 ? gbench__count_peak() : -1;
    if (peak >= 0) // one thread's word for all
        counters[gbench__peak] = Counter(double(peak));
}

// Whatever the function did or left out, the library is told of an orderly end.
void enter(benchmark::State &state, const gbench *bench, gbench_fn fn, void *context)
{
    gbench_state s = {state, bench, context};
    fn(&s);
    if (!s.begun) // the others wait for this one
        gbench__count_meet(state.threads());
    if (!s.ended)
        gbench_skip(&s, s.begun ? early : "no GBENCH_LOOP was run");
}

// A flag of the library's whose value it keeps to itself; from the environment where not given.
std::string flag(int argc, char **argv, const char *name, const char *variable)
{
    const char *set = getenv(variable);
    std::string value = set != nullptr ? set : "", start = std::string("--") + name + "=";
    for (int i = 1; i < argc; i++)
        if (strncmp(argv[i], start.c_str(), start.size()) == 0)
            value = argv[i] + start.size();
    return value;
}

// The library calls this for --help, and exits with 0; and for a value it does not know, likewise.
void usage()
{
    benchmark::PrintDefaultHelp();
    puts("          [--gbench_medians]");
    fflush(stdout);
    if (!help_asked) {
        fputs("error: a flag has a value that it cannot have\n", stderr);
        exit(2);
    }
}

int take_own_flags(int argc, char **argv)
{
    int kept = 1;
    for (int i = 1; i < argc; i++) {
        help_asked |= strcmp(argv[i], "--help") == 0;
        if (strcmp(argv[i], "--gbench_medians") == 0)
            gbench__medians_only = true;
        else
            argv[kept++] = argv[i];
    }
    argv[kept] = nullptr;
    return kept;
}

} // namespace

// ---- gbench.h ---------------------------------------------------------------------------------

gbench *gbench_add(const char *name, gbench_fn fn, void *context)
{
    benches.emplace_back(new gbench{nullptr, name, 0});
    gbench *b = benches.back().get();
    b->bench = benchmark::RegisterBenchmark(
        name, [=](benchmark::State &state) { enter(state, b, fn, context); });
    return b;
}

void gbench_add_args(gbench *b, size_t count, const int64_t *args)
{
    b->args = count; // the library's own look at an argument that is not there aborts
    b->bench->Args(std::vector<int64_t>(args, args + count));
}

void gbench_add_range(gbench *b, int64_t first, int64_t last, int multiplier)
{
    b->args = 1;
    b->bench->RangeMultiplier(multiplier)->Range(first, last);
}

void gbench_add_steps(gbench *b, int64_t first, int64_t last, int step)
{
    b->args = 1;
    b->bench->DenseRange(first, last, step);
}

void gbench_name_args(gbench *b, size_t count, const char *const *names)
{
    b->bench->ArgNames(std::vector<std::string>(names, names + count));
}

void gbench_add_threads(gbench *b, int threads)
{
    b->bench->Threads(threads);
}

void gbench_add_thread_range(gbench *b, int first, int last)
{
    b->bench->ThreadRange(first, last);
}

void gbench_fix_rounds(gbench *b, int64_t rounds)
{
    b->bench->Iterations(rounds);
}

void gbench_use_real_time(gbench *b)
{
    b->bench->UseRealTime();
}

void gbench_use_unit(gbench *b, gbench_unit unit)
{
    static const benchmark::TimeUnit units[] = {benchmark::kNanosecond, benchmark::kMicrosecond,
                                                benchmark::kMillisecond, benchmark::kSecond};
    b->bench->Unit(units[unit]);
}

void gbench_compare(gbench *b, const char *other, const char *target)
{
    gbench__comparisons.push_back(
        {b->name, other != nullptr ? other : "", target != nullptr ? target : ""});
}

int gbench_main(int argc, char **argv)
{
    argc = take_own_flags(argc, argv);
    std::string out = flag(argc, argv, "benchmark_out", "BENCHMARK_OUT");
    std::string out_format = flag(argc, argv, "benchmark_out_format", "BENCHMARK_OUT_FORMAT");
    benchmark::Initialize(&argc, argv, usage);
    if (benchmark::ReportUnrecognizedArguments(argc, argv))
        return 2;
    benchmark::AddCustomContext("malloc_counted", [] {
        gbench__count c = {};
        gbench__count_on(&c);
        return c.counted ? "yes" : "no";
    }());

    bool json_file = !out.empty() && (out_format.empty() || out_format == "json");
    bool good = gbench__run(json_file);
    benchmark::Shutdown();
    return good ? 0 : 1;
}

int64_t gbench__begin(gbench_state *s)
{
    if (s->begun) {
        gbench_skip(s, "more than one GBENCH_LOOP was run");
        return 0;
    }
    s->begun = true;
    gbench__count_meet(s->state.threads());
    // The clock runs from here. The counters are read after it has begun, and before it ends: so
    // nothing that starts or stops it comes between their two readings.
    bool go = s->state.KeepRunningBatch(s->state.max_iterations);
    gbench__count_on(&s->count);
    s->ended = !go; // skipped: the library has stopped already
    return go ? s->state.max_iterations : 0;
}

void gbench__end(gbench_state *s, int64_t left)
{
    if (s->ended)
        return;
    if (left != 0)
        gbench_skip(s, early);
    gbench_resume(s); // the library insists on a clock that runs when it stops it
    gbench__count_off(&s->count);
    gbench__count_total(&s->count);
    s->ended = true;
    s->state.KeepRunningBatch(s->state.max_iterations);
    publish(s);
}

void gbench_pause(gbench_state *s)
{
    if (!s->begun || s->ended || s->paused || s->state.error_occurred())
        return;
    gbench__count_off(&s->count);
    s->state.PauseTiming();
    s->paused = true;
}

void gbench_resume(gbench_state *s)
{
    if (!s->paused || s->state.error_occurred())
        return;
    s->paused = false;
    s->state.ResumeTiming();
    gbench__count_on(&s->count);
}

void gbench_skip(gbench_state *s, const char *message)
{
    if (!s->state.error_occurred())
        s->state.SkipWithError(message);
}

void gbench_uncounted(gbench_state *s)
{
    s->uncounted = true;
}

void *gbench_context(const gbench_state *s)
{
    return s->context;
}

int64_t gbench_arg(const gbench_state *s, size_t index)
{
    return index < s->bench->args ? s->state.range(index) : 0;
}

int gbench_thread(const gbench_state *s)
{
    return s->state.thread_index();
}

int gbench_threads(const gbench_state *s)
{
    return s->state.threads();
}

int64_t gbench_rounds(const gbench_state *s)
{
    return s->state.max_iterations;
}

void gbench_items(gbench_state *s, int64_t items)
{
    s->state.SetItemsProcessed(items);
}

void gbench_bytes(gbench_state *s, int64_t bytes)
{
    s->state.SetBytesProcessed(bytes);
}

void gbench_label(gbench_state *s, const char *label)
{
    s->state.SetLabel(label);
}

void gbench_counter(gbench_state *s, const char *name, double value, gbench_figure what)
{
    using benchmark::Counter;
    static_assert(int(GBENCH_RATE) == Counter::kIsRate &&
                      int(GBENCH_AVERAGE) == Counter::kAvgThreads &&
                      int(GBENCH_PER_ROUND) == Counter::kAvgIterations,
                  "gbench.h's figures are the library's flags");
    s->state.counters[name] = Counter(value, Counter::Flags(what));
}
