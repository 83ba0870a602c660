/// @file
/// What the compiler is told about each function: where it runs. The only header that looks at the compiler.
#pragma once

#if defined(__CUDACC__)
#define LOWRANK_HD __host__ __device__
#define LOWRANK_DEVICE __device__
#define LOWRANK_DEVICE_COMPILER 1
#define LOWRANK_PACK_WIDTH 1  // no vector types in device code; what runs on the host is compiled by a host compiler
#else
/// Marks a function that runs on the host and, when compiled by a CUDA compiler, on the device.
#define LOWRANK_HD
/// Marks a lambda that is handed to an executor as the body of a kernel, `[=] LOWRANK_DEVICE (auto tile, ...) { ... }`. A CUDA
/// compiler makes it device code only, so what runs on the host is compiled by a host compiler.
#define LOWRANK_DEVICE
#endif

#if defined(__GNUC__) || defined(__clang__)
#define LOWRANK_INLINE LOWRANK_HD inline __attribute__((always_inline))
/// A function that is hardly ever called: small and out of the way.
#define LOWRANK_COLD __attribute__((cold, noinline))
/// Asks for the line of memory at an address that may lie outside of any object.
#define LOWRANK_PREFETCH(address) __builtin_prefetch(reinterpret_cast<void const*>(address))
#else
#define LOWRANK_INLINE LOWRANK_HD inline
#define LOWRANK_COLD
#define LOWRANK_PREFETCH(address) static_cast<void>(address)
#endif

#if defined(__CUDA_ARCH__)
/// What is compiled now runs on a device.
#define LOWRANK_DEVICE_PASS 1
#endif

#if defined(__FP_FAST_FMAF) || defined(__CUDACC__)
/// A fused multiply-add of floats is one instruction, not a call into the C library.
#define LOWRANK_HAS_FMA 1
#endif

#include <cstdint>

namespace lowrank {

/// Every size, extent, stride and rank. Signed, so that differences are what they look like.
using index_t = std::int64_t;

}  // namespace lowrank
