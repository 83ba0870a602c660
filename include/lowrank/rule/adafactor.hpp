/// @file
/// Adafactor: the second moment kept as row and column means.
#pragma once

#include <optional>

#include "lowrank/linalg/reductions.hpp"
#include "lowrank/rule/rule.hpp"

namespace lowrank::rule {

/// Whether Adafactor multiplies the learning rate by max(epsilon2, RMS(W)).
enum class parameter_scaling : std::uint8_t { off, on };

/// With U = R² + eps1 and b = 1 - t^decay_rate:  row <- b row + (1 - b) mean of U over columns, col likewise over rows;
/// N = R / sqrt(row / mean(row)) / sqrt(col);  N /= max(1, RMS(N) / clip);  N *= lr;  with momentum M <- b1 M + (1-b1) N, N = M.
/// The learning rate is inside N, so the rate is 1. Learning rates are given; the relative-step schedule of some
/// implementations is a schedule, not part of the rule.
/// Reference: Shazeer & Stern, arXiv 1804.04235, Algorithm 4; momentum and decay as in transformers' Adafactor.
/// Cost: three passes over R; workspace about one double per 256 elements.
struct adafactor {
  double epsilon1{1e-30}, epsilon2{1e-3}, clip_threshold{1}, decay_rate{-0.8};
  std::optional<double> beta1{};
  parameter_scaling scaling{parameter_scaling::off};
  decay_order decay{decay_order::before};

  template <memory_space S>
  struct state {
    buffer<float, S> row, col, moment;  ///< moment is empty without beta1
    buffer<std::int64_t, S> steps{1};
    buffer<double, S> scalars{4};  ///< mean of row, sum of N², learning rate, b; of the current step

    friend void visit_state(state& s, auto&& f) {
      f("steps", s.steps);
      f("row", s.row);
      f("col", s.col);
      f("moment", s.moment);
    }
  };

  void check() const {
    require(detail::is_positive_float(epsilon1) && is_finite(epsilon2) && epsilon2 >= 0, "rule::adafactor",
            "needs epsilon1 > 0 in fp32 and epsilon2 >= 0, got ", epsilon1, " and ", epsilon2);
    require(detail::is_positive_float(clip_threshold), "rule::adafactor", "clip_threshold must be positive, got ",
            clip_threshold);
    require(is_finite(decay_rate) && decay_rate < 0, "rule::adafactor", "decay_rate must be negative, got ",
            decay_rate);
    require(!beta1 || detail::is_average_weight(*beta1), "rule::adafactor", "beta1 must be in [0, 1), got ",
            beta1.value_or(0));
    require(decay != decay_order::coupled, "rule::adafactor", "decay must be before or after the update");
  }
  [[nodiscard]] bool needs_weight_rms() const noexcept { return scaling == parameter_scaling::on; }
  [[nodiscard]] index_t bytes(extents shape) const noexcept {
    return index_t{sizeof(float)} * (shape.rows + shape.cols + (beta1 ? shape.size() : 0)) +
           index_t{sizeof(std::int64_t) + 4 * sizeof(double)};
  }
  [[nodiscard]] static constexpr index_t workspace_bytes(extents shape) noexcept {
    return scratch_bytes<double>(stretches(shape));
  }
  template <executor E>
  [[nodiscard]] state<typename E::space> init(E&, extents shape) const {
    state<typename E::space> out;
    out.row = buffer<float, typename E::space>(shape.rows);
    out.col = buffer<float, typename E::space>(shape.cols);
    if (beta1) out.moment = buffer<float, typename E::space>(shape.size());
    return out;
  }
  template <executor E>
  void begin(E& exec, state<typename E::space>& s, step_record* record) const {
    exec.single([rule = *this, t = s.steps.data(), c = s.scalars.data(), record] LOWRANK_DEVICE {
      if (record->skip != 0) return;  // what the record was born with changes no weight
      ++*t;
      double rate = static_cast<double>(record->learning_rate);
      if (rule.scaling == parameter_scaling::on) rate *= std::max(rule.epsilon2, record->weight_rms);
      c[2] = rate;
      c[3] = 1 - std::pow(static_cast<double>(std::max<std::int64_t>(*t, 1)), rule.decay_rate);
      record->rate = 1;
      record->keep = static_cast<float>(1 - rate * static_cast<double>(record->decay));
      if (rule.decay == decay_order::after) record->down = -record->keep;
    });
  }
  template <executor E>
  void update(E& exec, state<typename E::space>& s, const_view_of<E> r, view_of<E> n, step_record const* record) const {
    auto* const c = s.scalars.data();
    blend(exec, r, s.row.data(), c + 3, record);
    blend(exec, r.t(), s.col.data(), c + 3, record);
    exec.single([row = s.row.data(), count = s.row.size(), c] LOWRANK_DEVICE {
      double sum = 0;
      for (index_t i = 0; i < count; ++i) sum += static_cast<double>(row[i]);
      c[0] = sum / static_cast<double>(std::max<index_t>(count, 1));
    });
    divide_by_factors(exec, s, r, n, record);
    clip_and_average(exec, s, n, record);
  }
  template <executor E>
  void reset(E& exec, state<typename E::space>& s) const {
    exec.single([t = s.steps.data()] LOWRANK_DEVICE { *t = 0; });
    for (auto* part : {&s.row, &s.col, &s.moment}) clear(exec, *part);
  }

