// What cuBLAS and cuSOLVER say of their arguments.
#include "softgpu/contract/contract.hpp"

#include <cmath>
#include <utility>
#include <vector>

namespace contract {

void blas() {
  group("cublas", [] {
    world w;
    float const one = 1, zero = 0;
    double const done = 1, dzero = 0;
    auto const gemm = [&](char const* what, int m, int n, int k, int lda, int ldb, int ldc,
                          cublasOperation_t ta = CUBLAS_OP_N, cublasOperation_t tb = CUBLAS_OP_N) {
      say(std::string{"gemm "} + what, cublasSgemm(w.blas, ta, tb, m, n, k, &one, w.a, lda, w.b, ldb, &zero, w.c, ldc));
    };
    gemm("", 8, 6, 4, 8, 4, 8);
    gemm("lda", 8, 6, 4, 7, 4, 8);
    gemm("ldb", 8, 6, 4, 8, 3, 8);
    gemm("ldc", 8, 6, 4, 8, 4, 7);
    gemm("lda transposed", 8, 6, 4, 3, 4, 8, CUBLAS_OP_T);
    gemm("ldb transposed", 8, 6, 4, 8, 5, 8, CUBLAS_OP_N, CUBLAS_OP_T);
    gemm("m < 0", -1, 6, 4, 8, 4, 8);
    gemm("m = 0", 0, 6, 4, 8, 4, 8);
    gemm("m = 0, ld = 0", 0, 6, 4, 0, 4, 0);
    gemm("k = 0", 8, 6, 0, 8, 1, 8);
    gemm("k = 0, ldb = 0", 8, 6, 0, 8, 0, 8);
    say("gemm alpha null",
        cublasSgemm(w.blas, CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, nullptr, w.a, 4, w.b, 4, &zero, w.c, 4));
    say("gemm handle null",
        cublasSgemm(nullptr, CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, &one, w.a, 4, w.b, 4, &zero, w.c, 4));
    auto const ex = [&](char const* what, cudaDataType_t in, cudaDataType_t out, cublasComputeType_t compute) {
      void const* alpha = compute == CUBLAS_COMPUTE_64F ? static_cast<void const*>(&done) : &one;
      void const* beta = compute == CUBLAS_COMPUTE_64F ? static_cast<void const*>(&dzero) : &zero;
      say(std::string{"gemmEx "} + what, cublasGemmEx(w.blas, CUBLAS_OP_N, CUBLAS_OP_N, 8, 8, 8, alpha, w.a, in, 8, w.b,
                                                      in, 8, beta, w.c, out, 8, compute, CUBLAS_GEMM_DEFAULT));
    };
    ex("f32", CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F);
    ex("f32 pedantic", CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F_PEDANTIC);
    ex("f32 tf32", CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_TF32);
    ex("f32 fast bf16", CUDA_R_32F, CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_16BF);
    ex("bf16 to f32", CUDA_R_16BF, CUDA_R_32F, CUBLAS_COMPUTE_32F);
    ex("bf16 to bf16", CUDA_R_16BF, CUDA_R_16BF, CUBLAS_COMPUTE_32F);
    ex("bf16 pedantic", CUDA_R_16BF, CUDA_R_32F, CUBLAS_COMPUTE_32F_PEDANTIC);
    ex("bf16 to f16", CUDA_R_16BF, CUDA_R_16F, CUBLAS_COMPUTE_32F);
    ex("f16 to f32", CUDA_R_16F, CUDA_R_32F, CUBLAS_COMPUTE_32F);
    ex("f16 to f16", CUDA_R_16F, CUDA_R_16F, CUBLAS_COMPUTE_32F);
    ex("f32 to bf16", CUDA_R_32F, CUDA_R_16BF, CUBLAS_COMPUTE_32F);
    ex("f32 to f64", CUDA_R_32F, CUDA_R_64F, CUBLAS_COMPUTE_64F);
    ex("f64", CUDA_R_64F, CUDA_R_64F, CUBLAS_COMPUTE_64F);
    ex("f64 in 32F", CUDA_R_64F, CUDA_R_64F, CUBLAS_COMPUTE_32F);
    ex("bf16 in tf32", CUDA_R_16BF, CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_TF32);
    ex("bf16 in 64F", CUDA_R_16BF, CUDA_R_32F, CUBLAS_COMPUTE_64F);
    auto const batched = [&](char const* what, int lda, int batch) {
      say(std::string{"batched "} + what,
          cublasSgemmStridedBatched(w.blas, CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, &one, w.a, lda, 16, w.b, 4, 16, &zero,
                                    w.c, 4, 16, batch));
    };
    batched("", 4, 2);
    batched("lda", 3, 2);
    batched("of none", 4, 0);
    batched("of -1", 4, -1);
    say("syrk", cublasSsyrk(w.blas, CUBLAS_FILL_MODE_UPPER, CUBLAS_OP_T, 6, 4, &one, w.a, 4, &zero, w.c, 6));
    say("syrk lda", cublasSsyrk(w.blas, CUBLAS_FILL_MODE_UPPER, CUBLAS_OP_T, 6, 4, &one, w.a, 3, &zero, w.c, 6));
    say("syrk ldc", cublasSsyrk(w.blas, CUBLAS_FILL_MODE_UPPER, CUBLAS_OP_T, 6, 4, &one, w.a, 4, &zero, w.c, 5));
    say("syrk full", cublasSsyrk(w.blas, CUBLAS_FILL_MODE_FULL, CUBLAS_OP_T, 6, 4, &one, w.a, 4, &zero, w.c, 6));
    auto const trsm = [&](char const* what, cublasSideMode_t side, int m, int n, int lda, int ldb) {
      say(std::string{"trsm "} + what, cublasStrsm(w.blas, side, CUBLAS_FILL_MODE_LOWER, CUBLAS_OP_N,
                                                   CUBLAS_DIAG_NON_UNIT, m, n, &one, w.a, lda, w.c, ldb));
    };
    trsm("", CUBLAS_SIDE_LEFT, 6, 4, 6, 6);
    trsm("lda", CUBLAS_SIDE_LEFT, 6, 4, 5, 6);
    trsm("lda right", CUBLAS_SIDE_RIGHT, 6, 4, 3, 6);
    trsm("ldb", CUBLAS_SIDE_LEFT, 6, 4, 6, 5);
    auto const geam = [&](char const* what, int lda, int ldb, int ldc, float const* b, float const* c) {
      say(std::string{"geam "} + what, cublasSgeam(w.blas, CUBLAS_OP_T, CUBLAS_OP_N, 6, 4, &one, w.a, lda, &zero, b,
                                                   ldb, const_cast<float*>(c), ldc));
    };
    geam("", 4, 6, 6, w.b, w.c);
    geam("lda", 3, 6, 6, w.b, w.c);
    geam("ldb", 4, 5, 6, w.b, w.c);
    geam("ldc", 4, 6, 5, w.b, w.c);
    geam("b null", 4, 6, 6, nullptr, w.c);
    geam("in place of b", 4, 6, 6, w.c, w.c);
    geam("in place of transposed a", 4, 6, 6, w.b, w.a);
    say("workspace", cublasSetWorkspace(w.blas, w.scratch, world::scratch_bytes));
    say("workspace misaligned", cublasSetWorkspace(w.blas, w.scratch + 1, 4096));
    say("workspace none", cublasSetWorkspace(w.blas, nullptr, 0));
    say("gemm with no workspace", w.gemm());
    cudaDeviceSynchronize();

    // beta = 0 does not read C; alpha = 0 does not read A and B.
    float const nan = std::nanf("");
    std::vector<float> bad(256, nan);
    cudaMemcpy(w.a, w.host, 1024, cudaMemcpyHostToDevice);
    cudaMemcpy(w.b, w.host, 1024, cudaMemcpyHostToDevice);
    cudaMemcpy(w.c, bad.data(), 1024, cudaMemcpyHostToDevice);
    w.gemm();
    cudaStreamSynchronize(w.stream);
    float got = 0;
    cudaMemcpy(&got, w.c, 4, cudaMemcpyDeviceToHost);
    say("beta = 0 over NaN", int(got));
    cudaMemcpy(w.a, bad.data(), 1024, cudaMemcpyHostToDevice);
    cublasSgemm(w.blas, CUBLAS_OP_N, CUBLAS_OP_N, 16, 16, 16, &zero, w.a, 16, w.b, 16, &one, w.c, 16);
    cudaStreamSynchronize(w.stream);
    cudaMemcpy(&got, w.c, 4, cudaMemcpyDeviceToHost);
    say("alpha = 0 over NaN", std::isnan(got) ? -1 : int(got));
    // Rounding of inputs.
    std::vector<float> fine(256, 1.f + 0x1p-12f);
    cudaMemcpy(w.a, fine.data(), 1024, cudaMemcpyHostToDevice);
    for (auto const& [what, compute] : {std::pair{"32F", CUBLAS_COMPUTE_32F}, {"TF32", CUBLAS_COMPUTE_32F_FAST_TF32}}) {
      cublasGemmEx(w.blas, CUBLAS_OP_N, CUBLAS_OP_N, 16, 16, 16, &one, w.a, CUDA_R_32F, 16, w.b, CUDA_R_32F, 16, &zero,
                   w.c, CUDA_R_32F, 16, compute, CUBLAS_GEMM_DEFAULT);
      cudaStreamSynchronize(w.stream);
      cudaMemcpy(&got, w.c, 4, cudaMemcpyDeviceToHost);
      say(std::string{"1 + 2^-12 kept by "} + what, got != 4.f);
    }
  });
  group("blas without device scalars", [] {
    world w;
    float* scalars = nullptr;
    cudaMalloc(&scalars, 8);
    float const values[2] = {2, 0};
    cudaMemcpy(scalars, values, 8, cudaMemcpyHostToDevice);
    say("device mode", cublasSetPointerMode(w.blas, CUBLAS_POINTER_MODE_DEVICE));
    say("gemm",
        cublasSgemm(w.blas, CUBLAS_OP_N, CUBLAS_OP_N, 16, 16, 16, scalars, w.a, 16, w.b, 16, scalars + 1, w.c, 16));
    cudaStreamSynchronize(w.stream);
    float got = 0;
    cudaMemcpy(&got, w.c, 4, cudaMemcpyDeviceToHost);
    say("two times 16", int(got));
  });
}

void solver() {
  group("cusolver", [] {
    world w;
    int size = 0;
    auto const load = [&](std::vector<float> const& values) {
      cudaMemcpy(w.a, values.data(), values.size() * 4, cudaMemcpyHostToDevice);
      cudaMemset(w.info, 0xEE, 4);
      cudaDeviceSynchronize();
    };
    auto const info = [&](std::string const& what) {
      cudaDeviceSynchronize();
      int got = 0;
      cudaMemcpy(&got, w.info, 4, cudaMemcpyDeviceToHost);
      say(what + ", info", got);
    };
    auto const first = [&](std::string const& what, float const* from) {
      float got = 0;
      cudaMemcpy(&got, from, 4, cudaMemcpyDeviceToHost);
      say(what + ", NaN", std::isnan(got));
    };
    std::vector<float> good(256), indefinite(256), bad(256, std::nanf(""));
    for (int i = 0; i < 16; ++i) good[i * 17] = 4, indefinite[i * 17] = i == 3 ? -1.f : 1.f;

    say("potrf size", cusolverDnSpotrf_bufferSize(w.solver, CUBLAS_FILL_MODE_LOWER, 16, w.a, 16, &size));
    note("potrf size 16", size);
    say("potrf size lda", cusolverDnSpotrf_bufferSize(w.solver, CUBLAS_FILL_MODE_LOWER, 16, w.a, 15, &size));
    auto const potrf = [&](std::string const& what, std::vector<float> const& values, int n, int lda, int less) {
      load(values);
      cusolverDnSpotrf_bufferSize(w.solver, CUBLAS_FILL_MODE_LOWER, 16, w.a, 16, &size);
      say(what, cusolverDnSpotrf(w.solver, CUBLAS_FILL_MODE_LOWER, n, w.a, lda, w.scratch, size - less, w.info));
      info(what);
    };
    potrf("potrf", good, 16, 16, 0);
    potrf("potrf indefinite", indefinite, 16, 16, 0);
    potrf("potrf NaN", bad, 16, 16, 0);
    potrf("potrf lda", good, 16, 15, 0);
    potrf("potrf n < 0", good, -1, 16, 0);
    potrf("potrf n = 0", good, 0, 16, 0);
    if (size > 0) potrf("~ potrf one less", good, 16, 16, 1);
    potrf("potrf lwork 0", good, 16, 16, size);

    auto const syevd = [&](std::string const& what, std::vector<float> const& values, int n, int lda, bool none) {
      load(values);
      cusolverDnSsyevd_bufferSize(w.solver, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER, 16, w.a, 16, w.b, &size);
      say(what, cusolverDnSsyevd(w.solver, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER, n, w.a, lda, w.b,
                                 w.scratch, none ? 0 : size, w.info));
      info(what);
      if (what == "syevd NaN") first(what, w.b), first(what + " vectors", w.a);
    };
    syevd("syevd", good, 16, 16, false);
    note("syevd size 16", size);
    syevd("syevd NaN", bad, 16, 16, false);
    syevd("syevd lda", good, 16, 15, false);
    syevd("syevd lwork 0", good, 16, 16, true);
    syevd("syevd n = 0", good, 0, 16, false);

    auto const gesvd = [&](std::string const& what, std::vector<float> const& values, char u, char v, int m, int n,
                           int lda, int ldu, int ldv, bool none = false) {
      load(values);
      say(what + " size", cusolverDnSgesvd_bufferSize(w.solver, m, n, &size));
      float *const left = w.scratch + (1 << 18), *const right = left + 4096;
      say(what, cusolverDnSgesvd(w.solver, u, v, m, n, w.a, lda, w.b, left, ldu, right, ldv, w.scratch, none ? 0 : size,
                                 nullptr, w.info));
      info(what);
      if (what == "gesvd NaN") first(what, w.b);
    };
    gesvd("gesvd", good, 'S', 'S', 16, 8, 16, 16, 8);
    note("gesvd size 16 x 8", size);
    gesvd("gesvd all", good, 'A', 'A', 16, 8, 16, 16, 8);
    gesvd("gesvd none", good, 'N', 'N', 16, 8, 16, 16, 8);
    gesvd("gesvd overwrite", good, 'O', 'S', 16, 8, 16, 16, 8);
    gesvd("gesvd both overwrite", good, 'O', 'O', 16, 8, 16, 16, 8);
    gesvd("gesvd wide", good, 'S', 'S', 8, 16, 8, 8, 8);
    gesvd("gesvd job", good, 'X', 'S', 16, 8, 16, 16, 8);
    gesvd("gesvd lda", good, 'S', 'S', 16, 8, 15, 16, 8);
    gesvd("gesvd ldu", good, 'S', 'S', 16, 8, 16, 15, 8);
    gesvd("gesvd ldvt", good, 'S', 'S', 16, 8, 16, 16, 7);
    gesvd("gesvd NaN", bad, 'S', 'S', 16, 8, 16, 16, 8);
    gesvd("gesvd lwork 0", good, 'S', 'S', 16, 8, 16, 16, 8, true);

    auto const geqrf = [&](std::string const& what, int m, int n, int lda, bool none = false) {
      load(good);
      say(what + " size", cusolverDnSgeqrf_bufferSize(w.solver, m, n, w.a, lda, &size));
      say(what, cusolverDnSgeqrf(w.solver, m, n, w.a, lda, w.b, w.scratch, none ? 0 : 1 << 18, w.info));
      info(what);
    };
    geqrf("geqrf", 16, 8, 16);
    note("geqrf size 16 x 8", size);
    geqrf("geqrf wide", 8, 16, 8);
    geqrf("geqrf lda", 16, 8, 15);
    geqrf("geqrf lwork 0", 16, 8, 16, true);
    auto const orgqr = [&](std::string const& what, int m, int n, int k, int lda) {
      geqrf(what + " of", 16, 8, 16);
      say(what + " size", cusolverDnSorgqr_bufferSize(w.solver, m, n, k, w.a, lda, w.b, &size));
      say(what, cusolverDnSorgqr(w.solver, m, n, k, w.a, lda, w.b, w.scratch, 1 << 18, w.info));
      info(what);
    };
    orgqr("orgqr", 16, 8, 8, 16);
    orgqr("orgqr square", 16, 16, 8, 16);
    orgqr("orgqr wide", 8, 16, 8, 8);
    orgqr("orgqr k > n", 16, 8, 9, 16);
    orgqr("orgqr lda", 16, 8, 8, 15);
    say("handle null", cusolverDnSpotrf_bufferSize(nullptr, CUBLAS_FILL_MODE_LOWER, 16, w.a, 16, &size));
  });
}

}  // namespace contract
