// What tests can ask for and ask about: failures, reports, counts.
#include <doctest/doctest.h>

#include <cublas_v2.h>
#include <cusolverDn.h>

#include <string>
#include <thread>
#include <vector>

#include "softgpu/softgpu.hpp"

using namespace softgpu;

namespace {

__global__ void fill(float* x, int n, float value) {
  int const i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) x[i] = value;
}
__global__ void copy(float const* x, float* y) { y[threadIdx.x] = x[threadIdx.x]; }

}  // namespace

TEST_SUITE_BEGIN("watching" * doctest::skip(!test::present()));

TEST_CASE("failures: the n-th call of a name fails and does nothing") {
  void *first = nullptr, *second = nullptr;
  {
    test::failing_call const second_fails{"cudaMalloc", 2, cudaErrorMemoryAllocation};
    CHECK(cudaMalloc(&first, 64) == cudaSuccess);
    CHECK(cudaMalloc(&second, 64) == cudaErrorMemoryAllocation);
    CHECK(second == nullptr);
    CHECK(cudaGetLastError() == cudaErrorMemoryAllocation);
    CHECK(cudaMalloc(&second, 64) == cudaSuccess);
  }
  {
    test::failing_call const any_fails{"cudaMalloc*", 1, cudaErrorMemoryAllocation};
    void* third = nullptr;
    CHECK(cudaMallocAsync(&third, 64, nullptr) == cudaErrorMemoryAllocation);
  }
  { test::failing_call const never_reached{"cudaFree", 1000, cudaErrorUnknown}; }
  cudaGetLastError();
  CHECK(cudaFree(first) == cudaSuccess);
  CHECK(cudaFree(second) == cudaSuccess);
}

TEST_CASE("failures: launches and libraries too") {
  float* x = nullptr;
  cudaMalloc(&x, 64);
  {
    test::failing_call const wish{"cudaLaunchKernel", 1, cudaErrorLaunchOutOfResources};
    fill<<<1, 16>>>(x, 16, 1.f);
    CHECK(cudaGetLastError() == cudaErrorLaunchOutOfResources);
  }
  cublasHandle_t blas{};
  {
    test::failing_call const wish{"cublasCreate", 1, CUBLAS_STATUS_ALLOC_FAILED};
    CHECK(cublasCreate(&blas) == CUBLAS_STATUS_ALLOC_FAILED);
  }
  CHECK(cublasCreate(&blas) == CUBLAS_STATUS_SUCCESS);
  {
    test::failing_call const wish{"cublasSgemm", 1, CUBLAS_STATUS_EXECUTION_FAILED};
    float const one = 1;
    CHECK(cublasSgemm(blas, CUBLAS_OP_N, CUBLAS_OP_N, 2, 2, 2, &one, x, 2, x + 4, 2, &one, x + 8, 2) ==
          CUBLAS_STATUS_EXECUTION_FAILED);
  }
  cusolverDnHandle_t solver{};
  {
    test::failing_call const wish{"cusolver*", 2, CUSOLVER_STATUS_INTERNAL_ERROR};
    CHECK(cusolverDnCreate(&solver) == CUSOLVER_STATUS_SUCCESS);
    int size = 0;
    CHECK(cusolverDnSpotrf_bufferSize(solver, CUBLAS_FILL_MODE_LOWER, 2, x, 2, &size) ==
          CUSOLVER_STATUS_INTERNAL_ERROR);
  }
  cusolverDnDestroy(solver);
  cublasDestroy(blas);
  cudaFree(x);
}

TEST_CASE("reports: those that a test expects are not held against it") {
  float *x = nullptr, *y = nullptr;
  cudaMalloc(&x, 64);
  cudaMalloc(&y, 64);
  int const before = test::reports();
  {
    test::expected_reports expected{"uninitialised read"};
    CHECK(expected.missing() == 1);
  }
  {
    test::expected_reports expected{"uninitialised read"};
    copy<<<1, 1>>>(x, y);
    cudaDeviceSynchronize();
    CHECK(std::string{test::last_report()}.find("uninitialised read") == 0);
    CHECK(expected.missing() == 0);
  }
  CHECK(test::reports() == before);
  cudaFree(x);
  cudaFree(y);
}

