/// @file
/// Numbers next to the ones they should be, gathered under what they are.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

namespace smollm2 {

/// Rows of "what, how many, largest deviation, allowed"; says whether all were within what is allowed.
class comparison {
 public:
  /// |got - expected| <= allowed.
  void within(std::string_view what, double got, double expected, double allowed) {
    add(what, std::abs(got - expected), allowed, std::abs(got - expected) <= allowed);
  }
  /// |got - expected| <= share |scale|.
  void within_share(std::string_view what, double got, double expected, double scale, double share) {
    double const deviation = std::abs(got - expected) / std::abs(scale);
    add(what, deviation, share, deviation <= share);
  }
  template <class T>
  void equal(std::string_view what, T const& got, T const& expected) {
    add(what, got == expected ? 0 : 1, 0, got == expected);
  }
  /// Something that could not be compared here: it is said, and it is no failure.
  void skip(std::string_view what, std::string_view why) {
    skipped_.push_back(std::string{what} + ": " + std::string{why});
  }

  [[nodiscard]] bool passed() const {
    return std::ranges::all_of(rows_, [](row const& r) { return r.failed == 0; });
  }
  void print() const {
    std::printf("\n%-52s %6s  %-12s %-9s\n", "compared", "number", "largest dev.", "allowed");
    for (auto const& r : rows_)
      std::printf("%-52s %6d  %-12.3g %-9.3g %s\n", r.what.c_str(), r.count, r.deviation, r.allowed,
                  r.failed == 0 ? "" : "FAILED");
    for (auto const& text : skipped_) std::printf("not compared: %s\n", text.c_str());
    std::printf("%s\n", passed() ? "all within what is allowed" : "some are NOT within what is allowed");
  }

 private:
  struct row {
    std::string what;
    int count, failed;
    double deviation, allowed;
  };
  /// A NaN counts as a failure: `holds` is false then.
  void add(std::string_view what, double deviation, double allowed, bool holds) {
    auto place = std::ranges::find(rows_, what, &row::what);
    if (place == rows_.end()) {
      rows_.push_back({std::string{what}, 0, 0, 0, allowed});
      place = rows_.end() - 1;
    }
    ++place->count;
    if (!holds) ++place->failed;
    if (!(deviation <= place->deviation)) place->deviation = deviation;
  }

  std::vector<row> rows_;
  std::vector<std::string> skipped_;
};

}  // namespace smollm2
