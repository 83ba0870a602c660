// Whole optimizers over ten steps: refreshes, a step that must be skipped, every kind of weight.
#pragma once

#include <limits>

#include "device/machine.hpp"
#include "lowrank/basis/randomized.hpp"
#include "lowrank/basis/stiefel.hpp"
#include "lowrank/basis/tracked.hpp"
#include "lowrank/basis/two_sided.hpp"
#include "lowrank/basis/warm_start.hpp"
#include "lowrank/optim/presets.hpp"
#include "lowrank/quant/quantized_weight.hpp"
#include "lowrank/transport/rotate.hpp"

namespace lowrank_test {

/// Sum of a slowly turning low-rank part and noise, one gradient a step.
[[nodiscard]] inline std::vector<float> gradient_of_step(lowrank::extents shape, lowrank::index_t step) {
  using lowrank::index_t;
  std::mt19937 random{static_cast<unsigned>(1000 + step)}, fixed{7};
  std::normal_distribution<float> normal;
  index_t const rank = std::max<index_t>(1, std::min<index_t>({6, shape.rows / 2, shape.cols / 2}));
  std::vector<float> u(static_cast<std::size_t>(shape.rows * rank)), v(static_cast<std::size_t>(shape.cols * rank));
  for (auto& x : u) x = normal(fixed);
  for (auto& x : v) x = normal(fixed);
  for (auto& x : u) x += 0.1F * normal(random);
  std::vector<float> out(static_cast<std::size_t>(shape.size()));
  for (index_t i = 0; i < shape.rows; ++i)
    for (index_t j = 0; j < shape.cols; ++j) {
      float sum = 0.02F * normal(random);
      for (index_t k = 0; k < rank; ++k)
        sum += u[static_cast<std::size_t>(i * rank + k)] * v[static_cast<std::size_t>(j * rank + k)] /
               static_cast<float>((k + 1) * (k + 1));
      out[static_cast<std::size_t>(i * shape.cols + j)] = 0.1F * sum;
    }
  return out;
}

template <class M>
class optimizer_cases {
 public:
  using executor = typename M::executor;
  using space = typename M::space;
  using index_t = lowrank::index_t;
  using extents = lowrank::extents;

  [[nodiscard]] static case_list<M> all() {
    optimizer_cases out;
    out.add_presets();
    out.add_policies();
    out.add_weights();
    out.add_gradients();
    return std::move(out.list_);
  }

 private:
  static constexpr index_t steps = 10, bad_step = 6;

