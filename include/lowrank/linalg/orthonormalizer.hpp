/// @file
/// Orthonormalisation as a policy: what a finder takes as a template parameter.
///
/// | policy | header | for |
/// | --- | --- | --- |
/// | `orthonormal::cholesky` | this one | everything; `{.options = {}}` for Grams in fp64 throughout |
/// | `orthonormal::householder` | linalg/householder.hpp | small bases on the host; allocates |
/// | `orthonormal::sketched_cholesky` | linalg/sketched_cholesky.hpp | devices with slow fp64 |
/// | `orthonormal::polar` | linalg/polar.hpp | columns that must stay where they are |
#pragma once

#include "lowrank/linalg/orthonormalize.hpp"

namespace lowrank {

/// Replaces the columns of Y (m x l, l <= m) by orthonormal ones that span them, whatever their scale, rank and condition;
/// directions that Y does not provide come from `key` or are arbitrary. NaN or Inf: report->failed, in the executor's
/// memory. `report` may be null. `O::bytes(shape)` is the scratch taken.
template <class O, class E>
concept orthonormalizer = executor<E> && requires(O const orthonormalize, E& exec, view_of<E> y, rng_key const& key,
                                                  orthonormal_report* report, extents shape) {
  orthonormalize(exec, y, key, report);
  { O::bytes(shape) } -> std::same_as<index_t>;
};

namespace orthonormal {

/// `orthonormalize` with its options. Column k is a combination of columns 0 ... k of the input. By default Grams are in fp32
/// where the columns turn out to be well conditioned: a tenth of a refresh less, ‖QᵀQ - I‖_F within 2 sqrt(l) eps.
struct cholesky {
  orthonormal_options options{.first_gram = gram_kind::mixed, .last_gram = gram_kind::mixed};

  [[nodiscard]] static constexpr index_t bytes(extents y) noexcept { return orthonormalize_bytes(y); }
  template <executor E>
  void operator()(E& exec, view_of<E> y, rng_key const& key, orthonormal_report* report = nullptr) const {
    orthonormalize(exec, y, key, report, options);
  }
};

}  // namespace orthonormal
}  // namespace lowrank
