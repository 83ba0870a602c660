// Replays recorded trajectories and recorded codes of reference implementations and says how far we are from them.
// replay FILE...: exit code 1 if a file exceeds its tolerance, has other codes than ours or cannot be replayed.
#include <cstdio>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "fixture.hpp"
#include "lowrank/lowrank.hpp"
#include "lowrank/optim/by_name.hpp"
#include "replay_codec.hpp"

namespace {

using namespace lowrank;
using lowrank_reference::fixture, lowrank_reference::fixture_error;

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
  recorded_bases(fixture const& source, bool two_sided) : two_sided_{two_sided} {
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

/// The weight of a replay: in place, or in int8 codes, rounded to nearest, where the recorded options say weight_bits=8.
class replayed_weight {
 public:
  replayed_weight(host_executor& exec, matrix<float> start, option_list& o) : values_{std::move(start)} {
    auto const bits = o.take("weight_bits", index_t{32}), group = o.take("weight_group_size", index_t{256});
    require<fixture_error>((bits == 32 || bits == 8) && group == 256 && !o.take_switch("stochastic_round"), "replay",
                           "knows fp32 weights, and int8 ones in groups of 256 rounded to nearest");
    if (bits == 32) return;
    codes_ = blockwise<codec::affine<8>>{{1, values_.shape().size()}};
    quantize(exec, values_.data(), codes_.view());
  }
  [[nodiscard]] any_weight<host_executor> target() {
    if (codes_.layout().size() == 0) return fp32_weight<>{values_.view()};
    return quantized_weight<>{codes_.view(), values_.shape(), weight_rounding::nearest};
  }
  [[nodiscard]] matrix<float> const& values(host_executor& exec) {
    if (codes_.layout().size() > 0) dequantize(exec, codes_.view(), values_.data());
    return values_;
  }

 private:
  matrix<float> values_;
  blockwise<codec::affine<8>> codes_;
};

/// Largest deviation in units of the whole movement.
[[nodiscard]] double replay(fixture const& source) {
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
  auto const start = source.read("weight");
  replayed_weight replayed{exec, source.read("weight"), options};
  auto const target = replayed.target();
  auto const optimizer = by_name<host_executor>(source.metadata("optimizer"), options, context);
  auto const state = optimizer.make(exec, start.shape(), 0);
  exec.reserve(state->workspace_bytes(target, 0));

  double worst = 0, movement = 0;
  for (std::size_t k = 0; k < rates.size(); ++k) {
    auto const gradient = source.read("gradient." + std::to_string(k));
    auto const expected = source.read("expected." + std::to_string(k));
    require<fixture_error>(gradient.shape() == start.shape() && expected.shape() == start.shape(), "replay", "step ", k,
                           " has another shape than the weight");
    require<fixture_error>(
        bases.empty() || state->refresh_due() == !bases.at(static_cast<index_t>(k), side::left).empty(), "replay",
        "step ", k, " looks for a basis where the reference does not, or the other way round");
    auto const status =
        state->step(exec, target, gradient.view(), {rates[k].get<float>(), optimizer.weight_decay, 1.0F});
    require<fixture_error>(status == step_status::stepped || status == step_status::stepped_old_basis, "replay",
                           "step ", k, " was ", status);
    auto const& weight = replayed.values(exec);
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

/// Whether a file of either format is as it was recorded; says so.
[[nodiscard]] bool passes(char const* path) {
  fixture const source{path};
  auto const format = source.metadata("format");
  if (format == "lowrank-codec-1") {
    lowrank_reference::replay_codec(source);
    std::printf("ok    the same codes  %s\n", path);
    return true;
  }
  require<fixture_error>(format == "lowrank-replay-1", "replay", "format is \"", format,
                         "\", needs lowrank-replay-1 or lowrank-codec-1");
  double const tolerance = std::stod(source.metadata("tolerance"));
  require<fixture_error>(is_finite(tolerance) && tolerance > 0, "replay", "tolerance must be positive, got ",
                         tolerance);
  double const deviation = replay(source);
  bool const passed = deviation <= tolerance;
  std::printf("%s  deviation %.2e  tolerance %.0e  %.2f of it  %s\n", passed ? "ok  " : "FAIL", deviation, tolerance,
              deviation / tolerance, path);
  return passed;
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
      failed += passes(argv[i]) ? 0 : 1;
    } catch (std::exception const& e) {
      std::cerr << "FAIL  " << argv[i] << ": " << e.what() << "\n";
      ++failed;
    }
  }
  return failed == 0 ? 0 : 1;
}
