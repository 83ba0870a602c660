// Statuses that calls give, one line each: what the software GPU imitates. `h100.txt` is what an H100 printed (CUDA
// 13.0, driver 580), as far as it was asked; the software GPU has to give the same answers (compare.py). Lines whose
// value may differ begin with '~' and are for reading only.
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cusolverDn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

namespace {

__global__ void touch(float* p) {
  if (p != nullptr) p[threadIdx.x] = 1.f;
}
__global__ void store_at(float* p) { *p = 1.f; }
__global__ void load_vector(float* p) {
  float4 const v = *reinterpret_cast<float4*>(p);
  p[0] = v.x + v.y + v.z + v.w;
}
__global__ void use_dynamic(float* p) {
  extern __shared__ float shared[];
  shared[threadIdx.x] = 1.f;
  __syncthreads();
  p[threadIdx.x] = shared[31 - threadIdx.x];
}
__global__ void __launch_bounds__(128) at_most_128(float* p) { p[threadIdx.x] = 1.f; }

__device__ float symbol;

void say(std::string const& what, int value) { std::printf("%s = %d\n", what.c_str(), value); }
void note(std::string const& what, double value) { std::printf("~ %s = %g\n", what.c_str(), value); }

// Each group has a process and so a device of its own.
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

struct world {
  cudaStream_t stream{}, other{}, blocking{};
  cudaEvent_t before{}, event{};
  float *a{}, *b{}, *c{}, *scratch{}, *pinned{};
  int* info{};
  cublasHandle_t blas{};
  cusolverDnHandle_t solver{};
  float host[1024]{};
  static constexpr int n = 16, scratch_bytes = 1 << 22;

