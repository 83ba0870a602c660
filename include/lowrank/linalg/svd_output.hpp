/// @file
/// Where singular vectors and values go; what is left empty is not computed.
#pragma once

#include <ostream>

#include "lowrank/core/error.hpp"
#include "lowrank/core/view.hpp"

namespace lowrank {

/// A ~ U diag(values) Vᵀ: thin, values descending, the entry of largest magnitude of every column of U positive.
/// Shapes: U m x r, V n x r, either may be empty; values r, in the memory space of the views, may be null.
template <memory_space Space = host_space>
struct svd_output {
  matrix_view<float, Space> u{};
  double* values{};
  matrix_view<float, Space> v{};

  [[nodiscard]] constexpr bool wants_u() const noexcept { return u.data != nullptr; }
  [[nodiscard]] constexpr bool wants_v() const noexcept { return v.data != nullptr; }
};

enum class svd_status : std::uint8_t {
  converged,
  not_finite,     ///< the input had NaN or Inf; nothing was computed
  not_converged,  ///< the outputs hold nothing useful
};

[[nodiscard]] constexpr char const* name(svd_status status) noexcept {
  switch (status) {
    case svd_status::converged:
      return "converged";
    case svd_status::not_finite:
      return "input not finite";
    case svd_status::not_converged:
      return "did not converge";
  }
  return "unknown";
}
inline std::ostream& operator<<(std::ostream& out, svd_status status) { return out << name(status); }

namespace detail {

/// Refuses outputs that do not fit m x n with `r` triplets.
template <memory_space Space>
void check_svd_output(char const* caller, extents a, index_t r, svd_output<Space> const& out) {
  require<shape_error>(!out.wants_u() || out.u.shape() == extents{a.rows, r}, caller, "needs u of ", extents{a.rows, r},
                       " for ", a, ", got ", out.u.shape());
  require<shape_error>(!out.wants_v() || out.v.shape() == extents{a.cols, r}, caller, "needs v of ", extents{a.cols, r},
                       " for ", a, ", got ", out.v.shape());
}

}  // namespace detail
}  // namespace lowrank
