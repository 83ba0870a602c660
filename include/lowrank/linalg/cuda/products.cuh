/// @file
/// Products on a device by cuBLAS: the overloads of linalg/primitives.hpp. Row-major matrices are handed over as the
/// transposed column-major ones that they are. fp32 products keep to the precision of cuda_options::products.
#pragma once

#include "lowrank/linalg/cuda/elementwise.cuh"
#include "lowrank/linalg/gradient_products.hpp"

namespace lowrank {

namespace detail {

/// The operand as cuBLAS wants it: columns at distances of `leading`, of the matrix or of its transpose.
template <class T>
struct gemm_operand {
  T* data{};
  index_t leading{};
  cublasOperation_t operation{};

  gemm_operand(char const* name, matrix_view<T, device_space> v) : data{v.data} {
    bool const by_columns = v.row_stride == 1 || v.rows <= 1;
    leading = by_columns ? across(v.cols, v.col_stride, v.rows) : across(v.rows, v.row_stride, v.cols);
    operation = by_columns ? CUBLAS_OP_N : CUBLAS_OP_T;
    bool const possible = by_columns || v.col_stride == 1 || v.cols <= 1;
    require<shape_error>(possible && leading >= (by_columns ? v.rows : v.cols), "multiply", "needs ", name,
                         " with neighbouring rows or columns that do not overlap, got strides ", v.row_stride, " and ",
                         v.col_stride, " for ", v.shape());
  }
  [[nodiscard]] gemm_operand t() const noexcept {
    auto out = *this;
    out.operation = operation == CUBLAS_OP_N ? CUBLAS_OP_T : CUBLAS_OP_N;
    return out;
  }

