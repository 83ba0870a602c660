// The numbers of cuBLAS and cuSOLVER calls, against plain loops. Everything here holds on a real GPU as well.
#include <doctest/doctest.h>

#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cusolverDn.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace {

/// A column-major matrix on the host with a leading dimension that is larger than its rows.
template <class T>
struct matrix {
  int rows, cols, ld;
  std::vector<T> values;

  matrix(int r, int c, int padding = 3) : rows{r}, cols{c}, ld{r + padding}, values(static_cast<std::size_t>(ld * c)) {}
  static matrix sample(int r, int c, unsigned seed) {
    matrix made{r, c};
    for (int j = 0; j < c; ++j)
      for (int i = 0; i < r; ++i) {
        seed = seed * 1664525u + 1013904223u;
        made(i, j) = T(static_cast<float>(seed >> 20) / 2048.f - 1.f);
      }
    return made;
  }
  T& operator()(int i, int j) { return values[static_cast<std::size_t>(j * ld + i)]; }
  double at(int i, int j) const {
    return static_cast<double>(static_cast<float>(values[static_cast<std::size_t>(j * ld + i)]));
  }
  double at(int i, int j, cublasOperation_t op) const { return op == CUBLAS_OP_N ? at(i, j) : at(j, i); }
};
template <>
double matrix<double>::at(int i, int j) const {
  return values[static_cast<std::size_t>(j * ld + i)];
}

/// The library handles, and device copies that live as long as they.
class library {
 public:
  library() {
    cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
    cublasCreate(&blas);
    cublasSetStream(blas, stream);
    cusolverDnCreate(&solver);
    cusolverDnSetStream(solver, stream);
  }
  ~library() {
    cudaStreamSynchronize(stream);
    for (void* const p : owned_) cudaFree(p);
    cublasDestroy(blas);
    cusolverDnDestroy(solver);
    cudaStreamDestroy(stream);
  }
  library(library const&) = delete;
  library& operator=(library const&) = delete;

  cudaStream_t stream{};
  cublasHandle_t blas{};
  cusolverDnHandle_t solver{};

  template <class T>
  T* space(std::size_t count) {
    void* p = nullptr;
    cudaMalloc(&p, count * sizeof(T));
    owned_.push_back(p);
    return static_cast<T*>(p);
  }
  template <class T>
  T* up(std::vector<T> const& values) {
    T* const p = space<T>(values.size());
    cudaMemcpyAsync(p, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice, stream);
    return p;
  }
  template <class T>
  std::vector<T> down(T const* p, std::size_t count) {
    std::vector<T> values(count);
    cudaMemcpyAsync(values.data(), p, count * sizeof(T), cudaMemcpyDeviceToHost, stream);
    cudaStreamSynchronize(stream);
    return values;
  }
  template <class T>
  void down(matrix<T>& m, T const* p) {
    m.values = down(p, m.values.size());
  }

 private:
  std::vector<void*> owned_;
};

template <class T>
constexpr cudaDataType_t type_of = std::is_same_v<T, double>          ? CUDA_R_64F
                                   : std::is_same_v<T, float>         ? CUDA_R_32F
                                   : std::is_same_v<T, __nv_bfloat16> ? CUDA_R_16BF
                                                                      : CUDA_R_16F;

