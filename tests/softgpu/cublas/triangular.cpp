// One-sided calls: C = alpha · op(A) · op(A)ᵀ + beta · C on one triangle, and triangular solves in place.
#include <cublas_v2.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "cublas/handle.hpp"
#include "cublas/product.hpp"
#include "operand.hpp"
#include "report.hpp"

using namespace softgpu;

namespace {

template <class T>
constexpr cudaDataType_t type_of = std::is_same_v<T, double> ? CUDA_R_64F : CUDA_R_32F;

triangle part_of(cublasFillMode_t fill) {
  return fill == CUBLAS_FILL_MODE_LOWER   ? triangle::lower
         : fill == CUBLAS_FILL_MODE_UPPER ? triangle::upper
                                          : triangle::all;
}
bool in(triangle part, std::int64_t i, std::int64_t j) {
  return part == triangle::all || (part == triangle::lower ? i >= j : i <= j);
}

template <class T>
void add_square(operand const& a, operand const& c, triangle part, cublasOperation_t op, scalar_pair<T> scale) {
  if (overlap(c, a)) return report("aliasing", "syrk: C overlaps A");
  std::int64_t const n = c.rows, k = op == CUBLAS_OP_N ? a.cols : a.rows;
  bool const uses_product = scale.alpha != T{0} && k > 0;
  char const* const in_a = uses_product ? a.read() : nullptr;
  char* const out = scale.beta != T{0} ? c.read(part) : c.reach(part);
  if (out == nullptr || (uses_product && in_a == nullptr)) return;
  std::vector<T> sums(static_cast<std::size_t>(n * n));
  if (uses_product) {
    bool const plain = op == CUBLAS_OP_N;
    auto const left = widened<T>(in_a, a, type_of<T>, plain ? transposition::none : transposition::transposed);
    auto const right = widened<T>(in_a, a, type_of<T>, plain ? transposition::transposed : transposition::none);
    sums = product(left, right, n, n, k);
  }
  for (std::int64_t j = 0; j < n; ++j)
    for (std::int64_t i = 0; i < n; ++i)
      if (in(part, i, j))
        update_element(out + static_cast<std::size_t>(c.ld * j + i) * c.width, type_of<T>, scale.alpha,
                       sums[static_cast<std::size_t>(j * n + i)], scale.beta);
  c.written(part);
}

template <class T>
cublasStatus_t syrk(char const* call, cublasHandle_t handle, cublasFillMode_t fill, cublasOperation_t op,
                    std::int64_t n, std::int64_t k, T const* alpha, T const* a, std::int64_t lda, T const* beta, T* c,
                    std::int64_t ldc) {
  return blas_call(call, handle, [&] {
    std::int64_t const rows = op == CUBLAS_OP_N ? n : k;
    triangle const part = part_of(fill);
    if (n < 0 || k < 0 || lda < std::max<std::int64_t>(1, rows) || ldc < std::max<std::int64_t>(1, n) ||
        part == triangle::all || alpha == nullptr || beta == nullptr)
      return CUBLAS_STATUS_INVALID_VALUE;
    if (n == 0) return CUBLAS_STATUS_SUCCESS;
    operand const factor{"syrk A", a, rows, op == CUBLAS_OP_N ? k : n, lda, sizeof(T)};
    operand const target{"syrk C", c, n, n, ldc, sizeof(T)};
    auto const scalars = scalars_of<T>(handle, alpha, beta);
    return submit_blas(handle, [=] { add_square<T>(factor, target, part, op, scalars()); });
  });
}

// op(A) X = alpha B with a dense copy of op(A), column by column of X.
template <class T>
void solve_from_left(std::vector<T> const& a, std::vector<T>& x, std::int64_t n, std::int64_t columns, triangle part,
                     cublasDiagType_t diagonal) {
  for (std::int64_t c = 0; c < columns; ++c) {
    T* const column = x.data() + c * n;
    for (std::int64_t step = 0; step < n; ++step) {
      std::int64_t const j = part == triangle::lower ? step : n - 1 - step;
      if (diagonal == CUBLAS_DIAG_NON_UNIT) column[j] /= a[static_cast<std::size_t>(j * n + j)];
      std::int64_t const begin = part == triangle::lower ? j + 1 : 0, end = part == triangle::lower ? n : j;
      for (std::int64_t i = begin; i < end; ++i) column[i] -= a[static_cast<std::size_t>(j * n + i)] * column[j];
    }
  }
}

struct triangular_system {
  cublasSideMode_t side;
  triangle part;
  cublasOperation_t op;
  cublasDiagType_t diagonal;
};

template <class T>
void solve(triangular_system system, operand const& a, operand const& b, T alpha) {
  if (overlap(a, b)) return report("aliasing", "trsm: A overlaps B");
  char const* const in_a = a.read(system.part);
  char* const in_b = b.read();
  if (in_a == nullptr || in_b == nullptr) return;
  // X op(A) = B is op(A)ᵀ Xᵀ = Bᵀ.
  bool const left = system.side == CUBLAS_SIDE_LEFT, plain = system.op == CUBLAS_OP_N;
  auto factor = widened<T>(in_a, a, type_of<T>, plain == left ? transposition::none : transposition::transposed);
  auto solution = widened<T>(in_b, b, type_of<T>, left ? transposition::none : transposition::transposed);
  triangle const flipped = system.part == triangle::lower ? triangle::upper : triangle::lower;
  for (T& value : solution) value *= alpha;
  solve_from_left(factor, solution, a.rows, left ? b.cols : b.rows, plain == left ? system.part : flipped,
                  system.diagonal);
  for (std::int64_t j = 0; j < b.cols; ++j)
    for (std::int64_t i = 0; i < b.rows; ++i)
      update_element(in_b + static_cast<std::size_t>(b.ld * j + i) * b.width, type_of<T>, T{1},
                     solution[static_cast<std::size_t>(left ? j * b.rows + i : i * b.cols + j)], T{0});
}

template <class T>
cublasStatus_t trsm(char const* call, cublasHandle_t handle, cublasSideMode_t side, cublasFillMode_t fill,
                    cublasOperation_t op, cublasDiagType_t diagonal, std::int64_t m, std::int64_t n, T const* alpha,
                    T const* a, std::int64_t lda, T* b, std::int64_t ldb) {
  return blas_call(call, handle, [&] {
    std::int64_t const order = side == CUBLAS_SIDE_LEFT ? m : n;
    triangle const part = part_of(fill);
    if (m < 0 || n < 0 || lda < std::max<std::int64_t>(1, order) || ldb < std::max<std::int64_t>(1, m) ||
        part == triangle::all || alpha == nullptr)
      return CUBLAS_STATUS_INVALID_VALUE;
    if (m == 0 || n == 0) return CUBLAS_STATUS_SUCCESS;
    operand const factor{"trsm A", a, order, order, lda, sizeof(T)};
    operand const target{"trsm B", b, m, n, ldb, sizeof(T)};
    auto const scalars = scalars_of<T>(handle, alpha, nullptr);
    return submit_blas(handle, [=] { solve<T>({side, part, op, diagonal}, factor, target, scalars().alpha); });
  });
}

}  // namespace

