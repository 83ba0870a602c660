/// @file
/// A LoRA from two dense matrices: what fine-tuning changed, as far as it has low rank.
#pragma once

#include <cmath>
#include <utility>
#include <vector>

#include "lowrank/adapt/lora.hpp"
#include "lowrank/linalg/randomized_svd.hpp"

namespace lowrank::adapt {

/// How much of a change is taken.
struct extraction {
  index_t rank{16};  ///< at most
  double share{1};   ///< of ‖ΔW‖²: the fewest components that hold it
  range_options search{.oversampling = 10, .power_iterations = 2};

  void check(extents shape) const {
    constexpr auto* caller = "extraction";
    detail::check_rank(caller, rank, shape);
    require(share > 0 && share <= 1, caller, "share must be in (0, 1], got ", share);
    require(search.oversampling >= 0 && search.power_iterations >= 0, caller,
            "search must have no negative numbers, got oversampling ", search.oversampling, " and power_iterations ",
            search.power_iterations);
  }
};

/// The adapter, and what it leaves out. Its scale is 1.
struct extracted_lora {
  lora_adapter<float> adapter;
  double change{};  ///< ‖tuned - base‖_F
  double error{};   ///< ‖tuned - base - B A‖_F
};

/// The leading singular triplets of tuned - base: B = U √Σ, A = √Σ Vᵀ.
/// Shapes: both m x n.
/// Cost: a randomized SVD of the rank; allocates one m x n matrix and the factors.
/// Throws: shape_error; argument_error for NaN or infinity.
template <std::derived_from<host_executor> E>
[[nodiscard]] extracted_lora extract(E& exec, matrix_view<float const> base, matrix_view<float const> tuned,
                                     extraction const& settings = {}, rng_key const& key = {}) {
  constexpr auto* caller = "extract";
  require<shape_error>(base.shape() == tuned.shape(), caller, "needs matrices of one shape, got ", base.shape(),
                       " and ", tuned.shape());
  settings.check(base.shape());
  matrix<float> change{base.shape()};
  copy(exec, tuned, change.view());
  axpy(exec, -1.0F, base, change.view());
  double whole = 0;
  squared_norm(exec, change.view(), &whole);
  require(is_finite(whole), caller, "needs finite matrices, got NaN or infinity in their difference");

  index_t const most = settings.rank;
  matrix<float> u{base.rows, most}, v{base.cols, most};
  std::vector<double> values(static_cast<std::size_t>(most));
  exec.reserve(randomized_svd_bytes(base.shape(), most, settings.search));
  range_report report;
  randomized_svd(exec, std::as_const(change).view(), most, {.u = u.view(), .values = values.data(), .v = v.view()},
                 settings.search, key, &report);
  require(report.failed == 0, caller, "needs a difference whose singular vectors can be found in fp32");
  index_t r = 0;
  for (double held = 0; r < most && (r == 0 || held < settings.share * whole); ++r)
    held += values[static_cast<std::size_t>(r)] * values[static_cast<std::size_t>(r)];

  lora_adapter<float> adapter{{.rank = r, .alpha = static_cast<float>(r)}, base.shape(), key};
  adapter.set_components(std::span{values}.first(static_cast<std::size_t>(r)), std::as_const(u).view(),
                         std::as_const(v).view());
  double left = 0;
  adapter.add_to(exec, -1.0F, change.view());
  squared_norm(exec, change.view(), &left);
  return {std::move(adapter), std::sqrt(whole), std::sqrt(left)};
}

}  // namespace lowrank::adapt