template <class In, class Out, class Scale>
void check_product(cublasOperation_t op_a, cublasOperation_t op_b, cublasComputeType_t compute, double tolerance) {
  library l;
  int const m = 17, n = 9, k = 21;
  auto const a = op_a == CUBLAS_OP_N ? matrix<In>::sample(m, k, 1) : matrix<In>::sample(k, m, 1);
  auto const b = op_b == CUBLAS_OP_N ? matrix<In>::sample(k, n, 2) : matrix<In>::sample(n, k, 2);
  auto const c = matrix<Out>::sample(m, n, 3);
  Scale const alpha = Scale(1.5), beta = Scale(-0.5);
  In *const da = l.up(a.values), *const db = l.up(b.values);
  Out* const dc = l.up(c.values);
  REQUIRE(cublasGemmEx(l.blas, op_a, op_b, m, n, k, &alpha, da, type_of<In>, a.ld, db, type_of<In>, b.ld, &beta, dc,
                       type_of<Out>, c.ld, compute, CUBLAS_GEMM_DEFAULT) == CUBLAS_STATUS_SUCCESS);
  auto got = c;
  l.down(got, dc);
  double worst = 0;
  for (int j = 0; j < n; ++j)
    for (int i = 0; i < m; ++i) {
      double sum = 0;
      for (int p = 0; p < k; ++p) sum += a.at(i, p, op_a) * b.at(p, j, op_b);
      worst = std::max(worst, std::abs(1.5 * sum - 0.5 * c.at(i, j) - got.at(i, j)));
    }
  CHECK(worst < tolerance);
}

}  // namespace

TEST_CASE("gemm: all transpositions, types, leading dimensions") {
  for (auto const op_a : {CUBLAS_OP_N, CUBLAS_OP_T})
    for (auto const op_b : {CUBLAS_OP_N, CUBLAS_OP_T}) {
      check_product<float, float, float>(op_a, op_b, CUBLAS_COMPUTE_32F, 1e-5);
      check_product<float, float, float>(op_a, op_b, CUBLAS_COMPUTE_32F_FAST_TF32, 3e-2);
      check_product<double, double, double>(op_a, op_b, CUBLAS_COMPUTE_64F, 1e-13);
      check_product<__nv_bfloat16, float, float>(op_a, op_b, CUBLAS_COMPUTE_32F, 1e-5);
      check_product<__nv_bfloat16, __nv_bfloat16, float>(op_a, op_b, CUBLAS_COMPUTE_32F, 6e-2);
      check_product<__half, float, float>(op_a, op_b, CUBLAS_COMPUTE_32F, 1e-5);
      check_product<__half, __half, float>(op_a, op_b, CUBLAS_COMPUTE_32F, 1e-2);
    }
}

TEST_CASE("gemm: only the math mode of tensor cores rounds its inputs") {
  float const fine = 1.f + 0x1p-12f, one = 1, zero = 0;
  for (auto const mode : {CUBLAS_DEFAULT_MATH, CUBLAS_PEDANTIC_MATH, CUBLAS_TF32_TENSOR_OP_MATH}) {
    library l;
    float *const x = l.up(std::vector<float>(256, fine)), *const y = l.up(std::vector<float>(256, 1.f));
    float* const z = l.space<float>(256);
    cublasSetMathMode(l.blas, mode);
    cublasSgemm(l.blas, CUBLAS_OP_N, CUBLAS_OP_N, 16, 16, 16, &one, x, 16, y, 16, &zero, z, 16);
    CHECK((l.down(z, 1)[0] == 16.f) == (mode == CUBLAS_TF32_TENSOR_OP_MATH));
  }
}

TEST_CASE("gemm: batches with strides, sizes of 64 bits, scalars on the device") {
  library l;
  int const n = 5;
  std::vector<float> a(75), b(75);
  for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i % 11), b[i] = static_cast<float>(i % 7);
  float *const da = l.up(a), *const db = l.up(b), *const dc = l.space<float>(75);
  float* const scalars = l.up(std::vector<float>{2, 0});
  cublasSetPointerMode(l.blas, CUBLAS_POINTER_MODE_DEVICE);
  REQUIRE(cublasSgemmStridedBatched(l.blas, CUBLAS_OP_N, CUBLAS_OP_T, n, n, n, scalars, da, n, 25, db, n, 25,
                                    scalars + 1, dc, n, 25, 3) == CUBLAS_STATUS_SUCCESS);
  auto const got = l.down(dc, 75);
  float* const single = l.space<float>(25);
  REQUIRE(cublasSgemm_64(l.blas, CUBLAS_OP_N, CUBLAS_OP_T, n, n, n, scalars, da + 50, n, db + 50, n, scalars + 1,
                         single, n) == CUBLAS_STATUS_SUCCESS);
  CHECK(l.down(single, 25) == std::vector<float>(got.begin() + 50, got.end()));
  float sum = 0;
  for (std::size_t p = 0; p < 5; ++p) sum += a[25 + 2 + 5 * p] * b[25 + 4 + 5 * p];
  CHECK(got[25 + 2 + 5 * 4] == 2 * sum);
}

