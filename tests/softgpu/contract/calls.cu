// What the device says of itself, ordinary refusals, and a device that is broken.
#include "softgpu/contract/contract.hpp"

#include <cstdio>

namespace contract {
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

}  // namespace

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

void faults() {
  after_fault("illegal address", [](world& w) { store_at<<<1, 1, 0, w.stream>>>(nullptr); });
  after_fault("misaligned address", [](world& w) { load_vector<<<1, 1, 0, w.stream>>>(w.a + 1); });
  after_fault("host pointer", [](world& w) { store_at<<<1, 1, 0, w.stream>>>(w.host); });
}

}  // namespace contract
