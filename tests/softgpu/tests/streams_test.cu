// What runs when: queues, events, the legacy stream, graphs. Everything here holds on a real GPU as well.
#include <doctest/doctest.h>

#include <vector>

#include "softgpu/softgpu.hpp"

namespace {

__global__ void append(int* log, int value) { log[1 + log[0]++] = value; }

/// Kernels write down in which order they ran.
struct journal {
  int* log = nullptr;
  journal() {
    cudaMalloc(&log, 64 * sizeof(int));
    cudaMemset(log, 0, 64 * sizeof(int));
    cudaDeviceSynchronize();
  }
  ~journal() { cudaFree(log); }
  journal(journal const&) = delete;
  journal& operator=(journal const&) = delete;

  void note(int value, cudaStream_t stream) const { append<<<1, 1, 0, stream>>>(log, value); }
  std::vector<int> read() const {
    std::vector<int> all(64);
    cudaDeviceSynchronize();
    cudaMemcpy(all.data(), log, 64 * sizeof(int), cudaMemcpyDeviceToHost);
    return {all.begin() + 1, all.begin() + 1 + all[0]};
  }
};

struct stream {
  cudaStream_t handle{};
  explicit stream(unsigned flags = cudaStreamNonBlocking) { cudaStreamCreateWithFlags(&handle, flags); }
  ~stream() { cudaStreamDestroy(handle); }
  stream(stream const&) = delete;
  stream& operator=(stream const&) = delete;
};
struct event {
  cudaEvent_t handle{};
  explicit event(unsigned flags = cudaEventDisableTiming) { cudaEventCreateWithFlags(&handle, flags); }
  ~event() { cudaEventDestroy(handle); }
  event(event const&) = delete;
  event& operator=(event const&) = delete;
};

using order = std::vector<int>;

}  // namespace

TEST_CASE("streams: events order them across") {
  journal const j;
  stream const a, b;
  event const first, second;
  j.note(1, a.handle);
  cudaEventRecord(first.handle, a.handle);
  cudaStreamWaitEvent(b.handle, first.handle, 0);
  j.note(2, b.handle);
  cudaEventRecord(second.handle, b.handle);
  cudaStreamWaitEvent(a.handle, second.handle, 0);
  j.note(3, a.handle);
  CHECK(j.read() == order{1, 2, 3});
}

TEST_CASE("streams: a wait takes the record before it, not the one after") {
  journal const j;
  stream const a, b;
  event const e;
  cudaEventRecord(e.handle, a.handle);
  cudaStreamWaitEvent(b.handle, e.handle, 0);
  j.note(1, b.handle);
  cudaStreamSynchronize(b.handle);
  j.note(2, a.handle);
  cudaEventRecord(e.handle, a.handle);
  CHECK(cudaEventSynchronize(e.handle) == cudaSuccess);
  CHECK(j.read() == order{1, 2});
}

TEST_CASE("streams: the legacy stream and blocking ones wait for each other") {
  journal const j;
  stream const a{cudaStreamDefault}, b{cudaStreamDefault};
  j.note(1, a.handle);
  j.note(2, nullptr);
  j.note(3, b.handle);
  j.note(4, nullptr);
  cudaStreamSynchronize(nullptr);
  CHECK(j.read() == order{1, 2, 3, 4});
}

TEST_CASE("streams: long chains of waits end") {
  journal const j;
  stream const a{cudaStreamDefault};
  for (int n = 0; n < 20000; ++n) {
    cudaMemsetAsync(j.log + 60, 0, sizeof(int), a.handle);
    cudaMemsetAsync(j.log + 60, 0, sizeof(int), nullptr);
  }
  CHECK(cudaStreamSynchronize(a.handle) == cudaSuccess);
  CHECK(cudaDeviceSynchronize() == cudaSuccess);
}

TEST_CASE("streams: whoever asks long enough is told that it is done") {
  journal const j;
  stream const a;
  event const e;
  for (int n = 0; n < 5; ++n) j.note(n, a.handle);
  cudaEventRecord(e.handle, a.handle);
  while (cudaEventQuery(e.handle) == cudaErrorNotReady) {}
  cudaGetLastError();
  CHECK(cudaStreamQuery(a.handle) == cudaSuccess);
  CHECK(j.read().size() == 5);
}

TEST_CASE("streams: work survives its stream") {
  journal const j;
  {
    stream const a;
    j.note(7, a.handle);
  }
  CHECK(j.read() == order{7});
}

TEST_CASE("streams: host functions run in their place") {
  stream const a;
  static int seen = 0;
  static int values[2] = {0, 0};
  int* d = nullptr;
  cudaMalloc(&d, sizeof(int));
  cudaMemsetAsync(d, 1, sizeof(int), a.handle);
  void* p = nullptr;
  cudaMallocHost(&p, sizeof(int));
  cudaMemcpyAsync(p, d, sizeof(int), cudaMemcpyDeviceToHost, a.handle);
  cudaLaunchHostFunc(
      a.handle, [](void* from) { values[seen++] = *static_cast<int*>(from); }, p);
  cudaMemsetAsync(d, 2, sizeof(int), a.handle);
  cudaMemcpyAsync(p, d, sizeof(int), cudaMemcpyDeviceToHost, a.handle);
  cudaLaunchHostFunc(
      a.handle, [](void* from) { values[seen++] = *static_cast<int*>(from); }, p);
  cudaStreamSynchronize(a.handle);
  CHECK(seen == 2);
  CHECK(values[0] == 0x01010101);
  CHECK(values[1] == 0x02020202);
  cudaFreeHost(p);
  cudaFree(d);
}

TEST_CASE("streams: time passes between events") {
  stream const a;
  event const start{cudaEventDefault}, end{cudaEventDefault};
  journal const j;
  cudaEventRecord(start.handle, a.handle);
  j.note(1, a.handle);
  cudaEventRecord(end.handle, a.handle);
  cudaEventSynchronize(end.handle);
  float milliseconds = -1;
  CHECK(cudaEventElapsedTime(&milliseconds, start.handle, end.handle) == cudaSuccess);
  CHECK(milliseconds >= 0);
}

TEST_CASE("streams: a graph is launched again and again, with values that change") {
  stream const a;
  int* d = nullptr;
  cudaMalloc(&d, 2 * sizeof(int));
  void* p = nullptr;
  cudaMallocHost(&p, sizeof(int));
  auto* const pinned = static_cast<int*>(p);
  cudaGraph_t graph{};
  cudaGraphExec_t executable{};
  REQUIRE(cudaStreamBeginCapture(a.handle, cudaStreamCaptureModeGlobal) == cudaSuccess);
  cudaMemcpyAsync(d, pinned, sizeof(int), cudaMemcpyHostToDevice, a.handle);
  cudaMemcpyAsync(d + 1, d, sizeof(int), cudaMemcpyDeviceToDevice, a.handle);
  REQUIRE(cudaStreamEndCapture(a.handle, &graph) == cudaSuccess);
  std::size_t nodes = 0;
  cudaGraphGetNodes(graph, nullptr, &nodes);
  CHECK(nodes == 2);
  REQUIRE(cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess);
  for (int n = 3; n < 6; ++n) {
    *pinned = n;
    CHECK(cudaGraphLaunch(executable, a.handle) == cudaSuccess);
    int got = 0;
    cudaMemcpyAsync(&got, d + 1, sizeof(int), cudaMemcpyDeviceToHost, a.handle);
    cudaStreamSynchronize(a.handle);
    CHECK(got == n);
  }
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  cudaFreeHost(p);
  cudaFree(d);
}