TEST_CASE("syrk: one triangle, and nothing of the other") {
  for (auto const part : {CUBLAS_FILL_MODE_LOWER, CUBLAS_FILL_MODE_UPPER})
    for (auto const op : {CUBLAS_OP_N, CUBLAS_OP_T}) {
      library l;
      int const n = 7, k = 12;
      auto const a = op == CUBLAS_OP_N ? matrix<double>::sample(n, k, 4) : matrix<double>::sample(k, n, 4);
      auto c = matrix<double>::sample(n, n, 5), before = c;
      double const alpha = 2, beta = 3;
      double *const da = l.up(a.values), *const dc = l.up(c.values);
      REQUIRE(cublasDsyrk(l.blas, part, op, n, k, &alpha, da, a.ld, &beta, dc, c.ld) == CUBLAS_STATUS_SUCCESS);
      l.down(c, dc);
      for (int j = 0; j < n; ++j)
        for (int i = 0; i < n; ++i) {
          bool const inside = part == CUBLAS_FILL_MODE_LOWER ? i >= j : i <= j;
          double sum = 0;
          for (int p = 0; p < k; ++p) sum += a.at(i, p, op) * a.at(j, p, op);
          CHECK(c.at(i, j) == doctest::Approx(inside ? 2 * sum + 3 * before.at(i, j) : before.at(i, j)));
        }
    }
}

TEST_CASE("trsm: sides, triangles, transpositions, unit diagonals") {
  for (auto const side : {CUBLAS_SIDE_LEFT, CUBLAS_SIDE_RIGHT})
    for (auto const part : {CUBLAS_FILL_MODE_LOWER, CUBLAS_FILL_MODE_UPPER})
      for (auto const op : {CUBLAS_OP_N, CUBLAS_OP_T})
        for (auto const diagonal : {CUBLAS_DIAG_NON_UNIT, CUBLAS_DIAG_UNIT}) {
          library l;
          int const m = 8, n = 6, order = side == CUBLAS_SIDE_LEFT ? m : n;
          auto a = matrix<double>::sample(order, order, 6);
          for (int i = 0; i < order; ++i) a(i, i) += 3;
          auto const b = matrix<double>::sample(m, n, 7);
          double const alpha = 2;
          double *const da = l.up(a.values), *const db = l.up(b.values);
          REQUIRE(cublasDtrsm(l.blas, side, part, op, diagonal, m, n, &alpha, da, a.ld, db, b.ld) ==
                  CUBLAS_STATUS_SUCCESS);
          auto x = b;
          l.down(x, db);
          auto const factor = [&](int i, int j) {  // op(A) with what lies outside its triangle as zero
            int const r = op == CUBLAS_OP_N ? i : j, c = op == CUBLAS_OP_N ? j : i;
            if (r == c) return diagonal == CUBLAS_DIAG_UNIT ? 1. : a.at(r, c);
            return (part == CUBLAS_FILL_MODE_LOWER ? r > c : r < c) ? a.at(r, c) : 0.;
          };
          for (int j = 0; j < n; ++j)
            for (int i = 0; i < m; ++i) {
              double sum = 0;
              for (int p = 0; p < order; ++p)
                sum += side == CUBLAS_SIDE_LEFT ? factor(i, p) * x.at(p, j) : x.at(i, p) * factor(p, j);
              CHECK(sum == doctest::Approx(2 * b.at(i, j)).epsilon(1e-9));
            }
        }
}

