// What may be called while a stream is captured, and what becomes of the capture.
#include "softgpu/contract/contract.hpp"

#include <cstdio>

namespace contract {
namespace {

__global__ void touch(float* p) {
  if (p != nullptr) p[threadIdx.x] = 1.f;
}
__global__ void use_dynamic(float* p) {
  extern __shared__ float shared[];
  shared[threadIdx.x] = 1.f;
  __syncthreads();
  p[threadIdx.x] = shared[31 - threadIdx.x];
}
__device__ float symbol;

void capture(char const* name, cudaStreamCaptureMode mode, unsigned kind) {
  group(name, [&] {
    world w;
    cudaStream_t const s = kind == cudaStreamNonBlocking ? w.stream : w.blocking;
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

}  // namespace

void captures() {
  capture("global capture, non-blocking stream", cudaStreamCaptureModeGlobal, cudaStreamNonBlocking);
  capture("relaxed capture, non-blocking stream", cudaStreamCaptureModeRelaxed, cudaStreamNonBlocking);
  capture("global capture, blocking stream", cudaStreamCaptureModeGlobal, cudaStreamDefault);
}

void graphs() {
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

}  // namespace contract