TEST_CASE("counts: launches, instructions, distinct sectors") {
  int const n = 1024;
  float *x = nullptr, *y = nullptr;
  cudaMalloc(&x, n * sizeof(float));
  cudaMalloc(&y, n * sizeof(float));
  test::clear_counts();
  fill<<<n / 128, 128>>>(x, n, 1.f);
  cudaDeviceSynchronize();
  CHECK(test::last_launch().sectors_written == n * sizeof(float) / 32);
  CHECK(test::last_launch().sectors_read == 0);
  CHECK(test::last_launch().requests == n / 32);
  copy<<<1, 128>>>(x, y);
  copy<<<1, 128>>>(x, y);
  cudaDeviceSynchronize();
  CHECK(test::total_counts().launches == 3);
  CHECK(test::counts_of("copy").launches == 2);
  CHECK(test::counts_of("copy").sectors_read == 2 * 128 * sizeof(float) / 32);
  CHECK(test::counts_of("fill").warp_instructions > n / 32);
  CHECK(test::kernel_name(0) != nullptr);
  CHECK(test::kernel_name(2) == nullptr);
  test::clear_counts();
  CHECK(test::total_counts().launches == 0);
  cudaFree(x);
  cudaFree(y);
}

TEST_CASE("counts: allocations, waits, what is alive") {
  long const allocations = test::allocations(), waits = test::host_waits(), objects = test::live_objects();
  auto const bytes = test::live_bytes();
  void *p = nullptr, *q = nullptr;
  cudaMalloc(&p, 1000);
  cudaMallocHost(&q, 10);
  CHECK(test::allocations() == allocations + 2);
  CHECK(test::live_objects() == objects + 2);
  CHECK(test::live_bytes() == bytes + 1000);
  cudaDeviceSynchronize();
  CHECK(test::host_waits() == waits + 1);
  cudaFree(p);
  cudaFreeHost(q);
  CHECK(test::live_objects() == objects);
  CHECK(test::live_bytes() == bytes);
}

TEST_CASE("arenas: what lies between the parts may not be touched") {
  float* arena = nullptr;
  cudaMalloc(&arena, 256 * sizeof(float));
  test::forbid(arena, 256 * sizeof(float));
  test::allow(arena + 32, 64 * sizeof(float));
  fill<<<1, 64>>>(arena + 32, 64, 1.f);
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
  {
    test::expected_reports expected{"between the parts of an arena"};
    CHECK(cudaMemset(arena, 0, 4) == cudaSuccess);
    cudaDeviceSynchronize();
    CHECK(expected.missing() == 0);
  }
  cudaFree(arena);
}

TEST_CASE("threads: several of them use streams of their own") {
  std::vector<std::thread> threads;
  std::vector<float> results(4);
  for (std::size_t t = 0; t < results.size(); ++t)
    threads.emplace_back([&results, t] {
      cudaStream_t stream{};
      cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
      void* p = nullptr;
      for (int n = 0; n < 20; ++n) {
        cudaMallocAsync(&p, 256 * sizeof(float), stream);
        fill<<<8, 32, 0, stream>>>(static_cast<float*>(p), 256, static_cast<float>(t + 1));
        cudaMemcpyAsync(&results[t], static_cast<float*>(p) + 255, sizeof(float), cudaMemcpyDeviceToHost, stream);
        cudaFreeAsync(p, stream);
        cudaStreamSynchronize(stream);
      }
      cudaStreamDestroy(stream);
    });
  for (auto& thread : threads) thread.join();
  CHECK(results == std::vector<float>{1, 2, 3, 4});
}

TEST_SUITE_END();
