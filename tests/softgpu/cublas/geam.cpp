// C = alpha · op(A) + beta · op(B): transposed copies and sums.
#include <cublas_v2.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "cublas/handle.hpp"
#include "cublas/product.hpp"
#include "operand.hpp"
#include "report.hpp"

using namespace softgpu;

namespace {

struct summand {
  operand matrix;
  cublasOperation_t op;
};

template <class T>
void add(summand const& a, summand const& b, operand const& c, scalar_pair<T> scale) {
  constexpr cudaDataType_t type = std::is_same_v<T, double> ? CUDA_R_64F : CUDA_R_32F;
  auto const numbers = [&](summand const& s, T factor) {
    char const* const elements = factor != T{0} ? s.matrix.read() : nullptr;
    auto const op = s.op == CUBLAS_OP_N ? transposition::none : transposition::transposed;
    return elements != nullptr ? widened<T>(elements, s.matrix, type, op) : std::vector<T>{};
  };
  // In place is allowed for an operand that is not transposed and lies exactly where C does.
  for (auto const& [s, factor] : {std::pair{&a, scale.alpha}, {&b, scale.beta}}) {
    bool const in_place = s->matrix.pointer == c.pointer && s->matrix.ld == c.ld && s->op == CUBLAS_OP_N;
    if (factor != T{0} && !in_place && overlap(s->matrix, c)) return report("aliasing", "geam: C overlaps an operand");
  }
  auto const left = numbers(a, scale.alpha), right = numbers(b, scale.beta);
  char* const out = c.reach();
  if (out == nullptr || (scale.alpha != T{0} && left.empty()) || (scale.beta != T{0} && right.empty())) return;
  for (std::int64_t j = 0; j < c.cols; ++j)
    for (std::int64_t i = 0; i < c.rows; ++i) {
      auto const n = static_cast<std::size_t>(j * c.rows + i);
      T value{};
      if (!left.empty()) value = scale.alpha * left[n];
      if (!right.empty()) value += scale.beta * right[n];
      update_element(out + static_cast<std::size_t>(c.ld * j + i) * c.width, type, T{1}, value, T{0});
    }
  c.written();
}

template <class T>
cublasStatus_t geam(char const* call, cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b,
                    std::int64_t m, std::int64_t n, T const* alpha, T const* a, std::int64_t lda, T const* beta,
                    T const* b, std::int64_t ldb, T* c, std::int64_t ldc) {
  return blas_call(call, handle, [&] {
    auto const rows = [&](cublasOperation_t op) { return op == CUBLAS_OP_N ? m : n; };
    auto const cols = [&](cublasOperation_t op) { return op == CUBLAS_OP_N ? n : m; };
    if (m < 0 || n < 0 || lda < std::max<std::int64_t>(1, rows(op_a)) || ldb < std::max<std::int64_t>(1, rows(op_b)) ||
        ldc < std::max<std::int64_t>(1, m) || alpha == nullptr || beta == nullptr)
      return CUBLAS_STATUS_INVALID_VALUE;
    if ((c == a && (op_a != CUBLAS_OP_N || lda != ldc)) || (c == b && (op_b != CUBLAS_OP_N || ldb != ldc)))
      return CUBLAS_STATUS_INVALID_VALUE;
    if (m == 0 || n == 0) return CUBLAS_STATUS_SUCCESS;
    summand const left{{"geam A", a, rows(op_a), cols(op_a), lda, sizeof(T)}, op_a};
    summand const right{{"geam B", b, rows(op_b), cols(op_b), ldb, sizeof(T)}, op_b};
    operand const target{"geam C", c, m, n, ldc, sizeof(T)};
    auto const scalars = scalars_of<T>(handle, alpha, beta);
    return submit_blas(handle, [=] { add<T>(left, right, target, scalars()); });
  });
}

}  // namespace

#define SOFTGPU_GEAM(suffix, size)                                                                                  \
  cublasStatus_t cublasSgeam##suffix(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, size m, \
                                     size n, float const* alpha, float const* a, size lda, float const* beta,       \
                                     float const* b, size ldb, float* c, size ldc) {                                \
    return geam<float>("cublasSgeam", handle, op_a, op_b, m, n, alpha, a, lda, beta, b, ldb, c, ldc);               \
  }                                                                                                                 \
  cublasStatus_t cublasDgeam##suffix(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, size m, \
                                     size n, double const* alpha, double const* a, size lda, double const* beta,    \
                                     double const* b, size ldb, double* c, size ldc) {                              \
    return geam<double>("cublasDgeam", handle, op_a, op_b, m, n, alpha, a, lda, beta, b, ldb, c, ldc);              \
  }

extern "C" {
SOFTGPU_GEAM(, int)
SOFTGPU_GEAM(_64, std::int64_t)
}
