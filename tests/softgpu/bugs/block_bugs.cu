// Threads that do not wait for each other, or wait where others do not come.
#include "softgpu/bugs/planted.hpp"

namespace planted {
namespace {

template <variant Which>
__global__ void reversed(float* x) {
  __shared__ float shared[bench::count];
  shared[threadIdx.x] = x[threadIdx.x];
  if constexpr (Which == variant::control) __syncthreads();
  x[threadIdx.x] = shared[bench::count - 1 - threadIdx.x];
}
// The second round overwrites what slower warps of the first still read.
template <variant Which>
__global__ void reversed_twice(float* x) {
  __shared__ float shared[bench::count];
  for (int round = 0; round < 2; ++round) {
    shared[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    x[threadIdx.x] = shared[bench::count - 1 - threadIdx.x];
    if constexpr (Which == variant::control) __syncthreads();
  }
}
template <variant Which>
__global__ void reversed_in_a_warp(float* x) {
  __shared__ float shared[32];
  shared[threadIdx.x] = x[threadIdx.x];
  if constexpr (Which == variant::control) __syncwarp();
  x[threadIdx.x] = shared[31 - threadIdx.x];
}
template <variant Which>
__global__ void warp_sum(float* x, int n) {
  int const i = static_cast<int>(threadIdx.x);
  if (Which == variant::control || i < n) {
    float value = i < n ? x[i] : 0.f;
    for (int other = 16; other != 0; other /= 2) value += __shfl_xor_sync(0xFFFFFFFFu, value, other);
    if (i == 0) x[0] = value;
  }
}
template <variant Which>
__global__ void broadcast(float* x, int n) {
  __shared__ float shared;
  if (threadIdx.x == 0) shared = 3;
  int const i = static_cast<int>(threadIdx.x);
  if constexpr (Which == variant::control) __syncthreads();
  if (i < n) {
    if constexpr (Which == variant::bug) __syncthreads();
    x[i] = shared;
  }
}
template <variant Which>
__global__ void total(float const* x, float* y) {
  float const mine = x[blockIdx.x * 32];
  if constexpr (Which == variant::control) atomicAdd(y, mine);
  else *y += mine;
}
// Each block averages with an element that belongs to the next block.
template <variant Which>
__global__ void smoothed(float const* x, float* y) {
  unsigned const i = blockIdx.x * 32 + threadIdx.x, next = (i + 1) % bench::count;
  if constexpr (Which == variant::control) y[i] = (x[i] + x[next]) / 2;
  else y[i] = (y[i] + y[next]) / 2;
}
template <variant Which>
__global__ void one_block_too_many(float* x) {
  unsigned const i = (Which == variant::control ? blockIdx.x * 32 : blockIdx.x * 16) + threadIdx.x;
  x[i] = static_cast<float>(blockIdx.x);
}
__global__ void through_dynamic_memory(float* x) {
  extern __shared__ float dynamic[];
  dynamic[threadIdx.x] = 1;
  __syncthreads();
  x[threadIdx.x] = dynamic[31 - threadIdx.x];
}
// The last block adds up what the others have stored; without the fence their stores may come later than their count.
template <variant Which>
__global__ void last_block_adds(float const* x, float* partial, unsigned* arrived, float* sum) {
  __shared__ bool last;
  partial[blockIdx.x] = x[blockIdx.x];
  if constexpr (Which == variant::control) __threadfence();
  last = atomicInc(arrived, gridDim.x) == gridDim.x - 1;
  __syncthreads();
  if (!last) return;
  if constexpr (Which == variant::control) __threadfence();
  float all = 0;
  for (unsigned n = 0; n < gridDim.x; ++n) all += partial[n];
  *sum = all;
}

template <auto Control, auto Bug, class... Arguments>
void launch(bench& b, variant which, dim3 grid, dim3 block, Arguments... arguments) {
  if (which == variant::bug) Bug<<<grid, block, 0, b.first>>>(arguments...);
  else Control<<<grid, block, 0, b.first>>>(arguments...);
}
#define PLANTED_PAIR(kernel) kernel<variant::control>, kernel<variant::bug>

void read_before_others_wrote(bench& b, variant which) {
  launch<PLANTED_PAIR(reversed)>(b, which, 1, bench::count, b.numbers);
  b.expect_equal(b.read(b.numbers), bench::count - 1);
}
void overwritten_before_others_read(bench& b, variant which) {
  launch<PLANTED_PAIR(reversed_twice)>(b, which, 1, bench::count, b.numbers);
  b.expect_equal(b.read(b.numbers), 0);
}
void missing_syncwarp(bench& b, variant which) {
  launch<PLANTED_PAIR(reversed_in_a_warp)>(b, which, 1, 32, b.numbers);
  b.expect_equal(b.read(b.numbers), 31);
}
void shuffle_in_divergent_code(bench& b, variant which) {
  launch<PLANTED_PAIR(warp_sum)>(b, which, 1, 32, b.numbers, 20);
  if (which == variant::control) b.expect_equal(b.read(b.numbers), 190);
  else cudaStreamSynchronize(b.first);
}
void barrier_in_divergent_code(bench& b, variant which) {
  launch<PLANTED_PAIR(broadcast)>(b, which, 1, 64, b.numbers, 40);
  b.expect_equal(b.read(b.numbers + 39), 3);
}
void blocks_add_without_atomics(bench& b, variant which) {
  float* const sum = b.array(std::vector<float>{0});
  launch<PLANTED_PAIR(total)>(b, which, 4, 1, static_cast<float const*>(b.numbers), sum);
  b.expect_equal(b.read(sum), 0 + 32 + 64 + 96);
}
void block_reads_what_another_writes(bench& b, variant which) {
  float* const y = b.array(std::vector<float>(bench::count, 1.f));
  launch<PLANTED_PAIR(smoothed)>(b, which, 4, 32, static_cast<float const*>(b.numbers), y);
  cudaStreamSynchronize(b.first);
}
void blocks_overlap(bench& b, variant which) {
  launch<PLANTED_PAIR(one_block_too_many)>(b, which, 4, 32, b.numbers);
  cudaStreamSynchronize(b.first);
}
void missing_fence(bench& b, variant which) {
  float *const partial = b.array(8), *const sum = b.array(1);
  auto* const arrived = reinterpret_cast<unsigned*>(b.array(std::vector<float>{0}));
  launch<PLANTED_PAIR(last_block_adds)>(b, which, 8, 1, static_cast<float const*>(b.numbers), partial, arrived, sum);
  if (which == variant::control) b.expect_equal(b.read(sum), 28);
  else cudaStreamSynchronize(b.first);
}
void too_much_shared_memory(bench& b, variant which) {
  if (which == variant::control)
    cudaFuncSetAttribute(through_dynamic_memory, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 << 10);
  through_dynamic_memory<<<1, 32, 64 << 10, b.first>>>(b.numbers);
  b.expect_success(cudaGetLastError());
  cudaStreamSynchronize(b.first);
}
void too_little_shared_memory(bench& b, variant which) {
  through_dynamic_memory<<<1, 32, which == variant::bug ? 64 : 128, b.first>>>(b.numbers);
  cudaStreamSynchronize(b.first);
}
void too_many_threads(bench& b, variant which) {
  reversed<variant::control><<<1, which == variant::bug ? 2048 : bench::count, 0, b.first>>>(b.numbers);
  b.expect_success(cudaGetLastError());
  cudaStreamSynchronize(b.first);
}

constexpr auto report = noticed::by_report, status = noticed::by_status;
constexpr row rows[] = {
    {"read before others wrote", read_before_others_wrote, report, report, "shared"},
    {"overwritten before others read", overwritten_before_others_read, report, report, "race"},
    {"missing __syncwarp", missing_syncwarp, report, report, "shared"},
    {"shuffle in divergent code", shuffle_in_divergent_code, report, report, "shfl"},
    {"barrier in divergent code", barrier_in_divergent_code, report, report, "barrier"},
    {"blocks add without atomics", blocks_add_without_atomics, report, report, "race"},
    {"block reads what another writes", block_reads_what_another_writes, report, report, "race"},
    {"blocks overlap", blocks_overlap, report, report, "race"},
    {"missing fence", missing_fence, report, report, "race"},
    {"too much shared memory", too_much_shared_memory, status, status},
    {"too little shared memory", too_little_shared_memory, report, report, "out of bounds"},
    {"too many threads", too_many_threads, status, status},
};

}  // namespace

std::span<row const> block_rows() { return rows; }

}  // namespace planted
