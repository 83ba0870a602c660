/// @file
/// Exact SVD and Householder QR on a device, by cuSOLVER. Everything they need is in the executor's own memory for
/// cuSOLVER: the first call of a size waits for that, and graphs cannot capture it.
#pragma once

#include <cmath>

#include "lowrank/linalg/cuda/columns.cuh"
#include "lowrank/linalg/svd_output.hpp"

namespace lowrank {

namespace detail {

/// Whether a matrix with that largest magnitude is finite, and the power of two that brings it into [1/2, 1).
struct svd_unit {
  float down{1.0F};
  double up{1.0};

  explicit svd_unit(std::uint32_t largest) noexcept {
    if (largest == 0) return;
    int const exponent = std::clamp(binary_exponent(largest) + 1, -126, 126);
    down = std::ldexp(1.0F, -exponent), up = std::ldexp(1.0, exponent);
  }
};

[[nodiscard]] inline int solver_size(index_t x) {
  require<shape_error>(x <= std::numeric_limits<int>::max(), "cuSOLVER", "takes at most 2^31 - 1 rows or columns, got ",
                       x);
  return static_cast<int>(x);
}

}  // namespace detail

/// As exact_svd(host_executor&, ...).
/// Synchronises: the host has to know whether A is finite, and whether the iteration converged.
/// Throws: shape_error, cuda_error, cuda_bad_alloc.
/// Reference: cuSOLVER, cusolverDnSgesvd.
inline svd_status exact_svd(cuda_executor& exec, matrix_view<float const, device_space> a,
                            svd_output<device_space> const& out) {
  index_t const k = std::min(a.rows, a.cols);
  detail::check_svd_output("exact_svd", a.shape(), k, out);
  if (k == 0) return svd_status::converged;
  look_scope const look{exec};
  bool const flipped = a.rows < a.cols;
  auto const tall = flipped ? a.t() : a;  // the library takes no other
  index_t const m = tall.rows;
  int const rows = detail::solver_size(m), columns = detail::solver_size(k);
  bool const vectors = out.wants_u() || out.wants_v();
  int length = 0;
  detail::check_library(cusolverDnSgesvd_bufferSize(exec.solver(), rows, columns, &length),
                        "cusolverDnSgesvd_bufferSize");
  index_t const needed = 2 * scratch_bytes<float>(m * k) + scratch_bytes<float>(k * k) + scratch_bytes<float>(k) +
                         scratch_bytes<float>(length) + scratch_bytes<std::uint32_t>(1) + scratch_bytes<int>(1);
  scratch<device_space> memory;
  memory.adopt(exec.solver_memory(needed), needed);
  // Column-major for the library: A, U and Vᵀ.
  auto const work = row_major<device_space>(memory.take<float>(m * k), {k, m}).t();
  auto const u = row_major<device_space>(memory.take<float>(m * k), {k, m}).t();
  auto const v = row_major<device_space>(memory.take<float>(k * k), {k, k});
  auto* const values = memory.take<float>(k);
  auto* const space = memory.take<float>(length);
  auto* const largest = memory.take<std::uint32_t>(1);
  auto* const info = memory.take<int>(1);

  detail::largest_magnitude(exec, a, largest);
  auto const magnitude = exec.peek(largest).value();
  if (magnitude >= 0x7F800000U) return svd_status::not_finite;
  detail::svd_unit const unit{magnitude};
  detail::map_elements(exec, "exact_svd", tall, work, [down = unit.down] __device__(float x) { return x * down; });
  auto const job = static_cast<signed char>(vectors ? 'S' : 'N');
  detail::check_library(cusolverDnSgesvd(exec.solver(), job, job, rows, columns, work.data, rows, values, u.data, rows,
                                         v.data, columns, space, length, nullptr, info),
                        "cusolverDnSgesvd");
  if (exec.peek(info).value() != 0) return svd_status::not_converged;
  if (out.values != nullptr)
    detail::for_elements(exec, {1, k}, [=, to = out.values, up = unit.up] __device__(index_t, index_t j) {
      to[j] = static_cast<double>(values[j]) * up;
    });
  if (!vectors) return svd_status::converged;
  auto const left = flipped ? v : u, right = flipped ? u : v;
  auto* const entries = detail::panel<detail::leading_entry>(exec, "exact_svd", k);
  detail::leading_entries(exec, left, entries);
  detail::orient_by(exec, left, entries);
  detail::orient_by(exec, right, entries);
  if (out.wants_u()) copy(exec, left, out.u);
  if (out.wants_v()) copy(exec, right, out.v);
  return svd_status::converged;
}

/// As householder_qr(host_executor&, ...).
/// Throws: shape_error, cuda_error, cuda_bad_alloc.
/// Reference: cuSOLVER, cusolverDnSgeqrf and cusolverDnSorgqr.
inline void householder_qr(cuda_executor& exec, matrix_view<float const, device_space> a,
                           matrix_view<float, device_space> q) {
  index_t const m = a.rows, n = a.cols, k = std::min(m, n);
  require<shape_error>(q.shape() == extents{m, k}, "householder_qr", "needs q of ", extents{m, k}, ", got ", q.shape());
  if (k == 0) return;
  int const rows = detail::solver_size(m), columns = detail::solver_size(n), kept = detail::solver_size(k);
  int length = 0, length_of_q = 0;
  detail::check_library(cusolverDnSgeqrf_bufferSize(exec.solver(), rows, columns, nullptr, rows, &length),
                        "cusolverDnSgeqrf_bufferSize");
  detail::check_library(
      cusolverDnSorgqr_bufferSize(exec.solver(), rows, kept, kept, nullptr, rows, nullptr, &length_of_q),
      "cusolverDnSorgqr_bufferSize");
  length = std::max(length, length_of_q);
  index_t const needed =
      scratch_bytes<float>(m * n) + 2 * scratch_bytes<float>(k) + scratch_bytes<float>(length) + scratch_bytes<int>(1);
  scratch<device_space> memory;
  memory.adopt(exec.solver_memory(needed), needed);
  auto const work = row_major<device_space>(memory.take<float>(m * n), {n, m}).t();
  auto *const tau = memory.take<float>(k), *const sign = memory.take<float>(k);
  auto* const space = memory.take<float>(length);
  auto* const info = memory.take<int>(1);
  copy(exec, a, work);
  detail::check_library(cusolverDnSgeqrf(exec.solver(), rows, columns, work.data, rows, tau, space, length, info),
                        "cusolverDnSgeqrf");
  detail::for_elements(exec, {1, k}, [=] __device__(index_t, index_t j) { sign[j] = work(j, j) < 0 ? -1.0F : 1.0F; });
  detail::check_library(cusolverDnSorgqr(exec.solver(), rows, kept, kept, work.data, rows, tau, space, length, info),
                        "cusolverDnSorgqr");
  auto const thin = work.col_range(0, k);
  scale_columns(exec, thin, [=] __device__(index_t j) { return sign[j]; });
  copy(exec, thin, q);
}

}  // namespace lowrank
