/// @file
/// Eigenvectors, exact SVD and Householder QR for `blas_executor`, by LAPACK.
#pragma once

#include <lapacke.h>

#include <algorithm>

#include "lowrank/linalg/columns.hpp"
#include "lowrank/linalg/host/blas_executor.hpp"
#include "lowrank/linalg/host/detail/svd_result.hpp"
#include "lowrank/linalg/host/symmetric_eigen.hpp"
#include "lowrank/linalg/svd_output.hpp"

namespace lowrank {

namespace detail {

[[nodiscard]] inline lapack_int lapack_size(index_t x) { return static_cast<lapack_int>(x); }

/// Runs a LAPACK routine twice: for the size of its workspace, then with it.
template <class T = float, class Call>
[[nodiscard]] lapack_int with_workspace(Call const& call) {
  T size = 0;
  if (auto const info = call(&size, lapack_int{-1}); info != 0) return info;
  // The size comes back as a float, which may have been rounded down.
  buffer<T> work{static_cast<index_t>(static_cast<double>(size) * (1 + 1e-6)) + 1};
  return call(work.data(), lapack_size(work.size()));
}

}  // namespace detail

/// As symmetric_eigen(host_executor&, ...), by divide and conquer.
/// Reference: LAPACK dsyevd.
inline void symmetric_eigen(blas_executor& exec, matrix_view<double> c, double* values, std::int32_t* failed) {
  require<shape_error>(c.rows == c.cols, "symmetric_eigen", "needs a square matrix, got ", c.shape());
  require<shape_error>(c.col_stride == 1 || c.cols <= 1, "symmetric_eigen", "needs neighbouring columns, got stride ",
                       c.col_stride);
  *failed = 0;
  index_t const n = c.rows;
  if (n == 0) return;
  std::uint32_t bad = 0;
  for (index_t i = 0; i < n; ++i)
    for (index_t j = 0; j <= i; ++j) bad |= is_finite(c(i, j)) ? 0U : 1U;
  if (bad != 0) {
    *failed = 1;
    return;
  }
  scratch_scope const scope{exec};
  auto* const memory = exec.arena().take<double>(detail::eigen_workspace::doubles(n));
  index_t const length = 1 + 6 * n + 2 * n * n;
  auto* const integers = reinterpret_cast<lapack_int*>(memory + length);
  index_t const integer_count =
      (detail::eigen_workspace::doubles(n) - length) * index_t{sizeof(double)} / index_t{sizeof(lapack_int)};
  // Our lower triangle, row by row, is LAPACK's upper one, column by column.
  auto const info = LAPACKE_dsyevd_work(LAPACK_COL_MAJOR, 'V', 'U', detail::lapack_size(n), c.data,
                                        detail::lapack_size(std::max(c.row_stride, n)), values, memory,
                                        detail::lapack_size(length), integers, detail::lapack_size(integer_count));
  if (info != 0) {
    *failed = 1;
    return;
  }
  auto const rows = row_major(memory, {n, n});
  copy(exec, c, rows);
  auto const turned = matrix_view<double const>{rows.data + (n - 1) * n, n, n, 1, -n};  // last row as first column
  detail::for_row_groups(exec, c.shape(), [&](index_t begin, index_t end) {
    for (index_t i = begin; i < end; ++i)
      for (index_t j = 0; j < n; ++j) c(i, j) = turned(i, j);
  });
  std::reverse(values, values + n);
}

/// As exact_svd(host_executor&, ...).
/// Reference: LAPACK sgesdd.
inline svd_status exact_svd(blas_executor& exec, matrix_view<float const> a, svd_output<> const& out) {
  index_t const m = a.rows, n = a.cols, k = std::min(m, n);
  detail::check_svd_output("exact_svd", a.shape(), k, out);
  if (!detail::all_finite(a)) return svd_status::not_finite;
  if (k == 0) return svd_status::converged;
  bool const vectors = out.wants_u() || out.wants_v();
  // Column-major copies: A, U and Vᵀ.
  matrix<float> work{n, m}, u{vectors ? extents{k, m} : extents{1, 1}}, vt{vectors ? extents{n, k} : extents{1, 1}};
  copy(exec, a, work.view().t());
  buffer<float> values{k};
  buffer<lapack_int> integers{8 * k};
  auto const size = [](index_t x) { return detail::lapack_size(x); };
  auto const info = detail::with_workspace([&](float* memory, lapack_int length) {
    return LAPACKE_sgesdd_work(LAPACK_COL_MAJOR, vectors ? 'S' : 'N', size(m), size(n), work.data(), size(m),
                               values.data(), u.data(), size(vectors ? m : 1), vt.data(), size(vectors ? k : 1), memory,
                               length, integers.data());
  });
  if (info != 0) return svd_status::not_converged;
  if (out.values != nullptr)
    for (index_t i = 0; i < k; ++i) out.values[i] = static_cast<double>(values.data()[i]);
  if (vectors) {
    detail::orient_pair(u.view().t(), vt.view());
    if (out.wants_u()) copy(exec, u.view().t(), out.u);
    if (out.wants_v()) copy(exec, vt.view(), out.v);
  }
  return svd_status::converged;
}

/// As exact_singular_values(host_executor&, ...).
/// Reference: LAPACK dgesdd.
inline svd_status exact_singular_values(blas_executor&, matrix_view<float const> a, double* values) {
  // LAPACK reduces a tall matrix to its triangular factor first; of a wide one the flipped view is tall.
  if (a.rows < a.cols) a = a.t();
  index_t const m = a.rows, n = a.cols;
  if (!detail::all_finite(a)) return svd_status::not_finite;
  if (n == 0) return svd_status::converged;
  matrix<double> work{n, m};
  for (index_t j = 0; j < n; ++j)
    for (index_t i = 0; i < m; ++i) work(j, i) = static_cast<double>(a(i, j));
  buffer<lapack_int> integers{8 * n};
  double unused = 0;
  auto const info = detail::with_workspace<double>([&](double* memory, lapack_int length) {
    return LAPACKE_dgesdd_work(LAPACK_COL_MAJOR, 'N', detail::lapack_size(m), detail::lapack_size(n), work.data(),
                               detail::lapack_size(m), values, &unused, 1, &unused, 1, memory, length, integers.data());
  });
  return info == 0 ? svd_status::converged : svd_status::not_converged;
}

/// As householder_qr(host_executor&, ...).
/// Reference: LAPACK sgeqrf, sorgqr.
inline void householder_qr(blas_executor& exec, matrix_view<float const> a, matrix_view<float> q) {
  index_t const m = a.rows, n = a.cols, k = std::min(m, n);
  require<shape_error>(q.shape() == extents{m, k}, "householder_qr", "needs q of ", extents{m, k}, ", got ", q.shape());
  if (k == 0) return;
  matrix<float> work{n, m};
  copy(exec, a, work.view().t());
  buffer<float> tau{k}, sign{k};
  auto const size = [](index_t x) { return detail::lapack_size(x); };
  auto info = detail::with_workspace([&](float* memory, lapack_int length) {
    return LAPACKE_sgeqrf_work(LAPACK_COL_MAJOR, size(m), size(n), work.data(), size(m), tau.data(), memory, length);
  });
  for (index_t j = 0; j < k; ++j) sign.data()[j] = work(j, j) < 0 ? -1.0F : 1.0F;
  if (info == 0)
    info = detail::with_workspace([&](float* memory, lapack_int length) {
      return LAPACKE_sorgqr_work(LAPACK_COL_MAJOR, size(m), size(k), size(k), work.data(), size(m), tau.data(), memory,
                                 length);
    });
  require(info == 0, "householder_qr", "LAPACK refused argument ", -info);
  detail::for_row_groups(exec, q.shape(), [&](index_t begin, index_t end) {
    for (index_t i = begin; i < end; ++i)
      for (index_t j = 0; j < k; ++j) q(i, j) = work(j, i) * sign.data()[j];
  });
}

}  // namespace lowrank
