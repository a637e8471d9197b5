// gbench_report.h - how results are shown. Between gbench.cc and gbench_report.cc; C++.
#ifndef GBENCH_REPORT_H
#define GBENCH_REPORT_H

#include <string>
#include <vector>

// The counters by which the three figures travel; their names are in JSON and CSV.
extern const char gbench__allocs[], gbench__bytes[], gbench__peak[];

struct gbench__comparison {
    std::string ours, theirs; // benches' names; theirs empty: nobody's
    std::string target;
};
extern std::vector<gbench__comparison> gbench__comparisons;

extern bool gbench__medians_only;

// Runs what the flags ask for and shows it. json_file: --benchmark_out was given, and is JSON.
// False: a bench failed, or none matched.
bool gbench__run(bool json_file);

#endif
