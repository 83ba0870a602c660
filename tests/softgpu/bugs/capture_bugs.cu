// What cannot be captured in a graph, and what is captured otherwise than meant.
#include "softgpu/bugs/planted.hpp"

namespace planted {
namespace {

__global__ void scale(float* x, int n, float factor) {
  int const i = static_cast<int>(threadIdx.x);
  if (i < n) x[i] *= factor;
}
void doubled(bench& b, cudaStream_t stream) { scale<<<1, bench::count, 0, stream>>>(b.numbers, bench::count, 2); }

/// Captures `body` on the first stream and launches the graph `times` times; keeps the first status that is no success.
template <class Body>
void replayed(bench& b, int times, Body const& body) {
  cudaGraph_t graph{};
  cudaGraphExec_t executable{};
  cudaStreamSynchronize(b.first);
  cudaStreamBeginCapture(b.first, cudaStreamCaptureModeGlobal);
  body();
  b.expect_success(cudaStreamEndCapture(b.first, &graph));
  if (graph == nullptr) return;
  b.expect_success(cudaGraphInstantiate(&executable, graph, 0));
  for (int n = 0; n < times; ++n) b.expect_success(cudaGraphLaunch(executable, b.first));
  cudaStreamSynchronize(b.first);
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
}

void host_waits(bench& b, variant which) {
  replayed(b, 3, [&] {
    doubled(b, b.first);
    if (which == variant::bug) cudaStreamSynchronize(b.first);
  });
  if (which == variant::control) b.expect_equal(b.read(b.numbers + 1), 8);
}
void host_asks(bench& b, variant which) {
  replayed(b, 1, [&] {
    doubled(b, b.first);
    if (which == variant::bug) cudaStreamQuery(b.first);
  });
}
void allocates(bench& b, variant which) {
  void* p = nullptr;
  replayed(b, 1, [&] {
    doubled(b, b.first);
    if (which == variant::bug) cudaMalloc(&p, 64);
  });
}
void allocates_in_stream_order(bench& b, variant which) {
  void* p = nullptr;
  replayed(b, 1, [&] {
    doubled(b, b.first);
    if (which == variant::bug) cudaMallocAsync(&p, 64, b.first);
  });
}
void launch_is_refused(bench& b, variant which) {
  replayed(b, 1,
           [&] { scale<<<1, which == variant::bug ? 2048 : bench::count, 0, b.first>>>(b.numbers, bench::count, 2); });
}
void eigenvalues(bench& b, variant which) {
  std::vector<float> identity(16);
  for (std::size_t i = 0; i < 16; i += 5) identity[i] = 1;
  float *const matrix = b.array(identity), *const values = b.array(4);
  auto* const info = reinterpret_cast<int*>(b.array(1));
  int size = 0;
  cusolverDnSsyevd_bufferSize(b.solver(), CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER, 4, matrix, 4, values,
                              &size);
  float* const scratch = b.array(static_cast<std::size_t>(size));
  auto const decompose = [&] {
    cusolverDnSsyevd(b.solver(), CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER, 4, matrix, 4, values, scratch, size,
                     info);
  };
  if (which == variant::control) decompose();
  replayed(b, 1, [&] {
    doubled(b, b.first);
    if (which == variant::bug) decompose();
  });
}
void branch_is_not_joined(bench& b, variant which) {
  cudaEvent_t event{};
  cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  replayed(b, 1, [&] {
    doubled(b, b.first);
    cudaEventRecord(event, b.first);
    cudaStreamWaitEvent(b.second, event, 0);
    doubled(b, b.second);
    cudaEventRecord(event, b.second);
    if (which == variant::control) cudaStreamWaitEvent(b.first, event, 0);
  });
  cudaEventDestroy(event);
}
void waits_for_the_world_outside(bench& b, variant which) {
  cudaEvent_t event{};
  cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  cudaEventRecord(event, b.second);
  cudaStreamSynchronize(b.second);
  if (which == variant::control) cudaStreamWaitEvent(b.first, event, 0);
  replayed(b, 1, [&] {
    doubled(b, b.first);
    if (which == variant::bug) cudaStreamWaitEvent(b.first, event, 0);
  });
  cudaEventDestroy(event);
}
// Two branches of one capture that both change the numbers, with and without an edge between them.
void branches_without_an_edge(bench& b, variant which) {
  cudaEvent_t fork{}, half{}, join{};
  for (cudaEvent_t* const event : {&fork, &half, &join}) cudaEventCreateWithFlags(event, cudaEventDisableTiming);
  replayed(b, 1, [&] {
    cudaEventRecord(fork, b.first);
    cudaStreamWaitEvent(b.second, fork, 0);
    cudaMemsetAsync(b.numbers, 0, sizeof(float), b.first);
    cudaEventRecord(half, b.first);
    if (which == variant::control) cudaStreamWaitEvent(b.second, half, 0);
    cudaMemcpyAsync(b.numbers, b.numbers + 5, sizeof(float), cudaMemcpyDeviceToDevice, b.second);
    cudaEventRecord(join, b.second);
    cudaStreamWaitEvent(b.first, join, 0);
  });
  b.expect_equal(b.read(b.numbers), 5);
  for (cudaEvent_t const event : {fork, half, join}) cudaEventDestroy(event);
}
// A scalar in host memory is a constant of the graph.
void host_scalar_changes(bench& b, variant which) {
  float const zero = 0;
  float here = 1;
  float *const there = b.array(std::vector<float>{1, 0}), *const square = b.array(std::vector<float>(16, 1.f));
  float* const result = b.array(16);
  bool const on_device = which == variant::control;
  cublasSetPointerMode(b.blas(), on_device ? CUBLAS_POINTER_MODE_DEVICE : CUBLAS_POINTER_MODE_HOST);
  cudaStreamSynchronize(b.first);
  cudaGraph_t graph{};
  cudaGraphExec_t executable{};
  cudaStreamBeginCapture(b.first, cudaStreamCaptureModeGlobal);
  cublasSgemm(b.blas(), CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, on_device ? there : &here, square, 4, square, 4,
              on_device ? there + 1 : &zero, result, 4);
  cudaStreamEndCapture(b.first, &graph);
  cudaGraphInstantiate(&executable, graph, 0);
  here = 3;
  cudaMemcpyAsync(there, &here, sizeof here, cudaMemcpyHostToDevice, b.first);
  cudaGraphLaunch(executable, b.first);
  b.expect_equal(b.read(result), 12);
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
}

constexpr auto report = noticed::by_report, value = noticed::by_value, status = noticed::by_status;
constexpr row rows[] = {
    {"captured: host waits", host_waits, status, status},
    {"captured: host asks", host_asks, status, status},
    {"captured: allocates", allocates, status, status},
    {"captured: allocates in stream order", allocates_in_stream_order, report, report, "allocation in capture"},
    {"captured: launch is refused", launch_is_refused, status, status},
    {"captured: eigenvalues", eigenvalues, status, status},
    {"captured: branch is not joined", branch_is_not_joined, status, status},
    {"captured: waits for the world outside", waits_for_the_world_outside, status, status},
    {"captured: branches without an edge", branches_without_an_edge, value, noticed::not_at_all},
    {"captured: host scalar changes", host_scalar_changes, value, value},
};

}  // namespace

std::span<row const> capture_rows() { return rows; }

}  // namespace planted
