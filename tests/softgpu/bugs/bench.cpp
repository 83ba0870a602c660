#include "softgpu/bugs/planted.hpp"

#include <cstdio>

namespace planted {

bench::bench() {
  cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking);
  cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking);
  std::vector<float> values(count);
  for (int i = 0; i < count; ++i) values[static_cast<std::size_t>(i)] = static_cast<float>(i);
  numbers = array(values);
  cudaStreamSynchronize(first);
}

bench::~bench() {
  for (float* const pointer : arrays_) cudaFreeAsync(pointer, first);
  for (cudaStream_t const stream : {first, second}) cudaStreamSynchronize(stream);
  if (blas_ != nullptr) cublasDestroy(blas_);
  if (solver_ != nullptr) cusolverDnDestroy(solver_);
  cudaStreamDestroy(first);
  cudaStreamDestroy(second);
}

float* bench::array(std::size_t elements) {
  void* pointer = nullptr;
  cudaMallocAsync(&pointer, elements * sizeof(float), first);
  arrays_.push_back(static_cast<float*>(pointer));
  return arrays_.back();
}
float* bench::array(std::vector<float> const& values) {
  float* const pointer = array(values.size());
  cudaMemcpyAsync(pointer, values.data(), values.size() * sizeof(float), cudaMemcpyHostToDevice, first);
  return pointer;
}

cublasHandle_t bench::blas() {
  if (blas_ == nullptr) {
    cublasCreate(&blas_);
    cublasSetStream(blas_, first);
  }
  return blas_;
}
cusolverDnHandle_t bench::solver() {
  if (solver_ == nullptr) {
    cusolverDnCreate(&solver_);
    cusolverDnSetStream(solver_, first);
  }
  return solver_;
}

float bench::read(float const* from) {
  float value = 0;
  cudaMemcpyAsync(&value, from, sizeof value, cudaMemcpyDeviceToHost, first);
  cudaStreamSynchronize(first);
  return value;
}
void bench::expect_equal(float got, float wanted) {
  if (got == wanted) return;
  std::printf("  got %g, wanted %g\n", static_cast<double>(got), static_cast<double>(wanted));
  verdict_ = noticed::by_value;
}
void bench::expect_success(int status) {
  if (status == 0) return;
  std::printf("  status %d\n", status);
  verdict_ = noticed::by_status;
}

}  // namespace planted
