// A training program in the manner of llm.c: raw device pointers, one stream, bf16 throughout. What is new in it is marked.
#include <cuda_bf16.h>

#include "lowrank/lowrank.cuh"

#include "flat_model.hpp"

namespace {

using flat_model::bf16, flat_model::index_t;

void check(cudaError_t status) {
  if (status == cudaSuccess) return;
  std::printf("CUDA: %s\n", cudaGetErrorString(status));
  std::exit(2);
}

// Stands for forward and backward: the gradient of half the squared distance.
__global__ void backward(__nv_bfloat16 const* weights, __nv_bfloat16 const* wanted, __nv_bfloat16* gradients,
                         int count) {
  int const i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) gradients[i] = __float2bfloat16(__bfloat162float(weights[i]) - __bfloat162float(wanted[i]));
}

}  // namespace

int main() {
  auto const begin = flat_model::random_weights(1), target = flat_model::random_weights(2);
  std::size_t const bytes = begin.size() * sizeof(bf16);
  constexpr int count = static_cast<int>(flat_model::parameters);

  cudaStream_t main_stream{};
  check(cudaStreamCreate(&main_stream));
  __nv_bfloat16 *weights_memory{}, *gradients_memory{}, *wanted{};
  for (auto** const memory : {&weights_memory, &gradients_memory, &wanted}) check(cudaMalloc(memory, bytes));
  check(cudaMemcpyAsync(weights_memory, begin.data(), bytes, cudaMemcpyHostToDevice, main_stream));
  check(cudaMemcpyAsync(wanted, target.data(), bytes, cudaMemcpyHostToDevice, main_stream));

  auto end = begin;
  index_t state_bytes = 0;
  try {
    // new: an executor on the program's stream, and state; __nv_bfloat16 and lowrank::bf16 are the same 16 bits.
    lowrank::cuda_executor exec{{.stream = main_stream}};
    flat_model::trainer training{exec, reinterpret_cast<bf16*>(weights_memory),
                                 reinterpret_cast<bf16 const*>(gradients_memory)};
    state_bytes = training.state_bytes();
    for (index_t step = 0; step < flat_model::steps; ++step) {
      backward<<<(count + 255) / 256, 256, 0, main_stream>>>(weights_memory, wanted, gradients_memory, count);
      check(cudaGetLastError());
      training.step(flat_model::rate_of(step));  // new
    }
    check(cudaMemcpyAsync(end.data(), weights_memory, bytes, cudaMemcpyDeviceToHost, main_stream));
    check(cudaStreamSynchronize(main_stream));
  } catch (lowrank::error const& e) {  // new: what cannot be done says why, before a weight has changed
    std::printf("%s\n", e.what());
    return 2;
  }
  for (auto* const memory : {weights_memory, gradients_memory, wanted}) check(cudaFree(memory));
  check(cudaStreamDestroy(main_stream));
  return flat_model::judge(begin, end, target, state_bytes);
}
