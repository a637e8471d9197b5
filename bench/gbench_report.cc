// gbench_report.cc - what the results look like.
//
//   google-benchmark -> Watch -> its own JSON or CSV reporter, or Console -> the summary
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <map>
#include <memory>
#include <sstream>

#include "gbench_report.h"

const char gbench__allocs[] = "allocs_per_op", gbench__bytes[] = "bytes_per_op",
           gbench__peak[] = "peak_bytes";
bool gbench__medians_only;
std::vector<gbench__comparison> gbench__comparisons;

namespace {

// One instance: what its repetitions gave. In the order of registration, whatever the order they
// ended in.
struct Result {
    std::string family, rest; // "pool/warm/memkit" and "/512/threads:2"
    std::vector<double> ns;   // of CPU, for an iteration
};
using Place = std::pair<int64_t, int64_t>; // of the family, and within it
std::map<Place, Result> results;
bool failed;

// ---- the console ------------------------------------------------------------------------------

double median(std::vector<double> v)
{
    std::sort(v.begin(), v.end());
    size_t half = v.size() / 2;
    return v.size() % 2 != 0 ? v[half] : (v[half - 1] + v[half]) / 2;
}

__attribute__((format(printf, 1, 2))) std::string text(const char *format, ...)
{
    char line[512];
    va_list ap;
    va_start(ap, format);
    vsnprintf(line, sizeof line, format, ap);
    va_end(ap);
    return line;
}

bool ours(const std::string &counter)
{
    return counter == gbench__allocs || counter == gbench__bytes || counter == gbench__peak;
}

// The library's own console reporter with our columns behind its iterations: it shows nothing that
// a counter of memory gives, and cannot say n/a.
class Console : public benchmark::ConsoleReporter {
  public:
    explicit Console(OutputOptions options) : ConsoleReporter(options) {}

    // What the library was built as does not matter to a loop that has nothing of it.
    bool ReportContext(const Context &context) override
    {
        std::ostringstream all;
        std::ostream &err = GetErrorStream();
        SetErrorStream(&all);
        bool go_on = ConsoleReporter::ReportContext(context);
        SetErrorStream(&err);
        std::istringstream lines(all.str());
        for (std::string line; std::getline(lines, line);)
            if (line.find("Library was built as DEBUG") == std::string::npos)
                err << line << '\n';
        return go_on;
    }

    void ReportRuns(const std::vector<Run> &runs) override
    {
        if (!gbench__medians_only) {
            ConsoleReporter::ReportRuns(runs);
            return;
        }
        if (runs.empty() || runs[0].run_type != Run::RT_Iteration)
            return;
        Place place(runs[0].family_index, runs[0].per_family_instance_index);
        auto bad =
            std::find_if(runs.begin(), runs.end(), [](const Run &r) { return r.error_occurred; });
        lines_[place] = bad != runs.end() ? captured(*bad) : medians(runs);
        first_ = lines_.size() == 1 ? runs[0] : first_;
    }

    void Finalize() override
    {
        if (lines_.empty())
            return;
        PrintHeader(first_);
        for (auto &line : lines_)
            GetOutputStream() << line.second << '\n';
    }

  protected:
    void PrintHeader(const Run &run) override
    {
        std::string line = text("%-*s ", int(name_field_width_), "Benchmark");
        line += gbench__medians_only ? text("%13s %22s", "CPU, median", "least - most")
                                     : text("%13s %15s %12s", "Time", "CPU", "Iterations");
        line += text(" %10s %10s %10s", "allocs/op", "B/op", "peak B <=");
        if (output_options_ & OO_Tabular)
            for (auto &c : run.counters)
                if (!ours(c.first))
                    line += text(" %10s", c.first.c_str());
        std::string rule(line.size(), '-');
        GetOutputStream() << rule << '\n' << line << '\n' << rule << '\n';
    }

