/// @file
/// The ways of finding a subspace that are put side by side. A new one is a row here.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "basis/gradient_recording.hpp"
#include "basis/wide_reference.hpp"
#include "lowrank/linalg/gram_range.hpp"
#include "lowrank/linalg/range_finder.hpp"
#include "lowrank/linalg/tracked_range.hpp"
#include "lowrank/linalg/warm_range.hpp"

namespace lowrank::bench {

enum class outcome : std::uint8_t { found, failed };

/// P of one gradient from nothing but that gradient and the P of an older one, which is exact.
struct refresh_method {
  std::string id, title;
  std::function<outcome(engine&, gradient_sample const& g, matrix_view<float const> old, matrix_view<float> p,
                        rng_key const&)>
      find;
};

/// P, exact for the gradient before the first, changed for every gradient in turn. `start` makes one that may remember
/// more than P.
struct every_step_method {
  using update = std::function<outcome(engine&, gradient_sample const& g, matrix_view<float> p, rng_key const&)>;

  std::string id, title;
  std::function<update(engine&, gradient_sample const& first, matrix_view<float const> p)> start;
};

namespace detail {

inline outcome copy_exact(engine& exec, gradient_sample const& g, matrix_view<float> p) {
  copy(exec, g.exact.u.view().col_range(0, p.cols), p);
  return outcome::found;
}

[[nodiscard]] inline refresh_method cold(index_t power_iterations) {
  auto const q = std::to_string(power_iterations);
  return {"cold" + q, "cold, q = " + q + ", p = 8",
          [=](engine& exec, gradient_sample const& g, auto, matrix_view<float> p, rng_key const& key) {
            range_options const options{.power_iterations = power_iterations};
            range_report report;
            exec.reserve(find_range_bytes(g.view().shape(), p.cols, options));
            find_range(exec, g.view(), p, options, key, &report);
            return report.failed == 0 ? outcome::found : outcome::failed;
          }};
}

/// Directions of G from those of `from`, which may be `p` itself.
inline outcome iterate_once_more(engine& exec, gradient_sample const& g, matrix_view<float const> from,
                                 matrix_view<float> p, warm_options const& options, rng_key const& key) {
  range_report report;
  matrix<float> q{p.shape()};
  exec.reserve(warm_range_bytes(g.view().shape(), from.cols, p.cols, options));
  warm_range(exec, g.view(), from, q.view(), options, key, &report);
  copy(exec, q.view(), p);
  return report.failed == 0 ? outcome::found : outcome::failed;
}

[[nodiscard]] inline refresh_method warm(index_t passes, index_t fresh,
                                         between_products between = between_products::orthonormalize) {
  auto const k = std::to_string(passes), more = std::to_string(fresh);
  std::string const id = between == between_products::nothing ? "_plain"
                         : between == between_products::shift ? "_shift"
                                                              : "";
  warm_options const options{.fresh = fresh, .passes = passes, .between = between};
  return {"warm" + k + (fresh > 0 ? "p" + more : "") + id,
          "warm, passes = " + k + ", p = " + more + (id.empty() ? "" : ", " + id.substr(1)),
          [=](engine& exec, gradient_sample const& g, matrix_view<float const> old, matrix_view<float> p,
              rng_key const& key) { return iterate_once_more(exec, g, old, p, options, key); }};
}

/// By way of C = GGᵀ.
[[nodiscard]] inline refresh_method by_gram(std::string id, std::string title, gram_range_options const& options) {
  return {std::move(id), std::move(title),
          [=](engine& exec, gradient_sample const& g, auto, matrix_view<float> p, rng_key const& key) {
            range_report report;
            exec.reserve(gram_range_bytes(g.view().shape(), p.cols, options));
            find_range_by_gram(exec, g.view(), p, options, key, &report);
            return report.failed == 0 ? outcome::found : outcome::failed;
          }};
}

/// The library's tracker with the memory it asks for, filled as if the first gradient had been all there ever was.
class tracker {
 public:
  tracker(engine& exec, tracking_options const& options, gradient_sample const& first, matrix_view<float const> p)
      : options_{options}, mean_{p.cols, p.cols}, next_{p.cols, p.cols} {
    matrix<float> inner{p.cols, first.view().cols};
    multiply(exec, 1.0F, p.t(), first.view(), 0.0F, inner.view());
    unit_scale drawn;
    scale_to_unit(exec, inner.view(), &drawn);
    multiply(exec, 1.0F, inner.view(), inner.view().t(), 0.0F, mean_.view());
    exponent_ = 2 * std::int64_t{drawn.exponent};
  }
  outcome update(engine& exec, gradient_sample const& g, matrix_view<float> p, rng_key const& key) {
    range_report report;
    matrix<float> q{p.shape()};
    exec.reserve(tracked_range_bytes(g.view().shape(), p.cols, p.cols, options_));
    tracked_range(exec, g.view(), p, {mean_.view(), &exponent_}, q.view(), {next_.view(), &next_exponent_}, options_,
                  key, &report);
    copy(exec, q.view(), p);
    std::swap(mean_, next_);
    std::swap(exponent_, next_exponent_);
    return report.failed == 0 ? outcome::found : outcome::failed;
  }

