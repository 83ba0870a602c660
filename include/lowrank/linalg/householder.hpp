/// @file
/// Orthonormalisation by Householder reflections, for the host.
#pragma once

#include <limits>

#include "lowrank/linalg/orthonormalizer.hpp"

namespace lowrank::orthonormal {

/// The `householder_qr` that lookup finds for the executor; on the host it allocates a few copies of Y. Libraries leave 1
/// to 4 sqrt(l) eps, and 10 where one reflection makes all columns (equal ones): beyond 2 a Cholesky pass repairs it.
/// Column k is a combination of columns 0 ... k of the input up to the first dependent one. Columns of dependent ones are
/// arbitrary; the range of Y is kept, and `replaced` does not count them.
/// Needs linalg/host/eigen_decompositions.hpp, or linalg/host/blas.hpp.
/// Shapes: Y m x l, l <= m.  Requires: NaN or Inf: `failed` is set and Y holds nothing useful.
/// Ensures: ‖QᵀQ - I‖_F within 3 sqrt(l) eps.
/// Cost: 5 m l² - 4 l³ / 3 flops, 2.3 m l² more to repair; workspace bytes(shape).  Throws: shape_error.
/// Reference: Golub, Van Loan, "Matrix Computations" (4th ed.), 5.2.2.
struct householder {
  [[nodiscard]] static constexpr index_t bytes(extents y) noexcept { return orthonormalize_bytes(y); }
  template <executor E>
  void operator()(E& exec, view_of<E> y, rng_key key, orthonormal_report* report = nullptr) const {
    static_assert(
        requires(const_view_of<E> a) { householder_qr(exec, a, y); },
        "lowrank: Householder QR needs linalg/host/eigen_decompositions.hpp or linalg/host/blas.hpp, on a device "
        "linalg/cuda/decompositions.cuh");
    require<shape_error>(y.cols <= y.rows, "orthonormal::householder", "needs at most as many columns as rows, got ",
                         y.shape());
    if (y.empty()) {
      if (report != nullptr) exec.single([=] LOWRANK_DEVICE { *report = {}; });
      return;
    }
    key.purpose = rng_purpose::completion;
    scratch_scope const scope{exec};
    detail::cholesky_passes<E> work{exec, y, report};
    // A column times a positive number has the same Q, and then no length overflows or vanishes.
    balance_columns(exec, y, &work.seen->failed);
    if (auto const nonfinite = exec.peek(&work.seen->failed); nonfinite && *nonfinite != 0) return;
    householder_qr(exec, const_view_of<E>(y), work.to);
    std::swap(work.from, work.to);
    work.factor(exec, work.from, gram_kind::mixed);
    exec.single([seen = work.seen, condition = work.condition] LOWRANK_DEVICE {
      *seen = {.passes = 1, .departure = condition->departure};
    });
    double const rounding = std::sqrt(static_cast<double>(y.cols)) * std::numeric_limits<float>::epsilon();
    if (!work.nearly_orthonormal(exec, 2 * rounding)) work.apply(exec, key, 2, orthonormal_options{}.departure);
    if (work.from.data != y.data) copy(exec, work.from, y);
  }
};

}  // namespace lowrank::orthonormal