 public:  // Not for callers: a CUDA compiler takes no kernel from a private function
  /// One double per stretch of a row in memory, for the sum of N².
  [[nodiscard]] static constexpr index_t stretches(extents shape) noexcept {
    constexpr index_t size = host_tile::size;
    return std::max(shape.rows * ((shape.cols + size - 1) / size), shape.cols * ((shape.rows + size - 1) / size));
  }
  /// mean <- b mean + (1 - b) (row means of (scale r)² + eps1).
  template <executor E>
  void blend(E& exec, const_view_of<E> r, float* mean, double const* b, step_record const* record) const {
    row_mean_squares(exec, r, [=, epsilon = epsilon1] LOWRANK_DEVICE(index_t i, double mean_square) {
      if (record->skip != 0) return;
      double const scale = static_cast<double>(record->grad_scale);
      mean[i] =
          static_cast<float>(*b * static_cast<double>(mean[i]) + (1 - *b) * (scale * scale * mean_square + epsilon));
    });
  }
  /// n <- N before clipping; the sum of its squares into scalars[1].
  template <executor E>
  void divide_by_factors(E& exec, state<typename E::space>& s, const_view_of<E> r, view_of<E> n,
                         step_record const* record) const {
    // Stretches run along memory; which factor belongs to a memory row depends on the side.
    bool const flipped = r.row_stride < r.col_stride && r.cols > 1;
    extents const memory_shape = flipped ? r.shape().t() : r.shape();
    float const* const outer = flipped ? s.col.data() : s.row.data();
    float const* const inner = flipped ? s.row.data() : s.col.data();
    scratch_scope const scope{exec};
    auto* const partial = exec.arena().template take<double>(stretches(r.shape()));
    index_t const across = (memory_shape.cols + host_tile::size - 1) / host_tile::size;
    launch_rows(exec, memory_shape,
                [=, c = s.scalars.data(), from = r.data, to = n.data] LOWRANK_DEVICE(auto tile, index_t row,
                                                                                     index_t first, index_t valid) {
                  using real = typename decltype(tile)::real;
                  index_t const at = row * memory_shape.cols + first;
                  auto g = tile.load(from + at, valid);
                  auto const below = tile.load(inner + first, valid);
                  double const factor = record->skip != 0 ? 0.0 : std::sqrt(c[0] / static_cast<double>(outer[row]));
                  real const scale{static_cast<float>(static_cast<double>(record->grad_scale) * factor)};
                  auto square = g;
                  tile.each([&](auto k) {
                    g[k] = scale * g[k] / square_root(below[k]);
                    square[k] = g[k] * g[k];
                  });
                  tile.store(to + at, g, valid);
                  double const sum = tile.sum(square, valid);
                  tile.once([&] { partial[row * across + first / decltype(tile)::size] = sum; });
                });
    exec.single([=, c = s.scalars.data(), count = memory_shape.rows * across] LOWRANK_DEVICE {
      double sum = 0;
      for (index_t i = 0; i < count; ++i) sum += partial[i];
      c[1] = sum;
    });
  }
  /// n <- direction_scale * (momentum of) lr n / max(1, RMS(n) / clip).
  template <executor E>
  void clip_and_average(E& exec, state<typename E::space>& s, view_of<E> n, step_record const* record) const {
    bool const averages = beta1.has_value();
    auto const b1 = static_cast<float>(beta1.value_or(0)), rest = static_cast<float>(1 - beta1.value_or(0));
    launch_tiles(exec, n.size(),
                 [=, clip = clip_threshold, c = s.scalars.data(), m = s.moment.data(), to = n.data,
                  size = n.size()] LOWRANK_DEVICE(auto tile, index_t first, index_t valid) {
                   using real = typename decltype(tile)::real;
                   auto x = tile.load(to + first, valid);
                   if (record->skip != 0) {
                     tile.each([&](auto k) { x[k] = real{0.0F}; });
                     return tile.store(to + first, x, valid);
                   }
                   double const rms = std::sqrt(c[1] / static_cast<double>(size));
                   real const factor{static_cast<float>(c[2] / std::max(1.0, rms / clip))},
                       out{record->direction_scale};
                   if (averages) {
                     auto average = tile.load(m + first, valid);
                     tile.each([&](auto k) {
                       x[k] = average[k] = fused_multiply_add(real{b1}, average[k], real{rest} * (factor * x[k]));
                     });
                     tile.store(m + first, average, valid);
                     tile.each([&](auto k) { x[k] = out * x[k]; });
                   } else {
                     tile.each([&](auto k) { x[k] = out * (factor * x[k]); });
                   }
                   tile.store(to + first, x, valid);
                 });
  }
};
static_assert(update_rule<adafactor, host_executor>);

}  // namespace lowrank::rule
