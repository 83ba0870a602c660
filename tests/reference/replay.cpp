// Replays recorded trajectories of reference implementations and says how far we are from them.
// replay FILE...: exit code 1 if a file exceeds its tolerance or cannot be replayed.
#include <cstdio>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "lowrank/io/safetensors.hpp"
#include "lowrank/lowrank.hpp"
#include "lowrank/optim/by_name.hpp"

namespace {

using namespace lowrank;
using fixture_error = lowrank::io_error;

struct fixture {
  explicit fixture(std::string const& path) : file{path} {
    require<fixture_error>(metadata("format") == "lowrank-replay-1", "replay", "format is \"", metadata("format"),
                           "\", needs lowrank-replay-1");
  }
  [[nodiscard]] std::string metadata(std::string const& key) const {
    auto const found = file.metadata().find(key);
    require<fixture_error>(found != file.metadata().end(), "replay", "metadata has no \"", key, "\"");
    return found->second;
  }
  [[nodiscard]] matrix<float> read(std::string const& name) const { return file.read_matrix(name); }

  safetensors_reader file;
};

/// The recorded options as an option list. What only other optimizers of the family read is left to `by_name` to refuse.
[[nodiscard]] option_list options_of(nlohmann::json const& recorded) {
  require<fixture_error>(recorded.is_object(), "replay", "options must be a JSON object");
  option_list out;
  for (auto const& [name, value] : recorded.items()) out.set(name, value.dump());
  return out;
}

/// The basis the reference used from step k on, in facing coordinates.
class recorded_bases {
 public:
  recorded_bases(fixture& source, bool two_sided) : two_sided_{two_sided} {
    for (auto const& tensor : source.file.tensors())
      if (tensor.name.starts_with("basis")) bases_.emplace(tensor.name, source.read(tensor.name));
  }
  [[nodiscard]] matrix_view<float const> at(index_t call, side where) const {
    std::string const stem = !two_sided_ ? "basis." : where == side::left ? "basis_left." : "basis_right.";
    auto const found = bases_.find(stem + std::to_string(call));
    if (found == bases_.end()) return {};
    return facing(where, found->second.view());
  }
  [[nodiscard]] bool empty() const { return bases_.empty(); }

 private:
  bool two_sided_;
  std::map<std::string, matrix<float>> bases_;
};

/// Largest deviation in units of the whole movement.
[[nodiscard]] double replay(fixture& source) {
  auto const recorded = nlohmann::json::parse(source.metadata("options"));
  auto const rates = nlohmann::json::parse(source.metadata("learning_rates"));
  require<fixture_error>(rates.is_array() && !rates.empty(), "replay",
                         "learning_rates must be a list with at least one number");
  auto options = options_of(recorded);
  recorded_bases const bases{source, recorded.value("proj_type", std::string{}) == "full"};
  by_name_context<host_executor> context;
  if (!bases.empty()) {
    options.set("finder", "given");
    context.bases.source = [&](index_t call, side where) { return bases.at(call, where); };
  }
  host_executor exec;
  auto const optimizer = by_name<host_executor>(source.metadata("optimizer"), options, context);
  auto const start = source.read("weight");
  auto weight = source.read("weight");
  any_weight<host_executor> const target = fp32_weight<>{weight.view()};
  auto const state = optimizer.make(exec, weight.shape(), 0);
  exec.reserve(state->workspace_bytes(target, 0));

  double worst = 0, movement = 0;
  for (std::size_t k = 0; k < rates.size(); ++k) {
    auto const gradient = source.read("gradient." + std::to_string(k));
    auto const expected = source.read("expected." + std::to_string(k));
    require<fixture_error>(gradient.shape() == weight.shape() && expected.shape() == weight.shape(), "replay", "step ",
                           k, " has another shape than the weight");
    auto const status =
        state->step(exec, target, gradient.view(), {rates[k].get<float>(), optimizer.weight_decay, 1.0F});
    require<fixture_error>(status == step_status::stepped || status == step_status::stepped_old_basis, "replay",
                           "step ", k, " was ", status);
    movement = 0;
    for (index_t i = 0; i < weight.shape().size(); ++i) {
      double const expect = static_cast<double>(expected.data()[i]);
      worst = std::max(worst, std::abs(static_cast<double>(weight.data()[i]) - expect));
      movement = std::max(movement, std::abs(expect - static_cast<double>(start.data()[i])));
    }
  }
  require<fixture_error>(movement > 0 && is_finite(worst) && is_finite(movement), "replay",
                         "the recorded weights do not move, or are not finite");
  return worst / movement;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fputs("usage: replay FILE...\n", stderr);
    return 2;
  }
  int failed = 0;
  for (int i = 1; i < argc; ++i) {
    try {
      fixture source{argv[i]};
      double const tolerance = std::stod(source.metadata("tolerance"));
      require<fixture_error>(is_finite(tolerance) && tolerance > 0, "replay", "tolerance must be positive, got ",
                             tolerance);
      double const deviation = replay(source);
      bool const passed = deviation <= tolerance;
      std::printf("%s  deviation %.2e  tolerance %.0e  %.2f of it  %s\n", passed ? "ok  " : "FAIL", deviation,
                  tolerance, deviation / tolerance, argv[i]);
      failed += passed ? 0 : 1;
    } catch (std::exception const& e) {
      std::cerr << "FAIL  " << argv[i] << ": " << e.what() << "\n";
      ++failed;
    }
  }
  return failed == 0 ? 0 : 1;
}