TEST_CASE("geam: transposed sums, and an operand that is not needed") {
  library l;
  int const m = 6, n = 4;
  auto const a = matrix<float>::sample(n, m, 8), b = matrix<float>::sample(m, n, 9);
  float const two = 2, three = 3, zero = 0;
  float *const da = l.up(a.values), *const db = l.up(b.values);
  matrix<float> c{m, n};
  float* const dc = l.up(c.values);
  REQUIRE(cublasSgeam(l.blas, CUBLAS_OP_T, CUBLAS_OP_N, m, n, &two, da, a.ld, &three, db, b.ld, dc, c.ld) ==
          CUBLAS_STATUS_SUCCESS);
  l.down(c, dc);
  for (int j = 0; j < n; ++j)
    for (int i = 0; i < m; ++i) CHECK(c.at(i, j) == doctest::Approx(2 * a.at(j, i) + 3 * b.at(i, j)));
  REQUIRE(cublasSgeam(l.blas, CUBLAS_OP_T, CUBLAS_OP_N, m, n, &two, da, a.ld, &zero, nullptr, m, dc, c.ld) ==
          CUBLAS_STATUS_SUCCESS);
  l.down(c, dc);
  CHECK(c.at(5, 3) == doctest::Approx(2 * a.at(3, 5)));
}

TEST_CASE("potrf: the factor, and the order of the minor that is not positive") {
  library l;
  int const n = 9;
  auto const a = matrix<double>::sample(n, n, 10);
  matrix<double> s{n, n};
  for (int j = 0; j < n; ++j)
    for (int i = 0; i < n; ++i) {
      for (int p = 0; p < n; ++p) s(i, j) += a.at(i, p) * a.at(j, p);
      s(i, j) += i == j ? 1 : 0;
    }
  double* const ds = l.up(s.values);
  int* const info = l.space<int>(1);
  int size = 0;
  REQUIRE(cusolverDnDpotrf_bufferSize(l.solver, CUBLAS_FILL_MODE_LOWER, n, ds, s.ld, &size) == CUSOLVER_STATUS_SUCCESS);
  double* const scratch = l.space<double>(static_cast<std::size_t>(size));
  REQUIRE(cusolverDnDpotrf(l.solver, CUBLAS_FILL_MODE_LOWER, n, ds, s.ld, scratch, size, info) ==
          CUSOLVER_STATUS_SUCCESS);
  auto f = s;
  l.down(f, ds);
  CHECK(l.down(info, 1)[0] == 0);
  for (int j = 0; j < n; ++j)
    for (int i = j; i < n; ++i) {
      double sum = 0;
      for (int p = 0; p <= j; ++p) sum += f.at(i, p) * f.at(j, p);
      CHECK(sum == doctest::Approx(s.at(i, j)));
      if (i != j) CHECK(f.at(j, i) == s.at(j, i));  // the other triangle is as it was
    }
  s(4, 4) = -1;
  double* const indefinite = l.up(s.values);
  cusolverDnDpotrf(l.solver, CUBLAS_FILL_MODE_LOWER, n, indefinite, s.ld, scratch, size, info);
  CHECK(l.down(info, 1)[0] == 5);
}

