// C = alpha · op(A) · op(B) + beta · C, in all the spellings.
#include <cublas_v2.h>

#include <algorithm>
#include <cstdint>

#include "cublas/handle.hpp"
#include "cublas/product.hpp"
#include "operand.hpp"
#include "report.hpp"

using namespace softgpu;

namespace {

struct factor {
  void const* pointer;
  cudaDataType_t type;
  std::int64_t ld, stride;
  cublasOperation_t op = CUBLAS_OP_N;
};
struct gemm_shape {
  std::int64_t m, n, k, batch = 1;
};

transposition of(cublasOperation_t op) { return op == CUBLAS_OP_N ? transposition::none : transposition::transposed; }

input_rounding rounding_of(cublasComputeType_t compute, cublasMath_t mode, cudaDataType_t type) {
  if (type != CUDA_R_32F) return input_rounding::none;
  if (compute == CUBLAS_COMPUTE_32F_FAST_16F) return input_rounding::fp16;
  if (compute == CUBLAS_COMPUTE_32F_FAST_16BF) return input_rounding::bf16;
  // The modes are numbers, not flags: pedantic (2) shares a bit with TF32 (3).
  bool const allowed = compute == CUBLAS_COMPUTE_32F && (mode & 0xF) == CUBLAS_TF32_TENSOR_OP_MATH;
  return compute == CUBLAS_COMPUTE_32F_FAST_TF32 || allowed ? input_rounding::tf32 : input_rounding::none;
}

bool supported(factor const& a, factor const& b, factor const& c, cublasComputeType_t compute) {
  bool const tensor = compute == CUBLAS_COMPUTE_32F_FAST_TF32 || compute == CUBLAS_COMPUTE_32F_FAST_16BF ||
                      compute == CUBLAS_COMPUTE_32F_FAST_16F;
  if (a.type != b.type) return false;
  bool const narrow = a.type == CUDA_R_16BF || a.type == CUDA_R_16F;
  if (compute == CUBLAS_COMPUTE_64F || compute == CUBLAS_COMPUTE_64F_PEDANTIC)
    return a.type == CUDA_R_64F && c.type == CUDA_R_64F;
  if (!tensor && compute != CUBLAS_COMPUTE_32F && compute != CUBLAS_COMPUTE_32F_PEDANTIC) return false;
  if (narrow) return c.type == a.type || c.type == CUDA_R_32F;
  return a.type == CUDA_R_32F && c.type == CUDA_R_32F;
}

template <class T>
void multiply(gemm_shape shape, operand const& a, operand const& b, operand const& c, factor const& fa,
              factor const& fb, factor const& fc, input_rounding rounding, scalar_pair<T> scale) {
  auto const [m, n, k, batch] = shape;
  if (overlap(c, a) || overlap(c, b)) return report("aliasing", "gemm: C overlaps A or B");
  bool const uses_product = scale.alpha != T{0} && k > 0;
  char const* const in_a = uses_product ? a.read() : nullptr;
  char const* const in_b = uses_product ? b.read() : nullptr;
  char* const out = scale.beta != T{0} ? c.read() : c.reach();
  if (out == nullptr || (uses_product && (in_a == nullptr || in_b == nullptr))) return;
  std::vector<T> sums(static_cast<std::size_t>(m * n));
  if (uses_product)
    sums = product(widened<T>(in_a, a, fa.type, of(fa.op), rounding), widened<T>(in_b, b, fb.type, of(fb.op), rounding),
                   m, n, k);
  for (std::int64_t j = 0; j < n; ++j)
    for (std::int64_t i = 0; i < m; ++i)
      update_element(out + static_cast<std::size_t>(c.ld * j + i) * c.width, fc.type, scale.alpha,
                     sums[static_cast<std::size_t>(j * m + i)], scale.beta);
  c.written();
}

template <class T>
cublasStatus_t queue_product(cublasHandle_t handle, gemm_shape shape, void const* alpha, factor const& a,
                             factor const& b, void const* beta, factor const& c, input_rounding rounding) {
  auto const [m, n, k, batch] = shape;
  operand const left{"gemm A", a.pointer,       a.op == CUBLAS_OP_N ? m : k, a.op == CUBLAS_OP_N ? k : m,
                     a.ld,     width_of(a.type)};
  operand const right{"gemm B", b.pointer,       b.op == CUBLAS_OP_N ? k : n, b.op == CUBLAS_OP_N ? n : k,
                      b.ld,     width_of(b.type)};
  operand const target{"gemm C", c.pointer, m, n, c.ld, width_of(c.type)};
  auto const scalars = scalars_of<T>(handle, alpha, beta);
  return submit_blas(handle, [=] {
    scalar_pair<T> const scale = scalars();
    for (std::int64_t item = 0; item < shape.batch; ++item)
      multiply<T>(shape, left.shifted(item * a.stride), right.shifted(item * b.stride), target.shifted(item * c.stride),
                  a, b, c, rounding, scale);
  });
}

cublasStatus_t gemm(char const* call, cublasHandle_t handle, gemm_shape shape, void const* alpha, factor const& a,
                    factor const& b, void const* beta, factor const& c, cublasComputeType_t compute) {
  return blas_call(call, handle, [&] {
    auto const [m, n, k, batch] = shape;
    std::int64_t const rows_a = a.op == CUBLAS_OP_N ? m : k, rows_b = b.op == CUBLAS_OP_N ? k : n;
    if (m < 0 || n < 0 || k < 0 || batch < 0 || a.ld < std::max<std::int64_t>(1, rows_a) ||
        b.ld < std::max<std::int64_t>(1, rows_b) || c.ld < std::max<std::int64_t>(1, m) || alpha == nullptr ||
        beta == nullptr)
      return CUBLAS_STATUS_INVALID_VALUE;
    if (!supported(a, b, c, compute)) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (m == 0 || n == 0 || batch == 0) return CUBLAS_STATUS_SUCCESS;
    if (a.type == CUDA_R_64F) return queue_product<double>(handle, shape, alpha, a, b, beta, c, input_rounding::none);
    return queue_product<float>(handle, shape, alpha, a, b, beta, c, rounding_of(compute, handle->math_mode, a.type));
  });
}

}  // namespace

