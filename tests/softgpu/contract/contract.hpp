// Statuses that calls give, one line each: what the software GPU imitates. `h100.txt` is what an H100 printed (CUDA
// 13.0), as far as it was asked; the software GPU has to give the same answers (compare.py). Lines whose value may
// differ begin with '~' and are for reading only.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <cusolverDn.h>

#include <functional>
#include <string>

namespace contract {

void say(std::string const& what, int value);
void note(std::string const& what, double value);
/// Each group has a process and so a device of its own; what it says stays said when it crashes.
void group(char const* name, std::function<void()> const& body);

/// Streams, memory and handles to ask with, all of them warm.
struct world {
  static constexpr int n = 16, scratch_bytes = 1 << 22;

  cudaStream_t stream{}, other{}, blocking{};
  cudaEvent_t before{}, event{};
  float *a{}, *b{}, *c{}, *scratch{}, *pinned{};  // a, b and c hold 4 on the diagonal
  int* info{};
  cublasHandle_t blas{};
  cusolverDnHandle_t solver{};
  float host[1024]{};

  world();
  int gemm();
  int potrf();
  int syevd();
  int gesvd();
  int geqrf();
  int orgqr();
};

void properties();
void refusals();
void graphs();
void captures();
void faults();
void blas();
void solver();

}  // namespace contract
