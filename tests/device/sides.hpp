// The cases of both sides. What runs on the host is compiled by the host compiler, so each side has files of its own.
#pragma once

#include <memory>

#include "device/machine.hpp"

namespace lowrank_test {

struct runnable {
  std::string name;
  std::function<outcome()> run;
};
using side = std::vector<runnable>;

/// Cases bound to one machine, which lives as long as they do.
template <class M>
[[nodiscard]] side on_machine(case_list<M> const& cases) {
  auto const shared = std::make_shared<M>();
  side out;
  for (auto const& one : cases) out.push_back({one.name, [shared, run = one.run] { return run(*shared); }});
  return out;
}

side host_tile_cases();
side device_tile_cases();
side host_optimizer_cases();
side device_optimizer_cases();

}  // namespace lowrank_test
