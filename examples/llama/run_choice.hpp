/// @file
/// Which runs a demo makes: every optimizer, and GaLore once for each way to find its bases.
#pragma once

#include <algorithm>

#include "demo_settings.hpp"

namespace llama {

/// One run: an optimizer that by_name knows and, for GaLore, how its bases are found.
struct run_choice {
  std::string optimizer;
  std::string name;  ///< what tables call it; the optimizer alone where GaLore runs in one way only
  std::string finder, refresh, transport;
  index_t gap{};         ///< 0: the refresh policy sets its own
  std::string rounding;  ///< of int8 weights; "" where weights are floats

  [[nodiscard]] bool is_low_rank() const { return optimizer.starts_with("galore") || has_int8_weights(); }
  /// Attention and feed-forward matrices in int8.
  [[nodiscard]] bool has_int8_weights() const { return optimizer.starts_with("q_galore"); }
  /// Without anything that a file system or a shell might mind; different for different names.
  [[nodiscard]] std::string file_name() const {
    std::string out = name;
    std::replace_if(
        out.begin(), out.end(), [](char c) { return c == ' ' || c == '/'; }, '-');
    return out;
  }
};

[[nodiscard]] inline std::string checkpoint_path(demo_settings const& s, run_choice const& choice) {
  return s.checkpoint + "-" + choice.file_name() + ".safetensors";
}

/// In the order of the settings; what would be the same run again is left out.
[[nodiscard]] inline std::vector<run_choice> planned_runs(demo_settings const& s) {
  std::vector<run_choice> runs;
  auto const add_new = [](std::vector<run_choice>& to, run_choice choice) {
    if (std::none_of(to.begin(), to.end(), [&](auto const& known) { return known.name == choice.name; }))
      to.push_back(std::move(choice));
  };
  bool const turns =
      std::any_of(s.transports.begin(), s.transports.end(), [&](auto const& t) { return t != s.transports[0]; });
  for (auto const& given : s.optimizers) {
    std::string const optimizer = given == "galore" ? "galore_adamw" : given;
    run_choice const plain{optimizer, optimizer, "", "", "", 0, ""};
    if (!plain.is_low_rank()) {
      add_new(runs, plain);
      continue;
    }
    std::vector<run_choice> ways;
    for (auto const& finder : s.finders)
      for (auto const& chosen : s.refreshes)
        for (index_t const gap : s.gaps)
          for (auto const& transport : s.transports) {
            std::string const usual = plain.has_int8_weights() ? "lazy" : "every";
            std::string const refresh = chosen == "usual" ? usual : chosen;
            bool const periodic = refresh != "energy" && refresh != "budget";
            run_choice way{optimizer, finder + "/" + refresh, finder, refresh, transport, periodic ? gap : 0, ""};
            if (periodic) way.name += " " + std::to_string(gap);
            if (turns) way.name += "/" + transport;
            add_new(ways, std::move(way));
          }
    std::vector<std::string> const floats{""};
    for (auto const& way : ways)
      for (auto const& rounding : plain.has_int8_weights() ? s.roundings : floats) {
        auto run = way;
        run.name = optimizer + (ways.size() > 1 ? " " + way.name : "");
        run.rounding = rounding;
        if (plain.has_int8_weights() && s.roundings.size() > 1) run.name += " " + rounding;
        add_new(runs, std::move(run));
      }
  }
  return runs;
}

}  // namespace llama