// The same calls with 32-bit and with 64-bit sizes.
#define SOFTGPU_GEMM(suffix_v2, suffix, size)                                                                          \
  cublasStatus_t cublasSgemm##suffix_v2(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, size m, \
                                        size n, size k, float const* alpha, float const* a, size lda, float const* b,  \
                                        size ldb, float const* beta, float* c, size ldc) {                             \
    return gemm("cublasSgemm", handle, {m, n, k}, alpha, {a, CUDA_R_32F, lda, 0, op_a}, {b, CUDA_R_32F, ldb, 0, op_b}, \
                beta, {c, CUDA_R_32F, ldc, 0}, CUBLAS_COMPUTE_32F);                                                    \
  }                                                                                                                    \
  cublasStatus_t cublasDgemm##suffix_v2(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, size m, \
                                        size n, size k, double const* alpha, double const* a, size lda,                \
                                        double const* b, size ldb, double const* beta, double* c, size ldc) {          \
    return gemm("cublasDgemm", handle, {m, n, k}, alpha, {a, CUDA_R_64F, lda, 0, op_a}, {b, CUDA_R_64F, ldb, 0, op_b}, \
                beta, {c, CUDA_R_64F, ldc, 0}, CUBLAS_COMPUTE_64F);                                                    \
  }                                                                                                                    \
  cublasStatus_t cublasGemmEx##suffix(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, size m,   \
                                      size n, size k, void const* alpha, void const* a, cudaDataType_t type_a,         \
                                      size lda, void const* b, cudaDataType_t type_b, size ldb, void const* beta,      \
                                      void* c, cudaDataType_t type_c, size ldc, cublasComputeType_t compute,           \
                                      cublasGemmAlgo_t) {                                                              \
    return gemm("cublasGemmEx", handle, {m, n, k}, alpha, {a, type_a, lda, 0, op_a}, {b, type_b, ldb, 0, op_b}, beta,  \
                {c, type_c, ldc, 0}, compute);                                                                         \
  }                                                                                                                    \
  cublasStatus_t cublasSgemmStridedBatched##suffix(                                                                    \
      cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, size m, size n, size k,                   \
      float const* alpha, float const* a, size lda, long long stride_a, float const* b, size ldb, long long stride_b,  \
      float const* beta, float* c, size ldc, long long stride_c, size batch) {                                         \
    return gemm("cublasSgemmStridedBatched", handle, {m, n, k, batch}, alpha, {a, CUDA_R_32F, lda, stride_a, op_a},    \
                {b, CUDA_R_32F, ldb, stride_b, op_b}, beta, {c, CUDA_R_32F, ldc, stride_c}, CUBLAS_COMPUTE_32F);       \
  }                                                                                                                    \
  cublasStatus_t cublasGemmStridedBatchedEx##suffix(                                                                   \
      cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, size m, size n, size k,                   \
      void const* alpha, void const* a, cudaDataType_t type_a, size lda, long long stride_a, void const* b,            \
      cudaDataType_t type_b, size ldb, long long stride_b, void const* beta, void* c, cudaDataType_t type_c, size ldc, \
      long long stride_c, size batch, cublasComputeType_t compute, cublasGemmAlgo_t) {                                 \
    return gemm("cublasGemmStridedBatchedEx", handle, {m, n, k, batch}, alpha, {a, type_a, lda, stride_a, op_a},       \
                {b, type_b, ldb, stride_b, op_b}, beta, {c, type_c, ldc, stride_c}, compute);                          \
  }

extern "C" {
SOFTGPU_GEMM(_v2, , int)
SOFTGPU_GEMM(_v2_64, _64, std::int64_t)
}
