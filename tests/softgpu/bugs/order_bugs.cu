// Things that happen too early because nobody waited.
#include <vector>

#include "softgpu/bugs/planted.hpp"

namespace planted {
namespace {

__global__ void scale(float* x, int n, float factor) {
  int const i = static_cast<int>(threadIdx.x);
  if (i < n) x[i] *= factor;
}
__global__ void fill(float* x, int n, float value) {
  int const i = static_cast<int>(threadIdx.x);
  if (i < n) x[i] = value;
}
void doubled(bench& b, cudaStream_t stream) { scale<<<1, bench::count, 0, stream>>>(b.numbers, bench::count, 2); }

/// Reads element 3 of the numbers with `stream` and waits for it.
float third(bench& b, cudaStream_t stream) {
  float value = 0;
  cudaMemcpyAsync(&value, b.numbers + 3, sizeof value, cudaMemcpyDeviceToHost, stream);
  cudaStreamSynchronize(stream);
  return value;
}

struct mark {
  cudaEvent_t event{};
  mark() { cudaEventCreateWithFlags(&event, cudaEventDisableTiming); }
  ~mark() { cudaEventDestroy(event); }
  mark(mark const&) = delete;
  mark& operator=(mark const&) = delete;
};

void host_reads_too_early(bench& b, variant which) {
  std::vector<float> here(bench::count);
  doubled(b, b.first);
  cudaMemcpyAsync(here.data(), b.numbers, bench::count * sizeof(float), cudaMemcpyDeviceToHost, b.first);
  if (which == variant::control) cudaStreamSynchronize(b.first);
  b.expect_equal(static_cast<float volatile&>(here[3]), 6);
  cudaStreamSynchronize(b.first);
}
void plain_copy_beside_a_stream(bench& b, variant which) {
  float value = 0;
  doubled(b, b.first);
  if (which == variant::control) cudaStreamSynchronize(b.first);
  cudaMemcpy(&value, b.numbers + 3, sizeof value, cudaMemcpyDeviceToHost);
  b.expect_equal(value, 6);
  cudaStreamSynchronize(b.first);
}
void streams_without_an_event(bench& b, variant which) {
  mark const done;
  doubled(b, b.first);
  cudaEventRecord(done.event, b.first);
  if (which == variant::control) cudaStreamWaitEvent(b.second, done.event, 0);
  b.expect_equal(third(b, b.second), 6);
  cudaDeviceSynchronize();
}
void event_recorded_too_early(bench& b, variant which) {
  mark const done;
  if (which == variant::bug) cudaEventRecord(done.event, b.first);
  doubled(b, b.first);
  if (which == variant::control) cudaEventRecord(done.event, b.first);
  cudaStreamWaitEvent(b.second, done.event, 0);
  b.expect_equal(third(b, b.second), 6);
  cudaDeviceSynchronize();
}
void event_of_another_stream(bench& b, variant which) {
  mark const done;
  doubled(b, b.first);
  cudaEventRecord(done.event, which == variant::bug ? b.second : b.first);
  cudaEventSynchronize(done.event);
  b.expect_equal(third(b, b.second), 6);
  cudaDeviceSynchronize();
}
void used_before_it_is_allocated(bench& b, variant which) {
  mark const made;
  float* const x = b.array(bench::count);
  cudaEventRecord(made.event, b.first);
  if (which == variant::control) cudaStreamWaitEvent(b.second, made.event, 0);
  fill<<<1, bench::count, 0, b.second>>>(x, bench::count, 6);
  cudaStreamSynchronize(b.second);
  cudaDeviceSynchronize();
}
void freed_while_another_stream_uses_it(bench& b, variant which) {
  mark const used;
  void* p = nullptr;
  cudaMallocAsync(&p, bench::count * sizeof(float), b.first);
  fill<<<1, bench::count, 0, b.first>>>(static_cast<float*>(p), bench::count, 1);
  cudaStreamSynchronize(b.first);
  scale<<<1, bench::count, 0, b.first>>>(static_cast<float*>(p), bench::count, 2);
  cudaEventRecord(used.event, b.first);
  if (which == variant::control) cudaStreamWaitEvent(b.second, used.event, 0);
  cudaFreeAsync(p, b.second);
  cudaStreamSynchronize(b.second);
  cudaStreamSynchronize(b.first);
}
void pinned_source_changed_too_early(bench& b, variant which) {
  void* p = nullptr;
  cudaMallocHost(&p, sizeof(float));
  auto* const here = static_cast<float*>(p);
  *here = 9;
  cudaMemcpyAsync(b.numbers, here, sizeof(float), cudaMemcpyHostToDevice, b.first);
  if (which == variant::control) cudaStreamSynchronize(b.first);
  *here = 1;
  b.expect_equal(b.read(b.numbers), 9);
  cudaFreeHost(p);
}
void nobody_waits(bench& b, variant which) {
  cudaStream_t third_stream{};
  cudaStreamCreateWithFlags(&third_stream, cudaStreamNonBlocking);
  doubled(b, third_stream);
  if (which == variant::control) cudaStreamSynchronize(third_stream);
  cudaStreamDestroy(third_stream);
}

constexpr auto report = noticed::by_report, value = noticed::by_value, not_at_all = noticed::not_at_all;
constexpr row rows[] = {
    {"host reads too early", host_reads_too_early, value, not_at_all},
    {"plain copy beside a stream", plain_copy_beside_a_stream, value, not_at_all},
    {"streams without an event", streams_without_an_event, value, not_at_all},
    {"event recorded too early", event_recorded_too_early, value, not_at_all},
    {"event of another stream", event_of_another_stream, value, not_at_all},
    {"used before it is allocated", used_before_it_is_allocated, report, not_at_all,
     "before stream-ordered allocation"},
    {"freed while another stream uses it", freed_while_another_stream_uses_it, report, not_at_all, "use after free"},
    {"pinned source changed too early", pinned_source_changed_too_early, value, not_at_all},
    {"nobody waits", nobody_waits, report, not_at_all, "never waited for"},
};

}  // namespace

std::span<row const> order_rows() { return rows; }

}  // namespace planted