TEST_CASE("syevd: ascending values with their vectors") {
  library l;
  int const n = 10;
  auto s = matrix<double>::sample(n, n, 11);
  for (int j = 0; j < n; ++j)
    for (int i = 0; i < j; ++i) s(i, j) = s(j, i);
  double *const ds = l.up(s.values), *const values = l.space<double>(n);
  int* const info = l.space<int>(1);
  int size = 0;
  cusolverDnDsyevd_bufferSize(l.solver, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER, n, ds, s.ld, values, &size);
  double* const scratch = l.space<double>(static_cast<std::size_t>(size));
  REQUIRE(cusolverDnDsyevd(l.solver, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER, n, ds, s.ld, values, scratch,
                           size, info) == CUSOLVER_STATUS_SUCCESS);
  auto v = s;
  l.down(v, ds);
  auto const w = l.down(values, n);
  CHECK(l.down(info, 1)[0] == 0);
  CHECK(std::is_sorted(w.begin(), w.end()));
  for (int j = 0; j < n; ++j)
    for (int i = 0; i < n; ++i) {
      double sum = 0;
      for (int p = 0; p < n; ++p) sum += s.at(i, p) * v.at(p, j);
      CHECK(sum == doctest::Approx(w[static_cast<std::size_t>(j)] * v.at(i, j)).epsilon(1e-9).scale(1));
    }
}

TEST_CASE("gesvd: U S VT is the matrix") {
  library l;
  int const m = 11, n = 7;
  auto const a = matrix<double>::sample(m, n, 12);
  matrix<double> u{m, n}, vt{n, n};
  double *const da = l.up(a.values), *const values = l.space<double>(n);
  double *const du = l.up(u.values), *const dvt = l.up(vt.values);
  int* const info = l.space<int>(1);
  int size = 0;
  cusolverDnDgesvd_bufferSize(l.solver, m, n, &size);
  double* const scratch = l.space<double>(static_cast<std::size_t>(size));
  REQUIRE(cusolverDnDgesvd(l.solver, 'S', 'S', m, n, da, a.ld, values, du, u.ld, dvt, vt.ld, scratch, size, nullptr,
                           info) == CUSOLVER_STATUS_SUCCESS);
  l.down(u, du);
  l.down(vt, dvt);
  auto const s = l.down(values, n);
  for (int j = 0; j < n; ++j)
    for (int i = 0; i < m; ++i) {
      double sum = 0;
      for (int p = 0; p < n; ++p) sum += u.at(i, p) * s[static_cast<std::size_t>(p)] * vt.at(p, j);
      CHECK(sum == doctest::Approx(a.at(i, j)).epsilon(1e-9).scale(1));
    }
}

TEST_CASE("geqrf and orgqr: columns of the same span, orthonormal") {
  library l;
  int const m = 12, n = 5;
  auto const a = matrix<float>::sample(m, n, 13);
  float *const da = l.up(a.values), *const tau = l.space<float>(n);
  int* const info = l.space<int>(1);
  int size = 0, more = 0;
  cusolverDnSgeqrf_bufferSize(l.solver, m, n, da, a.ld, &size);
  cusolverDnSorgqr_bufferSize(l.solver, m, n, n, da, a.ld, tau, &more);
  float* const scratch = l.space<float>(static_cast<std::size_t>(std::max(size, more)));
  REQUIRE(cusolverDnSgeqrf(l.solver, m, n, da, a.ld, tau, scratch, size, info) == CUSOLVER_STATUS_SUCCESS);
  auto r = a;
  l.down(r, da);
  REQUIRE(cusolverDnSorgqr(l.solver, m, n, n, da, a.ld, tau, scratch, more, info) == CUSOLVER_STATUS_SUCCESS);
  auto q = a;
  l.down(q, da);
  for (int j = 0; j < n; ++j) {
    for (int i = 0; i < m; ++i) {
      double sum = 0;
      for (int p = 0; p <= j; ++p) sum += q.at(i, p) * r.at(p, j);
      CHECK(sum == doctest::Approx(a.at(i, j)).epsilon(1e-4).scale(1));
    }
    for (int p = 0; p < n; ++p) {
      double dot = 0;
      for (int i = 0; i < m; ++i) dot += q.at(i, p) * q.at(i, j);
      CHECK(dot == doctest::Approx(p == j ? 1 : 0).epsilon(1e-5).scale(1));
    }
  }
}
