#include "softgpu/contract/contract.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

namespace contract {

void say(std::string const& what, int value) { std::printf("%s = %d\n", what.c_str(), value); }
void note(std::string const& what, double value) { std::printf("~ %s = %g\n", what.c_str(), value); }

void group(char const* name, std::function<void()> const& body) {
  std::fflush(nullptr);
  pid_t const child = fork();
  if (child == 0) {
    std::printf("[%s]\n", name);
    body();
    std::fflush(nullptr);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (status != 0) std::printf("%s ended with %d\n", name, status);
}

world::world() {
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
  cudaStreamCreate(&blocking);
  cudaEventCreateWithFlags(&before, cudaEventDisableTiming);
  cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  for (float** p : {&a, &b, &c}) cudaMalloc(p, 4096);
  cudaMalloc(&scratch, scratch_bytes);
  cudaMalloc(&info, 64);
  cudaMallocHost(&pinned, 4096);
  for (int i = 0; i < 1024; ++i) host[i] = i < n * n && i % (n + 1) == 0 ? 4.f : 0.f;
  for (float* p : {a, b, c}) cudaMemcpy(p, host, 4096, cudaMemcpyHostToDevice);
  cudaMemset(scratch, 0, scratch_bytes);
  cublasCreate(&blas);
  cublasSetStream(blas, stream);
  cusolverDnCreate(&solver);
  cusolverDnSetStream(solver, stream);
  gemm();
  for (auto const call : {&world::potrf, &world::syevd, &world::gesvd, &world::geqrf, &world::orgqr}) {
    cudaDeviceSynchronize();
    cudaMemcpy(a, host, 4096, cudaMemcpyHostToDevice);
    (this->*call)();
  }
  cudaDeviceSynchronize();
  for (float* p : {a, b, c}) cudaMemcpy(p, host, 4096, cudaMemcpyHostToDevice);
  cudaEventRecord(before, other);
  cudaDeviceSynchronize();
}
int world::gemm() {
  float const one = 1, zero = 0;
  return cublasSgemm(blas, CUBLAS_OP_N, CUBLAS_OP_N, n, n, n, &one, a, n, b, n, &zero, c, n);
}
int world::potrf() {
  int size = 0;
  cusolverDnSpotrf_bufferSize(solver, CUBLAS_FILL_MODE_LOWER, n, a, n, &size);
  return cusolverDnSpotrf(solver, CUBLAS_FILL_MODE_LOWER, n, a, n, scratch, size, info);
}
int world::syevd() {
  int size = 0;
  cusolverDnSsyevd_bufferSize(solver, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER, n, a, n, b, &size);
  return cusolverDnSsyevd(solver, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER, n, a, n, b, scratch, size, info);
}
int world::gesvd() {
  int size = 0;
  cusolverDnSgesvd_bufferSize(solver, n, n, &size);
  return cusolverDnSgesvd(solver, 'N', 'N', n, n, a, n, b, nullptr, n, nullptr, n, scratch, size, nullptr, info);
}
int world::geqrf() {
  int size = 0;
  cusolverDnSgeqrf_bufferSize(solver, n, n, a, n, &size);
  return cusolverDnSgeqrf(solver, n, n, a, n, b, scratch, size, info);
}
int world::orgqr() {
  int size = 0;
  cusolverDnSorgqr_bufferSize(solver, n, n, n, a, n, b, &size);
  return cusolverDnSorgqr(solver, n, n, n, a, n, b, scratch, size, info);
}

}  // namespace contract

int main() {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  contract::properties();
  contract::refusals();
  contract::graphs();
  contract::captures();
  contract::faults();
  contract::blas();
  contract::solver();
}
