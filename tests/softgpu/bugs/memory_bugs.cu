// Wrong addresses, wrong lifetimes, memory that was never written.
#include <array>

#include "softgpu/bugs/planted.hpp"
#include "softgpu/softgpu.hpp"

namespace planted {
namespace {

__global__ void scale(float* x, int n, float factor) {
  int const i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) x[i] *= factor;
}
__global__ void fill(float* x, int n, float value) {
  int const i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) x[i] = value;
}
__global__ void sum_of_four(float* x) {
  float4 const v = *reinterpret_cast<float4*>(x);
  x[0] = v.x + v.y + v.z + v.w;
}

void one_past_the_end(bench& b, variant which) {
  scale<<<2, bench::count, 0, b.first>>>(b.numbers, which == variant::bug ? bench::count + 1 : bench::count, 2);
  if (which == variant::control) b.expect_equal(b.read(b.numbers + 3), 6);
  else cudaStreamSynchronize(b.first);
}

void tail_without_a_block(bench& b, variant which) {
  int const n = 100;
  float* const x = b.array(n);
  fill<<<which == variant::bug ? n / 32 : (n + 31) / 32, 32, 0, b.first>>>(x, n, 5);
  b.expect_equal(b.read(x + n - 1), 5);
}

void read_before_written(bench& b, variant which) {
  float* const x = b.array(bench::count);
  if (which == variant::control) fill<<<1, bench::count, 0, b.first>>>(x, bench::count, 3);
  scale<<<1, bench::count, 0, b.first>>>(x, bench::count, 2);
  cudaStreamSynchronize(b.first);
}

void used_after_free(bench& b, variant which) {
  void* p = nullptr;
  cudaMallocAsync(&p, bench::count * sizeof(float), b.first);
  float* const x = static_cast<float*>(p);
  fill<<<1, bench::count, 0, b.first>>>(x, bench::count, 5);
  if (which == variant::bug) cudaFreeAsync(p, b.first);
  scale<<<1, bench::count, 0, b.first>>>(x, bench::count, 2);
  if (which == variant::control) cudaFreeAsync(p, b.first);
  cudaStreamSynchronize(b.first);
}

// Scratch comes out of one large allocation: its parts are guarded by the arena.
void scratch_used_after_its_release(bench& b, variant which) {
  float* const arena = b.array(1024);
  cudaStreamSynchronize(b.first);
  softgpu::test::forbid(arena, 1024 * sizeof(float));
  softgpu::test::allow(arena, bench::count * sizeof(float));
  fill<<<1, bench::count, 0, b.first>>>(arena, bench::count, 1);
  cudaStreamSynchronize(b.first);
  if (which == variant::bug) softgpu::test::forbid(arena, bench::count * sizeof(float));
  scale<<<1, bench::count, 0, b.first>>>(arena, bench::count, 2);
  cudaStreamSynchronize(b.first);
}

void freed_twice(bench& b, variant which) {
  void* p = nullptr;
  cudaMalloc(&p, 64);
  cudaFree(p);
  if (which == variant::bug) b.expect_success(cudaFree(p));
}

void never_freed(bench&, variant which) {
  void* p = nullptr;
  cudaMalloc(&p, 64);
  if (which == variant::control) cudaFree(p);
}

void misaligned_vector(bench& b, variant which) {
  sum_of_four<<<1, 1, 0, b.first>>>(b.numbers + (which == variant::bug ? 1 : 4));
  cudaStreamSynchronize(b.first);
}

void host_pointer_to_kernel(bench& b, variant which) {
  std::array<float, bench::count> here{};
  scale<<<1, bench::count, 0, b.first>>>(which == variant::bug ? here.data() : b.numbers, bench::count, 2);
  cudaStreamSynchronize(b.first);
}

void device_pointer_on_host(bench& b, variant which) {
  if (which == variant::bug) b.expect_equal(*static_cast<float volatile*>(b.numbers), 0);
}

void copy_against_its_direction(bench& b, variant which) {
  float value = 7;
  if (which == variant::bug) cudaMemcpyAsync(&value, b.numbers, sizeof value, cudaMemcpyHostToDevice, b.first);
  else cudaMemcpyAsync(b.numbers, &value, sizeof value, cudaMemcpyHostToDevice, b.first);
  cudaStreamSynchronize(b.first);
}

void copy_past_the_end(bench& b, variant which) {
  std::array<float, bench::count + 1> here{};
  std::size_t const elements = which == variant::bug ? bench::count + 1 : bench::count;
  cudaMemcpyAsync(b.numbers, here.data(), elements * sizeof(float), cudaMemcpyHostToDevice, b.first);
  cudaStreamSynchronize(b.first);
}

// Bytes where elements were meant.
void cleared_in_elements(bench& b, variant which) {
  float* const x = b.array(bench::count);
  cudaMemsetAsync(x, 0, which == variant::bug ? bench::count : bench::count * sizeof(float), b.first);
  scale<<<1, bench::count, 0, b.first>>>(x, bench::count, 2);
  cudaStreamSynchronize(b.first);
}

constexpr auto report = noticed::by_report, value = noticed::by_value;
constexpr row rows[] = {
    {"one past the end", one_past_the_end, report, report, "out of bounds"},
    {"tail without a block", tail_without_a_block, value, value},
    {"read before written", read_before_written, report, report, "uninitialised read"},
    {"used after free", used_after_free, report, report, "use after free"},
    {"scratch used after its release", scratch_used_after_its_release, report, report, "between the parts of an arena"},
    {"freed twice", freed_twice, report, report, "double free"},
    {"never freed", never_freed, report, report, "never given back: 1 device allocation"},
    {"misaligned vector", misaligned_vector, report, report, "misaligned"},
    {"host pointer to a kernel", host_pointer_to_kernel, report, report, "is not device memory"},
    {"device pointer on the host", device_pointer_on_host, noticed::by_signal, noticed::by_signal},
    {"copy against its direction", copy_against_its_direction, report, report, "copy direction"},
    {"copy past the end", copy_past_the_end, report, report, "out of bounds"},
    {"cleared in elements", cleared_in_elements, report, report, "uninitialised read"},
};

}  // namespace

std::span<row const> memory_rows() { return rows; }

}  // namespace planted
