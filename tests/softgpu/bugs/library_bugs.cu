// Calls of cuBLAS and cuSOLVER with the wrong sizes, places and assumptions.
#include <vector>

#include "softgpu/bugs/planted.hpp"

namespace planted {
namespace {

constexpr int m = 24, n = 20, k = 16;
constexpr float one = 1, zero = 0;

/// C (m x n) = A (m x k) · B (k x n), column-major and dense, with what a mistake changes.
struct product {
  float *a, *b, *c;
  int lda = m, ldb = k, ldc = m;
  float const *alpha = &one, *beta = &zero;
  float wanted = 0;  // of element (5, 7)

  explicit product(bench& with) {
    std::vector<float> av(m * k), bv(k * n);
    for (int i = 0; i < m * k; ++i) av[static_cast<std::size_t>(i)] = static_cast<float>(i % 7 - 3);
    for (int i = 0; i < k * n; ++i) bv[static_cast<std::size_t>(i)] = static_cast<float>(i % 5 - 2);
    for (int p = 0; p < k; ++p)
      wanted += av[static_cast<std::size_t>(5 + p * m)] * bv[static_cast<std::size_t>(p + 7 * k)];
    a = with.array(av);
    b = with.array(bv);
    c = with.array(m * n);
  }
  void run(bench& with) const {
    with.expect_success(
        cublasSgemm(with.blas(), CUBLAS_OP_N, CUBLAS_OP_N, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc));
  }
  void check(bench& with) const { with.expect_equal(with.read(c + 5 + 7 * m), wanted); }
};

void leading_dimension_too_small(bench& b, variant which) {
  product p{b};
  if (which == variant::bug) p.lda = k;
  p.run(b);
  if (which == variant::control) p.check(b);
}
void leading_dimension_too_large(bench& b, variant which) {
  product p{b};
  if (which == variant::bug) p.ldc = m + 4;
  p.run(b);
  if (which == variant::control) p.check(b);
}
// The columns lie closer than the caller says, but inside the allocation: only the numbers are wrong.
void leading_dimension_of_a_part(bench& b, variant which) {
  product p{b};
  float const* const whole = p.b;
  p.b = b.array(std::vector<float>(static_cast<std::size_t>((k + 4) * n), 0.f));
  cudaMemcpy2DAsync(p.b, (k + 4) * sizeof(float), whole, k * sizeof(float), k * sizeof(float), n,
                    cudaMemcpyDeviceToDevice, b.first);
  p.ldb = which == variant::bug ? k : k + 4;
  p.run(b);
  p.check(b);
}
void operands_swapped(bench& b, variant which) {
  product p{b};
  if (which == variant::bug) {
    std::swap(p.a, p.b);
    p.ldb = m;
  }
  p.run(b);
  if (which == variant::control) p.check(b);
}
void result_added_to_nothing(bench& b, variant which) {
  product p{b};
  if (which == variant::bug) p.beta = &one;
  p.run(b);
  if (which == variant::control) p.check(b);
}
void result_over_an_operand(bench& b, variant which) {
  product p{b};
  float* const square = b.array(std::vector<float>(256, 1.f));
  float* const target = which == variant::bug ? square : b.array(256);
  cublasSgemm(b.blas(), CUBLAS_OP_N, CUBLAS_OP_N, 16, 16, 16, &one, square, 16, square, 16, &zero, target, 16);
  cudaStreamSynchronize(b.first);
}
void host_scalar_in_device_mode(bench& b, variant which) {
  product p{b};
  float* const scalars = b.array(std::vector<float>{1, 0});
  cublasSetPointerMode(b.blas(), CUBLAS_POINTER_MODE_DEVICE);
  if (which == variant::control) p.alpha = scalars;
  p.beta = scalars + 1;
  p.run(b);
  if (which == variant::control) p.check(b);
  else cudaStreamSynchronize(b.first);
}
// What lies in a workspace is garbage after each call.
void workspace_over_data(bench& b, variant which) {
  product p{b};
  float *const data = b.array(std::vector<float>(1024, 1.f)), *const workspace = b.array(1024);
  cublasSetWorkspace(b.blas(), which == variant::bug ? data : workspace, 4096);
  p.run(b);
  b.expect_equal(b.read(data + 17), 1);
}
void workspace_freed(bench& b, variant which) {
  product p{b};
  void* workspace = nullptr;
  cudaMallocAsync(&workspace, 4096, b.first);
  cublasSetWorkspace(b.blas(), workspace, 4096);
  if (which == variant::bug) cudaFreeAsync(workspace, b.first);
  p.run(b);
  if (which == variant::control) cudaFreeAsync(workspace, b.first);
  cudaStreamSynchronize(b.first);
}

/// A positive definite matrix of order 4 and what its factorization needs.
struct cholesky {
  static constexpr int order = 4;
  float *matrix, *workspace;
  int* info;
  int size = 0;