#define SOFTGPU_TRIANGULAR(suffix, size)                                                                         \
  cublasStatus_t cublasSsyrk##suffix(cublasHandle_t handle, cublasFillMode_t fill, cublasOperation_t op, size n, \
                                     size k, float const* alpha, float const* a, size lda, float const* beta,    \
                                     float* c, size ldc) {                                                       \
    return syrk<float>("cublasSsyrk", handle, fill, op, n, k, alpha, a, lda, beta, c, ldc);                      \
  }                                                                                                              \
  cublasStatus_t cublasDsyrk##suffix(cublasHandle_t handle, cublasFillMode_t fill, cublasOperation_t op, size n, \
                                     size k, double const* alpha, double const* a, size lda, double const* beta, \
                                     double* c, size ldc) {                                                      \
    return syrk<double>("cublasDsyrk", handle, fill, op, n, k, alpha, a, lda, beta, c, ldc);                     \
  }                                                                                                              \
  cublasStatus_t cublasStrsm##suffix(cublasHandle_t handle, cublasSideMode_t side, cublasFillMode_t fill,        \
                                     cublasOperation_t op, cublasDiagType_t diagonal, size m, size n,            \
                                     float const* alpha, float const* a, size lda, float* b, size ldb) {         \
    return trsm<float>("cublasStrsm", handle, side, fill, op, diagonal, m, n, alpha, a, lda, b, ldb);            \
  }                                                                                                              \
  cublasStatus_t cublasDtrsm##suffix(cublasHandle_t handle, cublasSideMode_t side, cublasFillMode_t fill,        \
                                     cublasOperation_t op, cublasDiagType_t diagonal, size m, size n,            \
                                     double const* alpha, double const* a, size lda, double* b, size ldb) {      \
    return trsm<double>("cublasDtrsm", handle, side, fill, op, diagonal, m, n, alpha, a, lda, b, ldb);           \
  }

extern "C" {
SOFTGPU_TRIANGULAR(_v2, int)
SOFTGPU_TRIANGULAR(_v2_64, std::int64_t)
}
