/// @file
/// Products for `host_executor` by Eigen: bitwise equal for any number of threads, on one machine and build.
#pragma once

#include <Eigen/Core>
#include <tuple>

#include "lowrank/linalg/host/detail/tiled_products.hpp"
#include "lowrank/linalg/primitives.hpp"

namespace lowrank {

namespace detail {

/// Eigen's kernel with panels of fixed size in memory we bring: the public product would allocate its panels, size them
/// by the number of threads, and start OpenMP threads of its own in programs built with -fopenmp.
template <class T>
struct fixed_blocking : Eigen::internal::level3_blocking<T, T> {
  static constexpr index_t depth = sizeof(T) == 4 ? 320 : 256, rows = 192, cols = 384;

  explicit fixed_blocking(std::byte* memory, index_t k, index_t m, index_t n) noexcept {
    this->m_kc = std::min(depth, k);
    this->m_mc = std::min(rows, m);
    this->m_nc = std::min(cols, n);
    this->m_blockA = reinterpret_cast<T*>(memory);
    this->m_blockB = this->m_blockA + depth * rows;
  }
  static constexpr index_t bytes = (depth * rows + depth * cols) * index_t{sizeof(T)};
};

template <class T, int Left, int Right>
void eigen_product(std::byte* memory, T alpha, unit_stride<T const> a, unit_stride<T const> b, unit_stride<T> c,
                   extents shape, index_t depth) {
  fixed_blocking<T> blocking{memory, depth, shape.rows, shape.cols};
  Eigen::internal::general_matrix_matrix_product<Eigen::Index, T, Left, false, T, Right, false, Eigen::ColMajor,
                                                 1>::run(shape.rows, shape.cols, depth, a.data, a.leading, b.data,
                                                         b.leading, c.data, 1, c.leading, alpha, blocking, nullptr);
}

/// c += alpha a b for one tile, any mix of storage orders, column-major c.
template <class T>
void eigen_tile_product(std::byte* memory, T alpha, unit_stride<T const> a, unit_stride<T const> b, unit_stride<T> c,
                        extents shape, index_t depth) {
  constexpr int row = Eigen::RowMajor, column = Eigen::ColMajor;
  if (a.row_major && b.row_major) eigen_product<T, row, row>(memory, alpha, a, b, c, shape, depth);
  else if (a.row_major) eigen_product<T, row, column>(memory, alpha, a, b, c, shape, depth);
  else if (b.row_major) eigen_product<T, column, row>(memory, alpha, a, b, c, shape, depth);
  else eigen_product<T, column, column>(memory, alpha, a, b, c, shape, depth);
}

[[nodiscard]] inline std::byte* packing_memory(host_executor& exec, int worker) {
  constexpr index_t needed = panel_bytes + std::max(fixed_blocking<float>::bytes, fixed_blocking<double>::bytes);
  require<state_error>(exec.worker_bytes() >= needed, "multiply", "needs host_options::worker_bytes of at least ",
                       needed, ", got ", exec.worker_bytes());
  return exec.worker_memory(worker) + panel_bytes;
}

template <class T>
void eigen_multiply(host_executor& exec, T alpha, matrix_view<T const> a, matrix_view<T const> b, T beta,
                    matrix_view<T> c) {
  std::ignore = packing_memory(exec, 0);
  multiply_by_tiles<T>(exec, alpha, a, b, beta, c, [&](int worker, auto... arguments) {
    eigen_tile_product<T>(packing_memory(exec, worker), arguments...);
  });
}

}  // namespace detail

/// C = alpha A B + beta C. With beta = 0, C may hold anything.
/// Shapes: A m x k, B k x n, C m x n; any strides (fast when each operand has a unit stride).
/// Requires: C overlaps neither A nor B.
/// Cost: 2 m n k flops; workspace 0. Bits do not depend on the number of threads.
/// Throws: shape_error.
inline void multiply(host_executor& exec, float alpha, matrix_view<float const> a, matrix_view<float const> b,
                     float beta, matrix_view<float> c) {
  detail::eigen_multiply(exec, alpha, a, b, beta, c);
}
/// The same in fp64, for checks against finite differences and for small wide matrices.
inline void multiply(host_executor& exec, double alpha, matrix_view<double const> a, matrix_view<double const> b,
                     double beta, matrix_view<double> c) {
  detail::eigen_multiply(exec, alpha, a, b, beta, c);
}

/// C = Yᵀ Y, products and sums in fp64 (the product of two fp32 numbers is exact in fp64).
/// Shapes: Y m x l, C l x l.  Cost: m l² flops; workspace 0.  Throws: shape_error.
inline void gram(host_executor& exec, matrix_view<float const> y, matrix_view<double> c) {
  std::ignore = detail::packing_memory(exec, 0);
  detail::gram_by_tiles(exec, y, c, [&](int worker, auto... arguments) {
    detail::eigen_tile_product<double>(detail::packing_memory(exec, worker), arguments...);
  });
}
/// C = Yᵀ Y in fp32 over blocks of 256 rows, summed in fp64; the diagonal in fp64. Errors of a few eps ‖y_i‖ ‖y_j‖.
/// Shapes: Y m x l, C l x l.  Requires: ‖y_i‖ ‖y_j‖ is an fp32 number.  Cost: m l² flops; workspace 0.  Throws: shape_error.
inline void gram_mixed(host_executor& exec, matrix_view<float const> y, matrix_view<double> c) {
  std::ignore = detail::packing_memory(exec, 0);
  detail::gram_mixed_by_tiles(exec, y, c, [&](int worker, auto... arguments) {
    detail::eigen_tile_product<float>(detail::packing_memory(exec, worker), arguments...);
  });
}

}  // namespace lowrank
