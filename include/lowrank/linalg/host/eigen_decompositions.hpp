/// @file
/// Exact SVD and Householder QR for `host_executor`, by Eigen: the bodies of linalg/host/decompositions.hpp. Costs half a
/// minute to compile, so no other header includes it.
#pragma once

#include <algorithm>
#include <Eigen/Core>
#include <Eigen/QR>
#include <Eigen/SVD>

#include "lowrank/linalg/columns.hpp"
#include "lowrank/linalg/host/decompositions.hpp"
#include "lowrank/linalg/host/detail/svd_result.hpp"

namespace lowrank {

namespace detail {

using eigen_matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic>;

/// A copy of `a` for Eigen to work on.
[[nodiscard]] inline eigen_matrix to_eigen(matrix_view<float const> a) {
  using strides = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
  return Eigen::Map<eigen_matrix const, 0, strides>{a.data, a.rows, a.cols, strides{a.col_stride, a.row_stride}};
}

}  // namespace detail

template <std::derived_from<host_executor> E>
svd_status exact_svd(E& exec, matrix_view<float const> a, svd_output<> const& out) {
  index_t const k = std::min(a.rows, a.cols);
  detail::check_svd_output("exact_svd", a.shape(), k, out);
  if (!detail::all_finite(a)) return svd_status::not_finite;
  if (k == 0) return svd_status::converged;
  detail::svd_scale const scale{a};
  detail::eigen_matrix work = detail::to_eigen(a) * scale.down;
  unsigned wanted = 0;
  // Signs come from U, so V alone needs it too.
  if (out.wants_u() || out.wants_v()) wanted |= static_cast<unsigned>(Eigen::ComputeThinU);
  if (out.wants_v()) wanted |= static_cast<unsigned>(Eigen::ComputeThinV);
  Eigen::BDCSVD<detail::eigen_matrix> const svd{work, wanted};
  // Zero is Eigen's success, by a name that X11 makes a macro of.
  if (svd.info() != Eigen::ComputationInfo{}) return svd_status::not_converged;
  if (out.values != nullptr)
    for (index_t i = 0; i < k; ++i) out.values[i] = static_cast<double>(svd.singularValues()[i]) * scale.up;
  auto const view = [](detail::eigen_matrix const& x) { return row_major(x.data(), {x.cols(), x.rows()}).t(); };
  if (wanted != 0) {
    detail::eigen_matrix u = svd.matrixU();
    detail::eigen_matrix v = out.wants_v() ? svd.matrixV() : detail::eigen_matrix{};
    detail::orient_pair(row_major(u.data(), {k, a.rows}).t(), row_major(v.data(), {v.cols(), v.rows()}).t());
    if (out.wants_u()) copy(exec, view(u), out.u);
    if (out.wants_v()) copy(exec, view(v), out.v);
  }
  return svd_status::converged;
}

template <std::derived_from<host_executor> E>
svd_status exact_singular_values(E&, matrix_view<float const> a, double* values) {
  if (!detail::all_finite(a)) return svd_status::not_finite;
  index_t const k = std::min(a.rows, a.cols);
  if (k == 0) return svd_status::converged;
  detail::svd_scale const scale{a};
  Eigen::BDCSVD<Eigen::MatrixXd> const svd{detail::to_eigen(a).cast<double>() / scale.up, 0U};
  if (svd.info() != Eigen::ComputationInfo{}) return svd_status::not_converged;
  for (index_t i = 0; i < k; ++i) values[i] = svd.singularValues()[i] * scale.up;
  return svd_status::converged;
}

template <std::derived_from<host_executor> E>
void householder_qr(E& exec, matrix_view<float const> a, matrix_view<float> q) {
  index_t const k = std::min(a.rows, a.cols);
  require<shape_error>(q.shape() == extents{a.rows, k}, "householder_qr", "needs q of ", extents{a.rows, k}, ", got ",
                       q.shape());
  if (k == 0) return;
  Eigen::HouseholderQR<detail::eigen_matrix> const qr{detail::to_eigen(a)};
  detail::eigen_matrix thin = detail::eigen_matrix::Identity(a.rows, k);
  thin.applyOnTheLeft(qr.householderQ());
  for (index_t j = 0; j < k; ++j)
    if (qr.matrixQR()(j, j) < 0) thin.col(j) = -thin.col(j);
  copy(exec, row_major(static_cast<float const*>(thin.data()), {k, a.rows}).t(), q);
}

}  // namespace lowrank