 private:
  tracking_options options_;
  matrix<float> mean_, next_;
  std::int64_t exponent_{}, next_exponent_{};
};

[[nodiscard]] inline every_step_method tracked(std::string id, tracking_options const& options,
                                               std::string const& shown) {
  return {std::move(id), "tracked, b = " + shown,
          [=](engine& exec, gradient_sample const& first, matrix_view<float const> start) -> every_step_method::update {
            return [memory = std::make_shared<tracker>(exec, options, first, start)](
                       engine& e, gradient_sample const& g, matrix_view<float> p, rng_key const& key) {
              return memory->update(e, g, p, key);
            };
          }};
}
[[nodiscard]] inline every_step_method tracked_in_fp64(std::string id, double decay, std::string const& shown) {
  return {std::move(id), "tracked in fp64, b = " + shown,
          [=](engine&, gradient_sample const& first, matrix_view<float const> start) -> every_step_method::update {
            return [memory = std::make_shared<tracked_wide>(decay, first.view(), start)](
                       engine&, gradient_sample const& g, matrix_view<float> p, rng_key const& key) {
              memory->update(g.view(), p, key);
              return outcome::found;
            };
          }};
}

}  // namespace detail

[[nodiscard]] inline std::vector<refresh_method> refresh_methods() {
  return {
      {"stale", "the old P",
       [](engine& exec, auto const&, matrix_view<float const> old, matrix_view<float> p, auto const&) {
         copy(exec, old, p);
         return outcome::found;
       }},
      detail::warm(1, 0, between_products::nothing),
      detail::warm(1, 0, between_products::shift),
      detail::warm(1, 0),
      detail::warm(1, 8),
      detail::warm(2, 8),
      detail::warm(2, 16),
      detail::warm(3, 8),
      detail::cold(1),
      detail::cold(2),
      detail::by_gram("gram", "GGᵀ, eigenvectors", {.solver = gram_solver::eigen}),
      detail::by_gram("gram4", "GGᵀ, 4 iterations", {.solver = gram_solver::subspace, .iterations = 4}),
      {"exact", "exact SVD",
       [](engine& exec, gradient_sample const& g, auto, matrix_view<float> p, auto const&) {
         return detail::copy_exact(exec, g, p);
       }},
  };
}

[[nodiscard]] inline std::vector<every_step_method> every_step_methods() {
  // What remembers nothing but P needs nothing to start with.
  auto const from = [](every_step_method::update const& update) {
    return [=](engine&, gradient_sample const&, matrix_view<float const>) { return update; };
  };
  return {
      {"exact", "exact SVD", from([](engine& exec, gradient_sample const& g, matrix_view<float> p, auto const&) {
         return detail::copy_exact(exec, g, p);
       })},
      {"kept", "exact once, kept", from([](auto&&...) { return outcome::found; })},
      {"warm1", "warm 1 pass",
       from([](engine& exec, gradient_sample const& g, matrix_view<float> p, rng_key const& key) {
         return detail::iterate_once_more(exec, g, p, p, {}, key);
       })},
      {"warm1_fp64", "warm 1 pass in fp64",
       from([](engine&, gradient_sample const& g, matrix_view<float> p, rng_key const& key) {
         warm_wide(g.view(), p, key);
         return outcome::found;
       })},
      detail::tracked("tracked5", {.forgetting = 0.5}, ".5"),
      detail::tracked_in_fp64("tracked5_fp64", 0.5, ".5"),
      detail::tracked("tracked7", {.forgetting = 0.7}, ".7"),
      detail::tracked("tracked8", {.forgetting = 0.8}, ".8"),
      detail::tracked("tracked8p8", {.forgetting = 0.8, .fresh = 8}, ".8, p = 8"),
      detail::tracked_in_fp64("tracked8_fp64", 0.8, ".8"),
  };
}

}  // namespace lowrank::bench