  world() {
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
  int gemm() {
    float const one = 1, zero = 0;
    return cublasSgemm(blas, CUBLAS_OP_N, CUBLAS_OP_N, n, n, n, &one, a, n, b, n, &zero, c, n);
  }
  int potrf() {
    int size = 0;
    cusolverDnSpotrf_bufferSize(solver, CUBLAS_FILL_MODE_LOWER, n, a, n, &size);
    return cusolverDnSpotrf(solver, CUBLAS_FILL_MODE_LOWER, n, a, n, scratch, size, info);
  }
  int syevd() {
    int size = 0;
    cusolverDnSsyevd_bufferSize(solver, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER, n, a, n, b, &size);
    return cusolverDnSsyevd(solver, CUSOLVER_EIG_MODE_VECTOR, CUBLAS_FILL_MODE_LOWER, n, a, n, b, scratch, size, info);
  }
  int gesvd() {
    int size = 0;
    cusolverDnSgesvd_bufferSize(solver, n, n, &size);
    return cusolverDnSgesvd(solver, 'N', 'N', n, n, a, n, b, nullptr, n, nullptr, n, scratch, size, nullptr, info);
  }
  int geqrf() {
    int size = 0;
    cusolverDnSgeqrf_bufferSize(solver, n, n, a, n, &size);
    return cusolverDnSgeqrf(solver, n, n, a, n, b, scratch, size, info);
  }
  int orgqr() {
    int size = 0;
    cusolverDnSorgqr_bufferSize(solver, n, n, n, a, n, b, &size);
    return cusolverDnSorgqr(solver, n, n, n, a, n, b, scratch, size, info);
  }
};

// ---- what may be called while a stream is captured ------------------------------------------------------------------
void capture(char const* name, cudaStreamCaptureMode mode, bool nonblocking) {
  group(name, [&] {
    world w;
    cudaStream_t const s = nonblocking ? w.stream : w.blocking;
    cublasSetStream(w.blas, s);
    cusolverDnSetStream(w.solver, s);
    auto const during = [&](std::string const& what, std::function<int()> const& call) {
      cudaStreamBeginCapture(s, mode);
      touch<<<1, 32, 0, s>>>(w.a);
      int const status = call();
      cudaStreamCaptureStatus state{};
      cudaStreamIsCapturing(s, &state);
      cudaGraph_t graph{};
      int const end = cudaStreamEndCapture(s, &graph);
      size_t nodes = 0;
      if (graph != nullptr) cudaGraphGetNodes(graph, nullptr, &nodes);
      std::printf("%s = %d, capture %d, end %d, graph %d\n", what.c_str(), status, int(state), end, graph != nullptr);
      if (nodes > 0) note("nodes", double(nodes));
      if (graph != nullptr) cudaGraphDestroy(graph);
      cudaGetLastError();
    };
    void* p = nullptr;
    float* extra = nullptr;
    cudaMalloc(&extra, 64);
    void* extra_pinned = nullptr;
    cudaMallocHost(&extra_pinned, 64);
    cudaStream_t spare{};
    cudaStreamCreateWithFlags(&spare, cudaStreamNonBlocking);
    cudaEvent_t spare_event{};
    cudaEventCreate(&spare_event);
    cudaEvent_t never{};
    cudaEventCreate(&never);
    int value = 0;
    size_t free_bytes = 0, total = 0;
    float* extra_async = nullptr;
    cudaMallocAsync(&extra_async, 64, w.other);
    cudaStreamSynchronize(w.other);
    cublasHandle_t spare_blas{};
    cublasCreate(&spare_blas);
    cudaGraph_t earlier{};
    cudaGraphExec_t executable{};
    cudaStreamBeginCapture(w.other, cudaStreamCaptureModeGlobal);
    touch<<<1, 32, 0, w.other>>>(w.b);
    cudaStreamEndCapture(w.other, &earlier);

    during("nothing", [&] { return 0; });
    during("cudaMalloc", [&] { return cudaMalloc(&p, 64); });
    during("cudaFree", [&] { return cudaFree(extra); });
    during("cudaFree null", [&] { return cudaFree(nullptr); });
    during("cudaMallocHost", [&] { return cudaMallocHost(&p, 64); });
    during("cudaFreeHost", [&] { return cudaFreeHost(extra_pinned); });
    during("cudaMemcpy to device", [&] { return cudaMemcpy(w.a, w.host, 64, cudaMemcpyHostToDevice); });
    during("cudaMemcpy to host", [&] { return cudaMemcpy(w.host, w.a, 64, cudaMemcpyDeviceToHost); });
    during("cudaMemcpy pinned to host", [&] { return cudaMemcpy(w.pinned, w.a, 64, cudaMemcpyDeviceToHost); });
    during("cudaMemcpy on device", [&] { return cudaMemcpy(w.a, w.b, 64, cudaMemcpyDeviceToDevice); });
    during("cudaMemset", [&] { return cudaMemset(w.a, 0, 64); });
    during("cudaMemcpyAsync pageable to device",
           [&] { return cudaMemcpyAsync(w.a, w.host, 64, cudaMemcpyHostToDevice, s); });
    during("cudaMemcpyAsync to pageable host",
           [&] { return cudaMemcpyAsync(w.host, w.a, 64, cudaMemcpyDeviceToHost, s); });
    during("cudaMemcpyAsync to pinned host",
           [&] { return cudaMemcpyAsync(w.pinned, w.a, 64, cudaMemcpyDeviceToHost, s); });
    during("cudaMemcpyAsync on device", [&] { return cudaMemcpyAsync(w.a, w.b, 64, cudaMemcpyDeviceToDevice, s); });
    during("cudaMemcpyAsync on another stream",
           [&] { return cudaMemcpyAsync(w.a, w.b, 64, cudaMemcpyDeviceToDevice, w.other); });
    during("cudaMemsetAsync", [&] { return cudaMemsetAsync(w.a, 0, 64, s); });
    during("cudaStreamSynchronize of it", [&] { return cudaStreamSynchronize(s); });
    during("cudaStreamSynchronize of another", [&] { return cudaStreamSynchronize(w.other); });
    during("cudaStreamSynchronize of legacy", [&] { return cudaStreamSynchronize(nullptr); });
    during("cudaStreamQuery of it", [&] { return cudaStreamQuery(s); });
    during("cudaStreamQuery of another", [&] { return cudaStreamQuery(w.other); });
    during("cudaDeviceSynchronize", [&] { return cudaDeviceSynchronize(); });
    during("cudaEventCreate", [&] {
      cudaEvent_t made{};
      int const status = cudaEventCreate(&made);
      cudaEventDestroy(made);
      return status;
    });
    during("cudaEventDestroy", [&] { return cudaEventDestroy(spare_event); });
    during("cudaEventQuery of an earlier event", [&] { return cudaEventQuery(w.before); });
    during("cudaEventSynchronize of an earlier event", [&] { return cudaEventSynchronize(w.before); });
    during("cudaEventRecord", [&] { return cudaEventRecord(w.event, s); });
    during("cudaEventQuery of a captured event", [&] {
      cudaEventRecord(w.event, s);
      return int(cudaEventQuery(w.event));
    });
    during("cudaEventSynchronize of a captured event", [&] {
      cudaEventRecord(w.event, s);
      return int(cudaEventSynchronize(w.event));
    });
    during("cudaStreamWaitEvent of an earlier event", [&] { return cudaStreamWaitEvent(s, w.before, 0); });
    during("cudaStreamWaitEvent of an event never recorded", [&] { return cudaStreamWaitEvent(s, never, 0); });
    during("fork and join", [&] {
      cudaEventRecord(w.event, s);
      cudaStreamWaitEvent(w.other, w.event, 0);
      touch<<<1, 32, 0, w.other>>>(w.b);
      cudaEventRecord(w.event, w.other);
      return int(cudaStreamWaitEvent(s, w.event, 0));
    });
    during("fork without join", [&] {
      cudaEventRecord(w.event, s);
      cudaStreamWaitEvent(w.other, w.event, 0);
      touch<<<1, 32, 0, w.other>>>(w.b);
      return int(cudaGetLastError());
    });
    during("fork without work or join", [&] {
      cudaEventRecord(w.event, s);
      return int(cudaStreamWaitEvent(w.other, w.event, 0));
    });
    during("end on a joined stream", [&] {
      cudaEventRecord(w.event, s);
      cudaStreamWaitEvent(w.other, w.event, 0);
      cudaGraph_t graph{};
      return int(cudaStreamEndCapture(w.other, &graph));
    });
    during("begin again", [&] { return cudaStreamBeginCapture(s, mode); });
    during("cudaStreamCreate", [&] {
      cudaStream_t made{};
      int const status = cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking);
      cudaStreamDestroy(made);
      return status;
    });
    during("cudaStreamDestroy of another", [&] { return cudaStreamDestroy(spare); });
    during("cudaStreamGetDevice", [&] { return cudaStreamGetDevice(s, &value); });
    during("cudaGetLastError", [&] { return cudaGetLastError(); });
    during("cudaMemGetInfo", [&] { return cudaMemGetInfo(&free_bytes, &total); });
    during("cudaPointerGetAttributes", [&] {
      cudaPointerAttributes attributes{};
      return cudaPointerGetAttributes(&attributes, w.a);
    });
    during("cudaFuncGetAttributes", [&] {
      cudaFuncAttributes attributes{};
      return cudaFuncGetAttributes(&attributes, touch);
    });
    during("cudaFuncSetAttribute",
           [&] { return cudaFuncSetAttribute(use_dynamic, cudaFuncAttributeMaxDynamicSharedMemorySize, 65536); });
    during("cudaOccupancyMaxActiveBlocksPerMultiprocessor",
           [&] { return cudaOccupancyMaxActiveBlocksPerMultiprocessor(&value, touch, 128, 0); });
    during("cudaDeviceGetAttribute", [&] { return cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, 0); });
    during("launch on the legacy stream", [&] {
      touch<<<1, 32>>>(w.b);
      return int(cudaGetLastError());
    });
    during("launch on another stream", [&] {
      touch<<<1, 32, 0, w.other>>>(w.b);
      return int(cudaGetLastError());
    });
    during("launch on a blocking stream", [&] {
      touch<<<1, 32, 0, w.blocking>>>(w.b);
      return int(cudaGetLastError());
    });
    during("launch that is refused", [&] {
      touch<<<1, 2048, 0, s>>>(w.b);
      return int(cudaGetLastError());
    });
    during("cudaLaunchHostFunc", [&] {
      return cudaLaunchHostFunc(
          s, [](void*) {}, nullptr);
    });
    during("cublasSgemm", [&] { return w.gemm(); });
    during("cublasSetStream", [&] { return cublasSetStream(w.blas, s); });
    during("cublasSetWorkspace", [&] { return cublasSetWorkspace(w.blas, w.scratch, world::scratch_bytes); });
    during("cublasSgemm with a workspace", [&] { return w.gemm(); });
    during("cublasCreate", [&] {
      cublasHandle_t made{};
      int const status = cublasCreate(&made);
      if (status == 0) cublasDestroy(made);
      return status;
    });
    during("cusolverDnCreate", [&] {
      cusolverDnHandle_t made{};
      int const status = cusolverDnCreate(&made);
      if (status == 0) cusolverDnDestroy(made);
      return status;
    });
    during("cusolverDnSpotrf", [&] { return w.potrf(); });
    during("cusolverDnSsyevd", [&] { return w.syevd(); });
    during("cusolverDnSgesvd", [&] { return w.gesvd(); });
    during("cusolverDnSgeqrf", [&] { return w.geqrf(); });
    during("cusolverDnSorgqr", [&] { return w.orgqr(); });
    float const one = 1, zero = 0;
    during("cublasGemmEx bf16", [&] {
      return cublasGemmEx(w.blas, CUBLAS_OP_N, CUBLAS_OP_N, 16, 16, 16, &one, w.a, CUDA_R_16BF, 16, w.b, CUDA_R_16BF,
                          16, &zero, w.c, CUDA_R_32F, 16, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    });
    during("cublasSsyrk", [&] {
      return cublasSsyrk(w.blas, CUBLAS_FILL_MODE_UPPER, CUBLAS_OP_T, 16, 16, &one, w.a, 16, &zero, w.c, 16);
    });
    during("cublasStrsm", [&] {
      return cublasStrsm(w.blas, CUBLAS_SIDE_LEFT, CUBLAS_FILL_MODE_LOWER, CUBLAS_OP_N, CUBLAS_DIAG_NON_UNIT, 16, 16,
                         &one, w.a, 16, w.c, 16);
    });
    during("cublasSgeam", [&] {
      return cublasSgeam(w.blas, CUBLAS_OP_T, CUBLAS_OP_N, 16, 16, &one, w.a, 16, &zero, w.b, 16, w.c, 16);
    });
    during("cublasSgemm that is refused", [&] {
      return cublasSgemm(w.blas, CUBLAS_OP_N, CUBLAS_OP_N, 16, 16, 16, &one, w.a, 8, w.b, 16, &zero, w.c, 16);
    });
    during("cublasDestroy", [&] { return int(cublasDestroy(spare_blas)); });
    during("cudaMemcpy2DAsync",
           [&] { return cudaMemcpy2DAsync(w.a, 64, w.b, 64, 32, 4, cudaMemcpyDeviceToDevice, s); });
    during("cudaMemcpyToSymbolAsync",
           [&] { return cudaMemcpyToSymbolAsync(symbol, w.host, 4, 0, cudaMemcpyHostToDevice, s); });
    during("cudaMemcpyToSymbol", [&] { return cudaMemcpyToSymbol(symbol, w.host, 4); });
    during("cudaFreeAsync on another stream", [&] { return cudaFreeAsync(extra_async, w.other); });
    during("cudaGraphInstantiate", [&] { return cudaGraphInstantiate(&executable, earlier, 0); });
    during("cudaGraphLaunch", [&] { return cudaGraphLaunch(executable, s); });
    during("cudaGraphLaunch on another stream", [&] { return cudaGraphLaunch(executable, w.other); });
    auto const after_loss = [&](std::string const& what, std::function<int()> const& call) {
      during("after the capture is lost: " + what, [&] {
        cudaStreamQuery(s);
        cudaGetLastError();
        return call();
      });
    };
    after_loss("launch", [&] {
      touch<<<1, 32, 0, s>>>(w.b);
      return int(cudaGetLastError());
    });
    after_loss("copy", [&] { return cudaMemcpyAsync(w.a, w.b, 64, cudaMemcpyDeviceToDevice, s); });
    after_loss("record", [&] { return cudaEventRecord(w.event, s); });
    after_loss("wait", [&] { return cudaStreamWaitEvent(s, never, 0); });
    after_loss("begin", [&] { return cudaStreamBeginCapture(s, mode); });
    after_loss("synchronize", [&] { return cudaStreamSynchronize(s); });
    after_loss("synchronize another", [&] { return cudaStreamSynchronize(w.other); });
    after_loss("cudaMalloc", [&] { return cudaMalloc(&p, 64); });
    after_loss("gemm", [&] { return w.gemm(); });
    after_loss("potrf", [&] { return w.potrf(); });
    during("record an event that outlives it", [&] { return cudaEventRecord(w.event, s); });
    say("its query", cudaEventQuery(w.event));
    say("its wait", cudaEventSynchronize(w.event));
    say("a stream's wait", cudaStreamWaitEvent(w.other, w.event, 0));
    say("its record", cudaEventRecord(w.event, w.other));
    say("its query afterwards is ready or not", cudaEventSynchronize(w.event));
    during("wait for an event of an earlier capture", [&] {
      cudaEventRecord(w.event, s);
      cudaGraph_t made{};
      cudaStreamEndCapture(s, &made);
      if (made != nullptr) cudaGraphDestroy(made);
      cudaStreamBeginCapture(s, mode);
      return int(cudaStreamWaitEvent(s, w.event, 0));
    });
    during("cudaMallocAsync on another stream", [&] { return cudaMallocAsync(&p, 64, w.other); });
    during("~cudaMallocAsync", [&] { return cudaMallocAsync(&p, 64, s); });
    say("begin on the legacy stream", cudaStreamBeginCapture(nullptr, mode));
    cudaGraph_t graph{};
    say("end without begin", cudaStreamEndCapture(s, &graph));
  });
}

// ---- a graph that is launched ---------------------------------------------------------------------------------------
void launches_of_graphs() {
  group("graph", [] {
    world w;
    cudaGraph_t graph{};
    cudaGraphExec_t executable{};
    float const one = 1;
    cudaMemsetAsync(w.c, 0, 1024, w.stream);
    cudaStreamSynchronize(w.stream);
    cudaStreamBeginCapture(w.stream, cudaStreamCaptureModeGlobal);
    cublasSgemm(w.blas, CUBLAS_OP_N, CUBLAS_OP_N, w.n, w.n, w.n, &one, w.a, w.n, w.b, w.n, &one, w.c, w.n);
    say("end", cudaStreamEndCapture(w.stream, &graph));
    say("instantiate", cudaGraphInstantiate(&executable, graph, 0));
    say("destroy graph", cudaGraphDestroy(graph));
    for (int k = 0; k < 3; ++k) say("launch", cudaGraphLaunch(executable, w.stream));
    cudaMemcpyAsync(w.host, w.c, 4, cudaMemcpyDeviceToHost, w.stream);
    cudaStreamSynchronize(w.stream);
    say("three products of 16", int(w.host[0]));
    say("destroy executable", cudaGraphExecDestroy(executable));
    cudaStreamBeginCapture(w.stream, cudaStreamCaptureModeGlobal);
    say("empty end", cudaStreamEndCapture(w.stream, &graph));
    say("empty instantiate", cudaGraphInstantiate(&executable, graph, 0));
    say("empty launch", cudaGraphLaunch(executable, w.stream));
    // What a graph reads from pageable memory it reads when it is launched, not when it is captured.
    w.host[0] = 1;
    cudaStreamBeginCapture(w.stream, cudaStreamCaptureModeGlobal);
    cudaMemcpyAsync(w.a, w.host, 4, cudaMemcpyHostToDevice, w.stream);
    cudaStreamEndCapture(w.stream, &graph);
    cudaGraphInstantiate(&executable, graph, 0);
    w.host[0] = 2;
    cudaGraphLaunch(executable, w.stream);
    cudaMemcpyAsync(w.host + 8, w.a, 4, cudaMemcpyDeviceToHost, w.stream);
    cudaStreamSynchronize(w.stream);
    say("pageable source read at", int(w.host[8]));
    // A factorization in a graph, launched twice over 16 on the diagonal: 4, then 2.
    for (int i = 0; i < 256; ++i) w.host[i] = i % 17 == 0 ? 16.f : 0.f;
    cudaMemcpy(w.a, w.host, 1024, cudaMemcpyHostToDevice);
    cudaStreamBeginCapture(w.stream, cudaStreamCaptureModeGlobal);
    w.potrf();
    cudaStreamEndCapture(w.stream, &graph);
    cudaGraphInstantiate(&executable, graph, 0);
    for (int k = 0; k < 2; ++k) say("launch of potrf", cudaGraphLaunch(executable, w.stream));
    cudaMemcpyAsync(w.host, w.a, 4, cudaMemcpyDeviceToHost, w.stream);
    cudaStreamSynchronize(w.stream);
    say("factored twice", int(w.host[0]));
  });
}

// ---- ordinary refusals ----------------------------------------------------------------------------------------------
void refusals() {
  group("refusals", [] {
    world w;
    void* p = reinterpret_cast<void*>(8);
    auto const last = [](char const* what) {
      say(std::string{what} + ", last error", cudaGetLastError());
      say(std::string{what} + ", last error again", cudaGetLastError());
    };
    say("cudaMalloc 0", cudaMalloc(&p, 0));
    say("cudaMalloc 0 gives null", p == nullptr);
    say("cudaMallocAsync 0", cudaMallocAsync(&p, 0, w.stream));
    say("cudaMallocAsync 0 gives null", p == nullptr);
    say("cudaMalloc too much", cudaMalloc(&p, size_t(1) << 50));
    last("cudaMalloc too much");
    say("cudaMallocAsync too much", cudaMallocAsync(&p, size_t(1) << 50, w.stream));
    last("cudaMallocAsync too much");
    say("cudaFree null", cudaFree(nullptr));
    say("cudaFreeAsync null", cudaFreeAsync(nullptr, w.stream));
    say("cudaFreeHost null", cudaFreeHost(nullptr));
    cudaGetLastError();
    say("cudaFree of host memory", cudaFree(w.host));
    say("cudaFree inside an allocation", cudaFree(w.a + 4));
    say("cudaFreeHost of ordinary memory", cudaFreeHost(w.host));
    cudaGetLastError();
    say("copy of nothing", cudaMemcpy(nullptr, nullptr, 0, cudaMemcpyHostToDevice));
    say("memset of nothing", cudaMemset(nullptr, 0, 0));
    say("copy pitch", cudaMemcpy2D(w.a, 4, w.host, 8, 8, 2, cudaMemcpyHostToDevice));
    say("copy pitch, one row", cudaMemcpy2D(w.a, 4, w.host, 8, 8, 1, cudaMemcpyHostToDevice));
    say("copy of an unknown kind", cudaMemcpy(w.a, w.host, 4, cudaMemcpyKind(17)));
    cudaGetLastError();
    say("event never recorded, query", cudaEventQuery(w.event));
    say("event never recorded, wait", cudaEventSynchronize(w.event));
    cudaEvent_t timed{}, timed_too{};
    cudaEventCreate(&timed);
    cudaEventCreate(&timed_too);
    float ms = 0;
    say("elapsed, never recorded", cudaEventElapsedTime(&ms, timed, timed_too));
    say("elapsed, without timing", cudaEventElapsedTime(&ms, w.before, w.event));
    cudaGetLastError();

    auto const launch = [&](char const* what, dim3 grid, dim3 block, size_t shared) {
      use_dynamic<<<grid, block, shared, w.stream>>>(w.a);
      say(what, cudaGetLastError());
      cudaStreamSynchronize(w.stream);
    };
    launch("launch", 1, 32, 128);
    launch("launch with no block", 0, 32, 128);
    launch("launch with no thread", 1, 0, 128);
    launch("launch with 2048 threads", 1, 2048, 128);
    launch("launch with block.z = 65", 1, dim3(1, 1, 65), 128);
    launch("launch with grid.y = 65536", dim3(1, 65536), 32, 128);
    launch("launch with 64 KB", 1, 32, 65536);
    say("allow 64 KB", cudaFuncSetAttribute(use_dynamic, cudaFuncAttributeMaxDynamicSharedMemorySize, 65536));
    launch("launch with 64 KB allowed", 1, 32, 65536);
    say("allow 228 KB", cudaFuncSetAttribute(use_dynamic, cudaFuncAttributeMaxDynamicSharedMemorySize, 228 << 10));
    last("allow 228 KB");
    launch("launch with 300 KB", 1, 32, 300 << 10);
    at_most_128<<<1, 256, 0, w.stream>>>(w.a);
    say("launch over its bounds", cudaGetLastError());
    say("cudaSetDevice 1", cudaSetDevice(1));
    int value = 0;
    say("attribute of device 1", cudaDeviceGetAttribute(&value, cudaDevAttrWarpSize, 1));
    cudaDeviceProp properties{};
    say("properties of device 1", cudaGetDeviceProperties(&properties, 1));
    cudaGetLastError();

    auto const kind = [](char const* what, void const* pointer) {
      cudaPointerAttributes a{};
      int const status = cudaPointerGetAttributes(&a, pointer);
      std::printf("pointer %s = %d, type %d, device %d, device pointer %s, host pointer %s\n", what, status,
                  int(a.type), a.device,
                  a.devicePointer == nullptr   ? "null"
                  : a.devicePointer == pointer ? "same"
                                               : "other",
                  a.hostPointer == nullptr   ? "null"
                  : a.hostPointer == pointer ? "same"
                                             : "other");
    };
    kind("to device memory", w.a);
    kind("into device memory", w.a + 5);
    kind("to pinned memory", w.pinned);
    kind("into pinned memory", w.pinned + 5);
    kind("to ordinary memory", w.host);
    kind("null", nullptr);
    float* gone = nullptr;
    cudaMalloc(&gone, 4096);
    cudaFree(gone);
    kind("to freed memory", gone);
    cudaGetLastError();
    say("attributes, unsupported destroy of a null stream", cudaStreamDestroy(nullptr));
    cudaGetLastError();
  });
  group("not ready", [] {
    world w;
    for (int k = 0; k < 64; ++k) cudaMemsetAsync(w.scratch, 0, world::scratch_bytes, w.stream);
    note("query while it runs", cudaStreamQuery(w.stream));
    note("query while it runs, last error", cudaGetLastError());
    cudaEventRecord(w.event, w.stream);
    note("event while it runs", cudaEventQuery(w.event));
    note("event while it runs, last error", cudaGetLastError());
    cudaDeviceSynchronize();
    say("query when done", cudaStreamQuery(w.stream));
    say("event when done", cudaEventQuery(w.event));
  });
}

// ---- a device that is broken ----------------------------------------------------------------------------------------
void after_fault(char const* name, std::function<void(world&)> const& fault) {
  group(name, [&] {
    world w;
    fault(w);
    say("launch", cudaGetLastError());
    say("synchronize", cudaStreamSynchronize(w.stream));
    say("last error", cudaGetLastError());
    say("last error again", cudaGetLastError());
    say("peek", cudaPeekAtLastError());
    void* p = nullptr;
    int value = 0;
    say("malloc", cudaMalloc(&p, 64));
    say("malloc async", cudaMallocAsync(&p, 64, w.stream));
    say("free", cudaFree(w.b));
    say("free async", cudaFreeAsync(w.c, w.stream));
    say("free host", cudaFreeHost(w.pinned));
    say("copy", cudaMemcpyAsync(w.host, w.a, 4, cudaMemcpyDeviceToHost, w.stream));
    touch<<<1, 32, 0, w.stream>>>(w.a);
    say("another launch", cudaGetLastError());
    say("event record", cudaEventRecord(w.event, w.stream));
    say("event query", cudaEventQuery(w.event));
    say("event create", cudaEventCreate(&w.before));
    say("event destroy", cudaEventDestroy(w.event));
    say("stream create", cudaStreamCreate(&w.blocking));
    say("get device", cudaGetDevice(&value));
    say("attribute", cudaDeviceGetAttribute(&value, cudaDevAttrWarpSize, 0));
    say("gemm", w.gemm());
    say("potrf", w.potrf());
    say("blas destroy", cublasDestroy(w.blas));
    say("solver destroy", cusolverDnDestroy(w.solver));
    say("stream destroy", cudaStreamDestroy(w.stream));
    say("device synchronize", cudaDeviceSynchronize());
    say("reset", cudaDeviceReset());
    say("last error after reset", cudaGetLastError());
    say("malloc after reset", cudaMalloc(&p, 64));
  });
}

// ---- cuBLAS ---------------------------------------------------------------------------------------------------------
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

// ---- cuSOLVER -------------------------------------------------------------------------------------------------------
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

void properties() {
  group("properties", [] {
    int value = 0;
    for (auto const& [name, attribute] : {std::pair{"major", cudaDevAttrComputeCapabilityMajor},
                                          {"minor", cudaDevAttrComputeCapabilityMinor},
                                          {"multiprocessors", cudaDevAttrMultiProcessorCount},
                                          {"warp", cudaDevAttrWarpSize},
                                          {"threads per block", cudaDevAttrMaxThreadsPerBlock},
                                          {"shared", cudaDevAttrMaxSharedMemoryPerBlock},
                                          {"shared opt-in", cudaDevAttrMaxSharedMemoryPerBlockOptin},
                                          {"shared per multiprocessor", cudaDevAttrMaxSharedMemoryPerMultiprocessor},
                                          {"shared reserved", cudaDevAttrReservedSharedMemoryPerBlock},
                                          {"threads per multiprocessor", cudaDevAttrMaxThreadsPerMultiProcessor},
                                          {"blocks per multiprocessor", cudaDevAttrMaxBlocksPerMultiprocessor},
                                          {"registers", cudaDevAttrMaxRegistersPerBlock},
                                          {"L2", cudaDevAttrL2CacheSize},
                                          {"pools", cudaDevAttrMemoryPoolsSupported},
                                          {"unified addressing", cudaDevAttrUnifiedAddressing},
                                          {"pageable access", cudaDevAttrPageableMemoryAccess}}) {
      cudaDeviceGetAttribute(&value, attribute, 0);
      say(name, value);
    }
    cudaFuncAttributes attributes{};
    say("attributes", cudaFuncGetAttributes(&attributes, use_dynamic));
    say("ptx version", attributes.ptxVersion);
    say("max dynamic", attributes.maxDynamicSharedSizeBytes);
    say("max threads", attributes.maxThreadsPerBlock);
    cudaFuncGetAttributes(&attributes, at_most_128);
    say("max threads of bounded kernel", attributes.maxThreadsPerBlock);
    for (int const threads : {32, 128, 256, 1024}) {
      cudaOccupancyMaxActiveBlocksPerMultiprocessor(&value, touch, threads, 0);
      say("occupancy " + std::to_string(threads), value);
    }
    cudaOccupancyMaxActiveBlocksPerMultiprocessor(&value, use_dynamic, 256, 40000);
    say("occupancy with 40000 bytes", value);
    for (int const code :
         {0, 1, 2, 9, 11, 12, 13, 98, 101, 400, 401, 600, 700, 701, 716, 719, 900, 901, 904, 905, 906, 907})
      std::printf("error %d = %s: %s\n", code, cudaGetErrorName(cudaError_t(code)),
                  cudaGetErrorString(cudaError_t(code)));
    for (int const code : {0, 1, 3, 7, 8, 11, 13, 14, 15})
      std::printf("status %d = %s: %s\n", code, cublasGetStatusName(cublasStatus_t(code)),
                  cublasGetStatusString(cublasStatus_t(code)));
  });
}

}  // namespace

int main() {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // what a group has said stays said when it crashes
  properties();
  refusals();
  launches_of_graphs();
  capture("global capture, non-blocking stream", cudaStreamCaptureModeGlobal, true);
  capture("relaxed capture, non-blocking stream", cudaStreamCaptureModeRelaxed, true);
  capture("global capture, blocking stream", cudaStreamCaptureModeGlobal, false);
  after_fault("illegal address", [](world& w) { store_at<<<1, 1, 0, w.stream>>>(nullptr); });
  after_fault("misaligned address", [](world& w) { load_vector<<<1, 1, 0, w.stream>>>(w.a + 1); });
  after_fault("host pointer", [](world& w) { store_at<<<1, 1, 0, w.stream>>>(w.host); });
  blas();
  solver();
}