  explicit cholesky(bench& with) {
    std::vector<float> values(order * order, 1.f);
    for (int i = 0; i < order; ++i) values[static_cast<std::size_t>(i * (order + 1))] = 4;
    matrix = with.array(values);
    info = reinterpret_cast<int*>(with.array(1));
    cusolverDnSpotrf_bufferSize(with.solver(), CUBLAS_FILL_MODE_LOWER, order, matrix, order, &size);
    workspace = with.array(static_cast<std::size_t>(size));
  }
  void run(bench& with, float* scratch) const {
    with.expect_success(
        cusolverDnSpotrf(with.solver(), CUBLAS_FILL_MODE_LOWER, order, matrix, order, scratch, size, info));
  }
};

void workspace_too_short(bench& b, variant which) {
  cholesky const c{b};
  c.run(b, which == variant::bug ? b.array(static_cast<std::size_t>(c.size) - 1) : c.workspace);
  cudaStreamSynchronize(b.first);
}
void workspace_said_to_be_short(bench& b, variant which) {
  cholesky c{b};
  if (which == variant::bug) c.size = 0;
  c.run(b, c.workspace);
  cudaStreamSynchronize(b.first);
}
void result_in_a_workspace(bench& b, variant which) {
  cholesky const c{b};
  float* const kept = which == variant::bug ? c.workspace : b.array(1);
  cudaMemcpyAsync(kept, b.numbers + 3, sizeof(float), cudaMemcpyDeviceToDevice, b.first);
  c.run(b, c.workspace);
  b.expect_equal(b.read(kept), 3);
}
// Only one triangle is the factor; the other still holds the matrix.
void other_triangle(bench& b, variant which) {
  cholesky const c{b};
  c.run(b, c.workspace);
  auto const part = which == variant::bug ? CUBLAS_FILL_MODE_UPPER : CUBLAS_FILL_MODE_LOWER;
  float* const x = b.array(std::vector<float>{2, 0, 0, 0});
  cublasStrsm(b.blas(), CUBLAS_SIDE_LEFT, part, CUBLAS_OP_N, CUBLAS_DIAG_NON_UNIT, 4, 1, &one, c.matrix, 4, x, 4);
  b.expect_equal(b.read(x) + 10 * b.read(x + 1), 1 + 10 * (-0.5f / b.read(c.matrix + 5)));
}
void triangle_of_a_product(bench& b, variant which) {
  product p{b};
  float* const square = b.array(k * k);
  auto const part = which == variant::bug ? CUBLAS_FILL_MODE_LOWER : CUBLAS_FILL_MODE_UPPER;
  cublasSsyrk(b.blas(), part, CUBLAS_OP_T, k, m, &one, p.a, m, &zero, square, k);
  float* const upper_element = b.array(1);
  cudaMemcpyAsync(upper_element, square + 3 * k, sizeof(float), cudaMemcpyDeviceToDevice, b.first);
  float const value = b.read(upper_element);
  b.expect_equal(value, value);  // NaN is not
}
void matrix_after_its_decomposition(bench& b, variant which) {
  cholesky const c{b};
  float *const kept = b.array(16), *const values = b.array(4);
  cudaMemcpyAsync(kept, c.matrix, 64, cudaMemcpyDeviceToDevice, b.first);
  int size = 0;
  cusolverDnSgesvd_bufferSize(b.solver(), 4, 4, &size);
  float* const scratch = b.array(static_cast<std::size_t>(size));
  cusolverDnSgesvd(b.solver(), 'N', 'N', 4, 4, c.matrix, 4, values, nullptr, 4, nullptr, 4, scratch, size, nullptr,
                   c.info);
  float* const again = which == variant::bug ? c.matrix : kept;
  cublasSgemm(b.blas(), CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, &one, again, 4, again, 4, &zero, scratch, 4);
  cudaStreamSynchronize(b.first);
}

constexpr auto report = noticed::by_report, value = noticed::by_value, status = noticed::by_status;
constexpr row rows[] = {
    {"leading dimension too small", leading_dimension_too_small, status, status},
    {"leading dimension too large", leading_dimension_too_large, report, report, "out of bounds: gemm C"},
    {"leading dimension of a part", leading_dimension_of_a_part, value, value},
    {"operands swapped", operands_swapped, report, report, "out of bounds: gemm"},
    {"result added to nothing", result_added_to_nothing, report, report, "uninitialised read: gemm C"},
    {"result over an operand", result_over_an_operand, report, report, "aliasing"},
    {"host scalar in device mode", host_scalar_in_device_mode, report, report, "host pointer"},
    {"workspace over data", workspace_over_data, value, value},
    {"workspace freed", workspace_freed, report, report, "use after free: cuBLAS workspace"},
    {"workspace too short", workspace_too_short, report, report, "out of bounds: cuSOLVER workspace"},
    {"workspace said to be short", workspace_said_to_be_short, status, status},
    {"result in a workspace", result_in_a_workspace, value, value},
    {"other triangle", other_triangle, value, value},
    {"triangle of a product", triangle_of_a_product, value, value},
    {"matrix after its decomposition", matrix_after_its_decomposition, report, report, "uninitialised read: gemm A"},
};

}  // namespace

std::span<row const> library_rows() { return rows; }

}  // namespace planted