 private:
  [[nodiscard]] static index_t across(index_t count, index_t stride, index_t length) noexcept {
    return count <= 1 ? std::max<index_t>(length, 1) : stride;
  }
};

inline void gemm(cuda_executor& exec, float const* alpha, gemm_operand<float const> const& a,
                 gemm_operand<float const> const& b, float const* beta, gemm_operand<float> const& c, extents shape,
                 index_t depth) {
  check_library(cublasSgemm_64(exec.blas(), a.operation, b.operation, shape.rows, shape.cols, depth, alpha, a.data,
                               a.leading, b.data, b.leading, beta, c.data, c.leading),
                "cublasSgemm_64");
}
inline void gemm(cuda_executor& exec, double const* alpha, gemm_operand<double const> const& a,
                 gemm_operand<double const> const& b, double const* beta, gemm_operand<double> const& c, extents shape,
                 index_t depth) {
  check_library(cublasDgemm_64(exec.blas(), a.operation, b.operation, shape.rows, shape.cols, depth, alpha, a.data,
                               a.leading, b.data, b.leading, beta, c.data, c.leading),
                "cublasDgemm_64");
}
template <class T>
  requires std::same_as<T, bf16> || std::same_as<T, fp16>
void gemm(cuda_executor& exec, float const* alpha, gemm_operand<T const> const& a, gemm_operand<T const> const& b,
          float const* beta, gemm_operand<float> const& c, extents shape, index_t depth) {
  constexpr auto type = std::same_as<T, bf16> ? CUDA_R_16BF : CUDA_R_16F;
  check_library(cublasGemmEx_64(exec.blas(), a.operation, b.operation, shape.rows, shape.cols, depth, alpha, a.data,
                                type, a.leading, b.data, type, b.leading, beta, c.data, CUDA_R_32F, c.leading,
                                CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
                "cublasGemmEx_64");
}

/// C = alpha A B + beta C, where cuBLAS finds the factors. Nothing that is empty gets there.
template <class T, class U>
void multiply_nonempty(cuda_executor& exec, U const* alpha, matrix_view<T const, device_space> a,
                       matrix_view<T const, device_space> b, U const* beta, matrix_view<U, device_space> c) {
  gemm_operand<T const> const left{"A", a}, right{"B", b};
  gemm_operand<U> const out{"C", c};
  if (out.operation == CUBLAS_OP_N) gemm(exec, alpha, left, right, beta, out, c.shape(), a.cols);
  else gemm(exec, alpha, right.t(), left.t(), beta, out, c.shape().t(), a.cols);
}

template <class T, class U>
void check_product(matrix_view<T const, device_space> a, matrix_view<T const, device_space> b,
                   matrix_view<U, device_space> c) {
  require<shape_error>(a.rows == c.rows && b.cols == c.cols && a.cols == b.rows, "multiply",
                       "needs m x k times k x n into m x n, got ", a.shape(), " times ", b.shape(), " into ",
                       c.shape());
}

/// Where cuBLAS finds the factors of the next product. Said before each: what need not be put back cannot fail to be.
inline void expect_factors(cuda_executor& exec, cublasPointerMode_t where) {
  check_library(cublasSetPointerMode(exec.blas(), where), "cublasSetPointerMode");
}

/// Factors on the host.
template <class T, class U>
void multiply_checked(cuda_executor& exec, U alpha, matrix_view<T const, device_space> a,
                      matrix_view<T const, device_space> b, U beta, matrix_view<U, device_space> c) {
  check_product(a, b, c);
  if (c.empty()) return;
  if (a.cols > 0 && alpha != 0) {
    expect_factors(exec, CUBLAS_POINTER_MODE_HOST);
    return multiply_nonempty(exec, &alpha, a, b, &beta, c);
  }
  if (beta == 1) return;
  map_elements(exec, "multiply", c, c, [beta] __device__(U x) { return beta == 0 ? U{0} : beta * x; });
}

}  // namespace detail

/// C = alpha A B + beta C. With beta = 0, C may hold anything.
/// Shapes: A m x k, B k x n, C m x n; rows or columns of each are neighbours in memory.
/// Requires: C overlaps neither A nor B.
/// Cost: 2 m n k flops; workspace 0.  Throws: shape_error, cuda_error.
inline void multiply(cuda_executor& exec, float alpha, matrix_view<float const, device_space> a,
                     matrix_view<float const, device_space> b, float beta, matrix_view<float, device_space> c) {
  detail::multiply_checked(exec, alpha, a, b, beta, c);
}
/// The same in fp64.
inline void multiply(cuda_executor& exec, double alpha, matrix_view<double const, device_space> a,
                     matrix_view<double const, device_space> b, double beta, matrix_view<double, device_space> c) {
  detail::multiply_checked(exec, alpha, a, b, beta, c);
}
/// The same for narrow operands, their products summed in fp32.
inline void multiply(cuda_executor& exec, float alpha, matrix_view<bf16 const, device_space> a,
                     matrix_view<bf16 const, device_space> b, float beta, matrix_view<float, device_space> c) {
  detail::multiply_checked(exec, alpha, a, b, beta, c);
}
inline void multiply(cuda_executor& exec, float alpha, matrix_view<fp16 const, device_space> a,
                     matrix_view<fp16 const, device_space> b, float beta, matrix_view<float, device_space> c) {
  detail::multiply_checked(exec, alpha, a, b, beta, c);
}
/// C = *alpha A B + *beta C with factors that only the device knows: what a captured graph replays with changing rates.
inline void multiply(cuda_executor& exec, float const* alpha, matrix_view<float const, device_space> a,
                     matrix_view<float const, device_space> b, float const* beta, matrix_view<float, device_space> c) {
  detail::check_product(a, b, c);
  if (c.empty()) return;
  if (a.cols == 0)
    return detail::map_elements(exec, "multiply", c, c,
                                [beta] __device__(float x) { return *beta == 0 ? 0.0F : *beta * x; });
  detail::expect_factors(exec, CUBLAS_POINTER_MODE_DEVICE);
  detail::multiply_nonempty(exec, alpha, a, b, beta, c);
}

/// C = alpha G B + beta C for a gradient in 16 bits, on tensor cores: B is taken apart into two numbers of as many bits,
/// whose sum has 16 bits of its mantissa in bf16 (22 in fp16), and products with both are summed in fp32. G is read twice
/// for every 2^20 numbers of B, and never widened.
/// Shapes: G m x n, B n x k, C m x k.  Cost: 4 m n k flops; workspace gradient_product_bytes.  Throws: shape_error, cuda_error.
template <narrow_float T>
void multiply(cuda_executor& exec, float alpha, matrix_view<T const, device_space> g,
              matrix_view<float const, device_space> b, float beta, matrix_view<float, device_space> c) {
  require<shape_error>(g.rows == c.rows && b.cols == c.cols && g.cols == b.rows, "multiply",
                       "needs m x k times k x n into m x n, got ", g.shape(), " times ", b.shape(), " into ",
                       c.shape());
  if (g.empty() || b.empty())
    return detail::multiply_checked(exec, 0.0F, matrix_view<float const, device_space>{nullptr, g.rows, 0, 0, 1},
                                    matrix_view<float const, device_space>{nullptr, 0, b.cols, 0, 1}, beta, c);
  scratch_scope const scope{exec};
  auto* const memory = reinterpret_cast<T*>(exec.arena().template take<float>(detail::narrow_panel));
  index_t const depth = std::min(g.cols, detail::narrow_panel), width = detail::narrow_panel / depth;
  for (index_t j = 0; j < b.cols; j += width)
    for (index_t i = 0; i < g.cols; i += depth) {
      block const part{i, std::min(g.cols, i + depth), j, std::min(b.cols, j + width)};
      extents const shape{part.row_end - i, part.col_end - j};
      auto const high = row_major<device_space>(memory, shape),
                 low = row_major<device_space>(memory + detail::narrow_panel, shape);
      auto const from = b.sub(part);
      detail::for_elements(exec, shape, [=] __device__(index_t row, index_t col) {
        float const x = from(row, col);
        T const most = from_float<T>(x);
        high(row, col) = most;
        low(row, col) = from_float<T>(x - to_float(most));
      });
      auto const columns = c.col_range(j, part.col_end);
      auto const left = g.col_range(i, part.row_end);
      detail::multiply_checked(exec, alpha, left, matrix_view<T const, device_space>(high), i == 0 ? beta : 1.0F,
                               columns);
      detail::multiply_checked(exec, alpha, left, matrix_view<T const, device_space>(low), 1.0F, columns);
    }
}

namespace detail {

/// Columns of a Gram that are computed at a time, from the diagonal down.
inline constexpr index_t gram_columns = 1024;

}  // namespace detail

/// C = Yᵀ Y, products and sums in fp64: Y is widened panel by panel.
/// Shapes: Y m x l, C l x l.  Cost: 2 m l² flops, m l² for large l; workspace 0.  Throws: shape_error.
inline void gram(cuda_executor& exec, matrix_view<float const, device_space> y, matrix_view<double, device_space> c) {
  require<shape_error>(c.rows == y.cols && c.cols == y.cols, "gram", "needs an l x l result for m x l, got ", c.shape(),
                       " for ", y.shape());
  index_t const l = y.cols;
  if (l == 0) return;
  if (y.rows == 0) return fill(exec, c, 0.0);
  index_t const height = std::min(y.rows, std::max<index_t>(exec.panel_bytes() / (l * index_t{sizeof(double)}), 1));
  auto* const memory = detail::panel<double>(exec, "gram", height * l);
  for (index_t begin = 0; begin < y.rows; begin += height) {
    index_t const count = std::min(y.rows - begin, height);
    auto const wide = detail::runs_down(y) ? row_major<device_space>(memory, {l, count}).t()
                                           : row_major<device_space>(memory, {count, l});
    convert(exec, y.row_range(begin, begin + count), wide);
    matrix_view<double const, device_space> const part = wide;
    for (index_t j = 0; j < l; j += detail::gram_columns) {
      index_t const end = std::min(l, j + detail::gram_columns);
      multiply(exec, 1.0, part.col_range(j, l).t(), part.col_range(j, end), begin == 0 ? 0.0 : 1.0,
               c.sub({j, l, j, end}));
    }
  }
  detail::for_elements(exec, c.shape(), [=] __device__(index_t i, index_t j) {
    if (i < j) c(i, j) = c(j, i);
  });
}
/// As `gram`: devices with fp64 units widen faster than they would sum up blocks of fp32 products, and Grams of any
/// columns are good to fp64 then.
inline void gram_mixed(cuda_executor& exec, matrix_view<float const, device_space> y,
                       matrix_view<double, device_space> c) {
  gram(exec, y, c);
}

}  // namespace lowrank
