/// @file
/// Runs on the caller's stream of a CUDA device.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <cusolverDn.h>

#include <optional>
#include <utility>

#include "lowrank/core/cuda/memory.cuh"
#include "lowrank/core/cuda/pointer.cuh"
#include "lowrank/core/executor.hpp"

namespace lowrank {

/// Precision of fp32 products: fp32 throughout, or operands rounded to TF32 (10 bits of mantissa) on tensor cores.
enum class product_precision : std::uint8_t { fp32, tf32 };

struct cuda_options {
  cudaStream_t stream{};     ///< the caller's; everything runs on it in order
  index_t scratch_bytes{0};  ///< reserved at once; `reserve` can raise it later
  void* scratch{};           ///< not null: the caller's device memory of `scratch_bytes`, used instead of own memory
  index_t library_bytes{48 << 20};  ///< own memory for cuBLAS and for panels of fp64 Grams; at least 16 MiB
  product_precision products{product_precision::fp32};
  pointer_checks pointers{pointer_checks::every_step};
};

namespace detail {

template <class Body>
__global__ void run_once(Body const body) {
  body();
}

inline constexpr int team_threads = 512;

/// The threads of one block, see host_team. Reductions are by hand: cub::BlockReduce tells one thread, so that the others would
/// wait at one more barrier for what it shares, and its header takes nvcc a second in every unit that includes this one.
struct block_team {
  double* partial;  ///< shared, one for each warp

  template <class F>
  __device__ void each(index_t count, F const& f) const {
    for (index_t i = threadIdx.x; i < count; i += team_threads) f(i);
    __syncthreads();
  }
  template <class F>
  [[nodiscard]] __device__ double sum(index_t count, F const& f) const {
    return reduce(count, 0.0, f, [](double a, double b) { return a + b; });
  }
  template <class F>
  [[nodiscard]] __device__ double most(index_t count, double least, F const& f) const {
    return reduce(count, least, f, [](double a, double b) { return b > a ? b : a; });
  }

 private:
  template <class F, class Op>
  [[nodiscard]] __device__ double reduce(index_t count, double init, F const& f, Op const& op) const {
    double value = init;
    for (index_t i = threadIdx.x; i < count; i += team_threads) value = op(value, f(i));
    for (int step = 16; step > 0; step /= 2) value = op(value, __shfl_xor_sync(0xFFFFFFFFU, value, step));
    __syncthreads();  // whoever still reads what the last call left
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
    __syncthreads();
    value = partial[0];
    for (int warp = 1; warp < team_threads / 32; ++warp) value = op(value, partial[warp]);
    return value;
  }
};
template <class Body>
__global__ void __launch_bounds__(team_threads, 1) run_team(Body const body) {  // 1: there are no others
  __shared__ double partial[team_threads / 32];
  body(block_team{partial});
}

/// What must be undone when an executor goes away, also when its constructor throws half-way.
class cuda_handles {
 public:
  explicit cuda_handles(cuda_options const& o) {
    check_cuda(cudaGetDevice(&device_), "cudaGetDevice");
    check_library(cublasCreate(&blas_), "cublasCreate");
    try {
      check_library(cusolverDnCreate(&solver_), "cusolverDnCreate");
      check_library(cublasSetStream(blas_, o.stream), "cublasSetStream");
      check_library(cusolverDnSetStream(solver_, o.stream), "cusolverDnSetStream");
      auto const mode = o.products == product_precision::tf32 ? CUBLAS_TF32_TENSOR_OP_MATH : CUBLAS_PEDANTIC_MATH;
      check_library(cublasSetMathMode(blas_, mode), "cublasSetMathMode");
    } catch (...) {
      destroy();
      throw;
    }
  }
  cuda_handles(cuda_handles const&) = delete;
  cuda_handles& operator=(cuda_handles const&) = delete;
  ~cuda_handles() { destroy(); }

  [[nodiscard]] cublasHandle_t blas() const noexcept { return blas_; }
  [[nodiscard]] cusolverDnHandle_t solver() const noexcept { return solver_; }
  [[nodiscard]] int device() const noexcept { return device_; }
  [[nodiscard]] int attribute(cudaDeviceAttr which) const {
    int out = 0;
    check_cuda(cudaDeviceGetAttribute(&out, which, device_), "cudaDeviceGetAttribute");
    return out;
  }

 private:
  void destroy() noexcept {
    if (solver_ != nullptr) static_cast<void>(cusolverDnDestroy(std::exchange(solver_, nullptr)));
    if (blas_ != nullptr) static_cast<void>(cublasDestroy(std::exchange(blas_, nullptr)));
  }

  cublasHandle_t blas_{};
  cusolverDnHandle_t solver_{};
  int device_{};
};

}  // namespace detail

/// Runs on one stream of the device that is current when it is made, with the scratch and the library handles it owns. The
/// stream stays the caller's. One thread uses an executor at a time; several executors may run at once.
/// Constructing one allocates; running allocates nothing, except that the first exact decomposition of a size enlarges the
/// memory of cuSOLVER. Equal work gives equal bits on the same device and library version: no atomics on floats, and cuBLAS
/// with one stream and a workspace of its own is deterministic.
/// Requires: while it runs, its device is current.
/// Synchronises: `peek`, and only inside of a `look_scope`; nothing else but construction and destruction.
/// Throws: cuda_error, cuda_bad_alloc.
class cuda_executor {
 public:
  using space = device_space;

