/// @file
/// The basis of what gradients have in common.
#pragma once

#include "lowrank/basis/finder.hpp"
#include "lowrank/core/refresh_report.hpp"
#include "lowrank/linalg/route.hpp"
#include "lowrank/linalg/tracked_range.hpp"

namespace lowrank::basis {

/// Leading eigenvectors of the running mean of GGᵀ, followed by one pass a refresh. The exact SVD of one mini-batch fits
/// the noise of that batch and predicts the next gradient worst; this predicts it best. Meant for frequent refreshes: at
/// every step, or every few.
/// State: r x r numbers and an exponent. Cost: `tracked_range`; the first basis from a sketch.
template <class Orthonormalizer = orthonormal::cholesky>
struct basic_tracked : one_sided {
  static constexpr finder_traits traits{.keeps_state = true, .reads_previous = true};

  tracking_options track{};
  range_options cold{.power_iterations = 2};
  Orthonormalizer make_orthonormal{};

  template <memory_space S>
  struct state {
    buffer<float, S> mean;  ///< L, k x k in a prefix, k the columns of the basis in use
    buffer<std::int64_t, S> exponent;
    friend void visit_state(state& s, auto&& f) {
      f("mean", s.mean);
      f("exponent", s.exponent);
    }
  };

  void check() const {
    require(track.forgetting >= 0 && track.forgetting < 1, "basis::tracked", "forgetting must be in [0, 1), got ",
            track.forgetting);
    require(track.fresh >= 0 && cold.oversampling >= 0 && cold.power_iterations >= 0, "basis::tracked",
            "fresh, oversampling and power_iterations must not be negative, got ", track.fresh, ", ", cold.oversampling,
            " and ", cold.power_iterations);
  }
  template <executor E>
  [[nodiscard]] state<typename E::space> init(E&, extents, index_t r) const {
    return {.mean = buffer<float, typename E::space>(r * r), .exponent = buffer<std::int64_t, typename E::space>(1)};
  }
  [[nodiscard]] static constexpr index_t bytes(extents, index_t r) noexcept {
    return r * r * index_t{sizeof(float)} + index_t{sizeof(std::int64_t)};
  }
  [[nodiscard]] double flops(extents g, index_t r, index_t tokens) const {
    auto const m = static_cast<double>(g.rows), k = static_cast<double>(r);
    return warm_range_flops({g, r, track.fresh, 1, tokens, range_start::warm}).cost() + 6 * m * k * k;
  }
  [[nodiscard]] index_t workspace_bytes(extents g, index_t r, index_t tokens) const {
    return scratch_bytes<range_report>(1) + scratch_bytes<float>(r * r) + scratch_bytes<std::int64_t>(1) +
           std::max(tracked_range_bytes<Orthonormalizer>(g, r, r, track, tokens),
                    scratch_bytes<double>(r) + find_range_bytes(g, r, cold, tokens));
  }
  /// As `basis::warm_start`.
  [[nodiscard]] index_t resize_bytes(extents g, index_t r, index_t tokens) const {
    return scratch_bytes<range_report>(1) + scratch_bytes<float>(r * r) + scratch_bytes<std::int64_t>(1) +
           tracked_range_bytes<Orthonormalizer>(g, r, std::min<index_t>(r, 1), track, tokens);
  }
  void observe(auto&, refresh_report const&) const {}
  template <executor E, gradient G>
  void find(E& exec, state<typename E::space>& s, finder_inputs<E, G> const& in, view_of<E> p,
            std::int32_t* failed) const {
    using space = typename E::space;
    scratch_scope const scope{exec};
    auto& arena = exec.arena();
    auto* const report = arena.template take<range_report>(1);
    tracked_mean<space> const next{take_matrix(exec, {p.cols, p.cols}), arena.template take<std::int64_t>(1)};
    if (in.previous.empty()) {
      start(exec, in, p, next, report);
    } else {
      index_t const k = in.previous.cols;
      tracked_mean<space> const now{row_major<space>(s.mean.data(), {k, k}), s.exponent.data()};
      tracked_range(exec, in.gradient, in.previous, now, p, next, track, in.key, report, make_orthonormal);
    }
    exec.single([=] LOWRANK_DEVICE { *failed = report->failed; });
    if (auto const bad = exec.peek(failed); bad && *bad != 0) return;
    copy(exec, next.l, row_major<space>(s.mean.data(), next.l.shape()));
    exec.single([to = s.exponent.data(), from = next.exponent] LOWRANK_DEVICE { *to = *from; });
  }

 public:  // Not for callers: a CUDA compiler takes no kernel from a private function
  /// L = diag(energies): the mean begins with the first gradient.
  template <executor E, gradient G>
  void start(E& exec, finder_inputs<E, G> const& in, view_of<E> p, tracked_mean<typename E::space> const& mean,
             range_report* report) const {
    scratch_scope const scope{exec};
    auto* const energies = exec.arena().template take<double>(p.cols);
    find_range(exec, in.gradient, p, cold, in.key, report, energies);
    fill(exec, mean.l, 0.0F);
    exec.single([=, r = p.cols, l = mean.l, exponent = mean.exponent] LOWRANK_DEVICE {
      double most = 0;
      for (index_t k = 0; k < r; ++k) most = std::max(most, energies[k]);
      int e = 0;
      if (report->failed == 0 && most > 0) std::frexp(most, &e);
      for (index_t k = 0; k < r; ++k)
        l(k, k) = report->failed == 0 ? static_cast<float>(std::ldexp(energies[k], -e)) : 0.0F;
      *exponent = e;
    });
  }
};
using tracked = basic_tracked<>;

}  // namespace lowrank::basis