    void PrintRunData(const Run &run) override
    {
        if (run.error_occurred) {
            ConsoleReporter::PrintRunData(run);
            return;
        }
        GetOutputStream() << captured(bare(run)) << figures(run) << '\n';
    }

  private:
    std::map<Place, std::string> lines_; // when only medians are shown
    Run first_;

    // Without counter and label the library's columns are all there is to its line.
    static Run bare(Run run)
    {
        run.counters.clear();
        run.report_label.clear();
        return run;
    }

    // The line that the library prints.
    std::string captured(const Run &run)
    {
        std::ostringstream line;
        std::ostream &out = GetOutputStream();
        SetOutputStream(&line);
        ConsoleReporter::PrintRunData(run);
        SetOutputStream(&out);
        std::string all = line.str();
        all.erase(std::remove(all.begin(), all.end(), '\n'), all.end());
        return all;
    }

    std::string medians(const std::vector<Run> &runs) const
    {
        std::vector<double> times;
        for (auto &r : runs)
            times.push_back(r.GetAdjustedCPUTime());
        auto range = std::minmax_element(times.begin(), times.end());
        std::string between = text("%.1f - %.1f", *range.first, *range.second);
        Run middle = runs[0];
        for (auto &c : middle.counters) {
            std::vector<double> values;
            for (auto &r : runs)
                if (r.counters.count(c.first) != 0)
                    values.push_back(r.counters.at(c.first).value);
            c.second.value = median(values);
        }
        return text("%-*s %10.1f %-2s %22s", int(name_field_width_),
                    runs[0].benchmark_name().c_str(), median(times),
                    benchmark::GetTimeUnitString(runs[0].time_unit), between.c_str()) +
               figures(middle);
    }

    std::string figures(const Run &run) const
    {
        bool percent =
            run.run_type == Run::RT_Aggregate && run.aggregate_unit == benchmark::kPercentage;
        std::string line;
        for (const char *name : {gbench__allocs, gbench__bytes, gbench__peak}) {
            auto c = run.counters.find(name);
            bool none = c == run.counters.end();
            line += none                                 ? text(" %10s", percent ? "-" : "n/a")
                    : percent                            ? text(" %9.2f%%", 100 * c->second.value)
                    : std::trunc(c->second) == c->second ? text(" %10.0f", c->second.value)
                    : c->second < 1                      ? text(" %10.2g", c->second.value)
                                                         : text(" %10.3f", c->second.value);
        }
        for (auto &c : run.counters) {
            if (ours(c.first))
                continue;
            const char *unit = percent                                        ? "%"
                               : c.second.flags & benchmark::Counter::kIsRate ? "/s"
                                                                              : "";
            std::string value =
                text("%.4g%s", percent ? 100 * c.second.value : c.second.value, unit);
            line += output_options_ & OO_Tabular
                        ? text(" %*s", int(std::max<size_t>(10, c.first.size())), value.c_str())
                        : text(" %s=%s", c.first.c_str(), value.c_str());
        }
        return run.report_label.empty() ? line : line + " " + run.report_label;
    }
};

const Result *find(const std::string &family, const std::string &rest)
{
    const Result *only = nullptr;
    int instances = 0;
    for (auto &placed : results) {
        const Result &r = placed.second;
        if (r.family != family)
            continue;
        if (r.rest == rest)
            return &r;
        only = &r;
        instances++;
    }
    return instances == 1 ? only : nullptr;
}

std::string spread(const Result &r)
{
    auto range = std::minmax_element(r.ns.begin(), r.ns.end());
    double middle = median(r.ns), unit = middle < 1e5 ? 1 : middle < 1e8 ? 1e3 : 1e6;
    return text("%.1f [%.1f - %.1f] %s", middle / unit, *range.first / unit, *range.second / unit,
                unit < 1e3   ? "ns"
                : unit < 1e6 ? "us"
                             : "ms");
}

// What tells `theirs` from `ours`: "glibc" beside "pool/warm/memkit".
std::string short_name(const std::string &theirs, const std::string &ours)
{
    size_t same = 0;
    while (same < theirs.size() && same < ours.size() && theirs[same] == ours[same])
        same++;
    size_t slash = same > 0 ? theirs.rfind('/', same - 1) : std::string::npos;
    return slash == std::string::npos ? theirs : theirs.substr(slash + 1);
}

void print_summary()
{
    static const char row[] = "%-36s %30s  %-18s %30s %6s  %s\n";
    std::string rows;
    for (auto &c : gbench__comparisons)
        for (auto &placed : results) {
            const Result &r = placed.second;
            const Result *other = r.family == c.ours ? find(c.theirs, r.rest) : nullptr;
            if (r.family != c.ours || (other == nullptr && !c.theirs.empty()))
                continue; // not run, or the filter left the other out
            std::string name = r.family + r.rest, theirs, times, ratio;
            if (other != nullptr) {
                theirs = short_name(c.theirs, c.ours);
                times = spread(*other);
                ratio = text("%.2f", median(r.ns) / median(other->ns));
            }
            rows += text(row, name.c_str(), spread(r).c_str(), theirs.c_str(), times.c_str(),
                         ratio.c_str(), c.target.c_str());
        }
    if (rows.empty())
        return;
    printf("\nSide by side: CPU time of an iteration, median [least - most]\n");
    printf(row, "this", "", "beside", "", "ratio", "target");
    fputs(rows.c_str(), stdout);
}

// ---- between the library and its reporters ----------------------------------------------------

// Notes what failed and what the summary needs, and takes out what JSON cannot say: the variation
// of a figure that is 0 is not a number.
class Watch : public benchmark::BenchmarkReporter {
  public:
    explicit Watch(BenchmarkReporter *to, bool keep) : to_(to), keep_(keep) {}