  explicit cuda_executor(cuda_options const& options = {})
      : stream_{options.stream},
        pointers_{options.pointers},
        handles_{options},
        library_{checked(options)},
        processors_{handles_.attribute(cudaDevAttrMultiProcessorCount)},
        capability_{10 * handles_.attribute(cudaDevAttrComputeCapabilityMajor) +
                    handles_.attribute(cudaDevAttrComputeCapabilityMinor)} {
    detail::check_library(cublasSetWorkspace(handles_.blas(), library_.data(), blas_bytes), "cublasSetWorkspace");
    if (options.scratch != nullptr) check_memory(options.scratch, "cuda_executor", "scratch");
    if (options.scratch != nullptr) arena_.adopt(static_cast<std::byte*>(options.scratch), options.scratch_bytes);
    else arena_.reserve(options.scratch_bytes);
  }
  /// Waits until the work that uses its memory is done.
  ~cuda_executor() { static_cast<void>(cudaStreamSynchronize(stream_)); }
  cuda_executor(cuda_executor const&) = delete;
  cuda_executor& operator=(cuda_executor const&) = delete;

  [[nodiscard]] cudaStream_t stream() const noexcept { return stream_; }
  [[nodiscard]] cublasHandle_t blas() const noexcept { return handles_.blas(); }
  [[nodiscard]] cusolverDnHandle_t solver() const noexcept { return handles_.solver(); }
  [[nodiscard]] scratch<device_space>& arena() noexcept { return arena_; }
  [[nodiscard]] scratch<device_space> const& arena() const noexcept { return arena_; }
  [[nodiscard]] int device() const noexcept { return handles_.device(); }
  [[nodiscard]] int processors() const noexcept { return processors_; }
  /// 90 for compute capability 9.0.
  [[nodiscard]] int capability() const noexcept { return capability_; }
  /// Makes at least `bytes` of scratch available. Call it outside of `step`.
  void reserve(index_t bytes) { arena_.reserve(bytes); }
  /// Everything this executor holds on the device.
  [[nodiscard]] index_t bytes() const noexcept { return arena_.reserved() + library_.bytes() + solver_.bytes(); }
  /// Memory of its own for conversions inside of one primitive.
  [[nodiscard]] std::byte* panel_memory() noexcept { return library_.data() + blas_bytes; }
  [[nodiscard]] index_t panel_bytes() const noexcept { return library_.bytes() - blas_bytes; }
  /// Memory for cuSOLVER; grows, which waits for the stream.
  [[nodiscard]] std::byte* solver_memory(index_t bytes) {
    if (bytes > solver_.size()) {
      synchronize();
      solver_ = {};
      solver_ = buffer<std::byte, device_space>{bytes};
    }
    return solver_.data();
  }
  /// Waits for everything that was put on the stream. Throws what went wrong there.
  void synchronize() const { detail::check_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

  /// Runs `body()` in a kernel of one thread.
  template <class Body>
  void single(Body const& body) {
    detail::run_once<<<1, 1, 0, stream_>>>(body);
    check_launch("a kernel of one thread");
  }
  /// Runs `body(team)` in one block.
  template <class Body>
  void team(Body const& body) {
    detail::run_team<<<1, detail::team_threads, 0, stream_>>>(body);
    check_launch("a kernel of one block");
  }
  /// The value behind `p` inside of a `look_scope`, which waits for it; nothing outside.
  template <class T>
  [[nodiscard]] std::optional<T> peek(T const* p) const {
    if (looks_ == 0) return std::nullopt;
    T out;
    detail::check_cuda(cudaMemcpyAsync(&out, p, sizeof out, cudaMemcpyDeviceToHost, stream_), "cudaMemcpyAsync");
    synchronize();
    return out;
  }
  /// Whether the stream is being captured into a graph.
  [[nodiscard]] bool recording() const {
    auto status = cudaStreamCaptureStatusNone;
    detail::check_cuda(cudaStreamIsCapturing(stream_, &status), "cudaStreamIsCapturing");
    return status != cudaStreamCaptureStatusNone;
  }
  /// Throws when this device is not the current one, or when earlier work has failed, so that nothing is begun then.
  void check_ready(char const* caller) const {
    int current = -1;
    detail::check_cuda(cudaGetDevice(&current), "cudaGetDevice");
    require<state_error>(current == device(), caller, "the executor runs on device ", device(), ", current is device ",
                         current);
    detail::check_cuda(cudaPeekAtLastError(), "a CUDA call before this one");
  }
  /// Throws unless `pointer` leads to memory of this device. `what` names it.
  void check_memory(void const* pointer, char const* caller, char const* what) const {
    // A graph is recorded from a step that has been taken before; whether the question may be asked then is not documented.
    if (pointers_ == pointer_checks::none || recording()) return;
    cudaPointerAttributes found{};
    detail::check_cuda(cudaPointerGetAttributes(&found, pointer), "cudaPointerGetAttributes");
    detail::require_memory_of(device(), found, pointer, caller, what);
  }
  /// Throws when the launch before was refused.
  static void check_launch(char const* what) { detail::check_cuda(cudaPeekAtLastError(), what); }

 private:
  friend class look_scope<cuda_executor>;
  static constexpr index_t blas_bytes = 32 << 20;  // what cuBLAS asks for on a Hopper

  [[nodiscard]] static index_t checked(cuda_options const& o) {
    require(o.library_bytes >= blas_bytes + (8 << 20), "cuda_executor", "library_bytes must be at least ",
            blas_bytes + (8 << 20), ", got ", o.library_bytes);
    require(o.scratch_bytes >= 0, "cuda_executor", "scratch_bytes must not be negative, got ", o.scratch_bytes);
    return o.library_bytes;
  }

  cudaStream_t stream_;
  pointer_checks pointers_;
  detail::cuda_handles handles_;
  buffer<std::byte, device_space> library_, solver_;
  scratch<device_space> arena_;
  int processors_, capability_;
  int looks_{};
};
static_assert(executor<cuda_executor>);

}  // namespace lowrank
