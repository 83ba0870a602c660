// Mistakes that a program can make with a GPU, each beside the same program without it. The control has to be silent
// and right; of the planted one it is known how it is noticed, with lazy and with eager streams.
#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <cusolverDn.h>

#include <cstddef>
#include <span>
#include <vector>

namespace planted {

enum class variant { control, bug };
enum class noticed {
  not_at_all,
  by_report,  ///< the software GPU says so; the row holds a part of what it says
  by_status,  ///< a call refuses
  by_value,   ///< a result is wrong, always
  by_signal   ///< the program is killed
};

/// What the programs work with; everything is given back when it goes.
class bench {
 public:
  static constexpr int count = 128;  // elements of the arrays below

  bench();
  ~bench();
  bench(bench const&) = delete;
  bench& operator=(bench const&) = delete;

  cudaStream_t first{}, second{};  ///< neither waits for the other or for the legacy stream
  float* numbers{};                ///< 0, 1, 2 ... on the device, and `first` is idle

  /// Device memory that lives until the end; ordered before all that comes on `first`.
  float* array(std::size_t elements);
  float* array(std::vector<float> const& values);
  cublasHandle_t blas();
  cusolverDnHandle_t solver();

  /// Reads with `first` and waits for it.
  float read(float const* from);
  void expect_equal(float got, float wanted);
  void expect_success(int status);
  [[nodiscard]] noticed verdict() const { return verdict_; }

 private:
  std::vector<float*> arrays_;
  cublasHandle_t blas_{};
  cusolverDnHandle_t solver_{};
  noticed verdict_ = noticed::not_at_all;
};

struct row {
  char const* name;
  void (*run)(bench&, variant);
  noticed lazy, eager;
  char const* says = "";
};

std::span<row const> memory_rows();
std::span<row const> block_rows();
std::span<row const> order_rows();
std::span<row const> library_rows();
std::span<row const> capture_rows();

}  // namespace planted