    bool ReportContext(const Context &context) override
    {
        to_->SetOutputStream(&GetOutputStream());
        to_->SetErrorStream(&GetErrorStream());
        return to_->ReportContext(context);
    }

    void ReportRuns(const std::vector<Run> &runs) override
    {
        std::vector<Run> finite = runs;
        for (auto &run : finite)
            for (auto c = run.counters.begin(); c != run.counters.end();)
                c = std::isfinite(c->second.value) ? std::next(c) : run.counters.erase(c);
        for (auto &run : runs)
            if (keep_ && run.run_type == Run::RT_Iteration)
                note(run);
        to_->ReportRuns(finite);
    }

    void Finalize() override
    {
        to_->Finalize();
    }

  private:
    static void note(const Run &run)
    {
        failed |= run.error_occurred;
        if (run.error_occurred)
            return;
        benchmark::BenchmarkName name = run.run_name;
        name.iterations.clear(); // a fixed number is of no interest beside another's
        Result &r = results[Place(run.family_index, run.per_family_instance_index)];
        r.family = name.function_name;
        r.rest = name.str().substr(r.family.size());
        r.ns.push_back(1e9 * run.cpu_accumulated_time / double(run.iterations));
    }

    BenchmarkReporter *to_;
    bool keep_;
};

// The options that the library worked out from its flags are protected: a derived class may look.
struct Options : benchmark::ConsoleReporter {
    static OutputOptions of(ConsoleReporter *r)
    {
        return r->*(&Options::output_options_);
    }
};

} // namespace

bool gbench__run(bool json_file)
{
    benchmark::BenchmarkReporter *format = benchmark::CreateDefaultDisplayReporter();
    auto *plain = dynamic_cast<benchmark::ConsoleReporter *>(format);
    std::unique_ptr<Console> console(plain != nullptr ? new Console(Options::of(plain)) : nullptr);
    Watch display(console != nullptr ? console.get() : format, true);
    benchmark::JSONReporter json;
    Watch file(&json, false);
    size_t matched = benchmark::RunSpecifiedBenchmarks(&display, json_file ? &file : nullptr);
    if (console != nullptr)
        print_summary();
    return matched > 0 && !failed;
}