  [[nodiscard]] static std::string title(std::string const& name, extents shape) {
    return name + ", " + std::to_string(shape.rows) + "x" + std::to_string(shape.cols);
  }
  [[nodiscard]] static float rate_of(index_t step) noexcept {
    return 1e-2F * (1 + std::cos(0.3F * static_cast<float>(step)));
  }
  /// Ten steps under a schedule, a NaN in the gradient of one of them. `weight` gives the view of the weight, T is the
  /// number format of gradients.
  template <class T = float, class Optimizer, class State, class Weight>
  static void run_steps(M& m, Optimizer const& optimizer, State& state, Weight const& weight, extents shape,
                        outcome& out) {
    index_t const needed = optimizer.workspace_bytes(weight, std::same_as<T, float> ? 0 : lowrank::narrow_gradient);
    m.exec.reserve(needed);
    m.exec.arena().reset_peak();
    std::vector<std::int32_t> statuses;
    for (index_t step = 0; step < steps; ++step) {
      auto values = gradient_of_step(shape, step);
      if (step == bad_step) values[values.size() / 2] = std::numeric_limits<float>::quiet_NaN();
      std::vector<T> given;
      for (float const x : values) given.push_back(lowrank::from_float<T>(x));
      auto const g = m.upload(given);
      lowrank::step_options const options{.learning_rate = rate_of(step), .weight_decay = 0.1F, .grad_scale = 0.5F};
      std::ignore = optimizer.step(m.exec, state, weight, lowrank::row_major<space>(g.data(), shape), options);
      statuses.push_back(static_cast<std::int32_t>(optimizer.status(m.exec, state)));
    }
    auto const* const bytes = reinterpret_cast<std::byte const*>(statuses.data());
    out["statuses"].assign(bytes, bytes + statuses.size() * sizeof(std::int32_t));
    lowrank::require<lowrank::state_error>(m.exec.arena().peak() <= needed, "run_steps", "took ", m.exec.arena().peak(),
                                           " bytes of scratch");
  }
  template <class Optimizer>
  void add(std::string const& name, Optimizer const& optimizer, std::initializer_list<extents> shapes) {
    for (extents const shape : shapes)
      list_.push_back({title(name, shape), [=](M& m) {
                         outcome out;
                         auto state = optimizer.init(m.exec, shape, 3);
                         auto weight = m.upload(heavy_tailed(shape.size(), 5, 0.1F));
                         lowrank::fp32_weight<space> const view{lowrank::row_major<space>(weight.data(), shape)};
                         run_steps(m, optimizer, state, view, shape, out);
                         m.keep(out, "weight", weight);
                         return out;
                       }});
  }
  template <class Optimizer>
  [[nodiscard]] static Optimizer with_refreshes(Optimizer optimizer) {
    optimizer.rank = 8;
    if constexpr (requires { optimizer.refresh.gap; }) optimizer.refresh.gap = 4;
    if constexpr (requires { optimizer.refresh.period; }) optimizer.refresh.period = 4;
    return optimizer;
  }
  void add_presets() {
    auto const shapes = {extents{64, 96}, extents{96, 64}, extents{33, 65}, extents{1, 7}, extents{130, 257}};
    add("galore_adamw", with_refreshes(lowrank::galore_adamw{}), shapes);
    add("galore_adamw_8bit", with_refreshes(lowrank::galore_adamw_8bit{}), shapes);
    add("q_galore_adamw_8bit", with_refreshes(lowrank::q_galore_adamw_8bit{}), shapes);
    add("galore_sgd", with_refreshes(lowrank::galore_sgd{}), {{64, 96}, {33, 65}});
    add("galore_lion", with_refreshes(lowrank::galore_lion{}), {{64, 96}});
    add("galore_adafactor", with_refreshes(lowrank::galore_adafactor{}), shapes);
    add("adamw", lowrank::adamw{}, shapes);
    add("adafactor", lowrank::adafactor{}, shapes);
    lowrank::adafactor scaled;
    scaled.rule.beta1 = 0.9, scaled.rule.scaling = lowrank::rule::parameter_scaling::on;
    add("adafactor with momentum, scaled by the RMS of W", scaled, {{33, 65}, {96, 64}});
    add("lion", lowrank::lion{}, {{64, 96}, {1, 7}, {33, 65}});
    lowrank::sgd heavy;
    heavy.rule.momentum = 0.9;
    add("sgd", heavy, {{64, 96}, {1, 7}, {33, 65}});
    add("adamw_8bit", lowrank::adamw_8bit{}, {{64, 96}, {130, 257}});
    add("adamw_4bit", lowrank::adamw_4bit{}, {{64, 128}});
  }
  void add_policies() {
    using namespace lowrank;  // NOLINT(google-build-using-namespace)
    add("warm start", with_refreshes(compose<rule::adam, basis::warm_start>{}), {{64, 96}, {130, 257}});
    add("warm start, moments rotated", with_refreshes(compose<rule::adam, basis::warm_start, transport::rotate>{}),
        {{64, 96}, {96, 64}});
    add("tracked", with_refreshes(compose<rule::adam, basis::tracked>{}), {{64, 96}});
    add("random basis", with_refreshes(compose<rule::adam, basis::stiefel>{}), {{64, 96}});
    add("bases on both sides", with_refreshes(compose<rule::sgd, basis::two_sided<basis::randomized>>{}), {{64, 96}});
    add("int8 basis", with_refreshes(compose<rule::adam, basis::randomized, format::int8>{}), {{64, 96}});
    add("bf16 basis", with_refreshes(compose<rule::adam, basis::randomized, format::bf16>{}), {{64, 96}});
  }
  /// Gradients in 16 bits.
  void add_gradients() {
    using namespace lowrank;  // NOLINT(google-build-using-namespace)
    add_narrow("adamw", adamw{});
    add_narrow("adamw_8bit", adamw_8bit{});
    add_narrow("galore_adamw", with_refreshes(galore_adamw{}));
    add_narrow("warm start", with_refreshes(compose<rule::adam, basis::warm_start>{}));
    add_narrow("tracked", with_refreshes(compose<rule::adam, basis::tracked>{}));
  }
  template <class Optimizer>
  void add_narrow(std::string const& name, Optimizer const& optimizer) {
    extents const shape{64, 96};
    list_.push_back({title(name + " with bf16 gradients", shape), [=](M& m) {
                       outcome out;
                       auto state = optimizer.init(m.exec, shape, 3);
                       auto weight = m.upload(heavy_tailed(shape.size(), 5, 0.1F));
                       lowrank::fp32_weight<space> const view{lowrank::row_major<space>(weight.data(), shape)};
                       run_steps<lowrank::bf16>(m, optimizer, state, view, shape, out);
                       m.keep(out, "weight", weight);
                       return out;
                     }});
  }
  void add_weights() {
    extents const shape{64, 96};
    list_.push_back({title("galore_adamw on a bf16 weight", shape), [shape](M& m) {
                       auto const optimizer = with_refreshes(lowrank::galore_adamw{});
                       outcome out;
                       auto state = optimizer.init(m.exec, shape, 3);
                       std::vector<lowrank::bf16> begin;
                       for (float const x : heavy_tailed(shape.size(), 5, 0.1F)) begin.push_back(lowrank::to_bf16(x));
                       auto weight = m.upload(begin);
                       lowrank::bf16_weight<space> const view{lowrank::row_major<space>(weight.data(), shape)};
                       run_steps(m, optimizer, state, view, shape, out);
                       lowrank::buffer<float, space> wide{shape.size()};
                       lowrank::convert(m.exec, view.values, lowrank::row_major<space>(wide.data(), shape));
                       m.keep(out, "weight", wide);
                       return out;
                     }});
    list_.push_back({title("q_galore_adamw_8bit on an int8 weight", shape), [shape](M& m) {
                       auto const optimizer = with_refreshes(lowrank::q_galore_adamw_8bit{});
                       outcome out;
                       auto state = optimizer.init(m.exec, shape, 3);
                       auto const begin = m.upload(heavy_tailed(shape.size(), 5, 0.1F));
                       lowrank::blockwise<lowrank::codec::affine<8>, 256, space> codes{{1, shape.size()}};
                       lowrank::quantize(m.exec, begin.data(), codes.view());
                       run_steps(m, optimizer, state, lowrank::as_weight(codes, shape), shape, out);
                       lowrank::buffer<float, space> wide{shape.size()};
                       lowrank::dequantize(m.exec, codes.view(), wide.data());
                       m.keep(out, "weight", wide);
                       return out;
                     }});
  }

  case_list<M> list_;
};

}  // namespace lowrank_test
