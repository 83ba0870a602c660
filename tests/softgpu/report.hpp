// What the software GPU has to say about a program: counted, printed, and turned into exit status 97 by the runtime.
#pragma once

#include <string>
#include <string_view>

namespace softgpu {

/// Counts a report and prints it, the first 20 of a process. A report that is expected is neither counted nor printed.
void report(std::string_view kind, std::string const& what);

[[nodiscard]] int report_count() noexcept;
void clear_reports() noexcept;

/// The last report, "kind: what", expected or not; empty when there is none since `clear_reports`.
[[nodiscard]] std::string const& last_report() noexcept;

/// The next `count` reports whose "kind: what" contains `part` are what a test is about.
void expect_reports(std::string_view part, int count);

/// How many of the reports last asked for have not come; nothing is expected afterwards.
int missing_reports() noexcept;

}  // namespace softgpu
