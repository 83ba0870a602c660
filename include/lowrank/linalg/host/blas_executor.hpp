/// @file
/// A host executor whose products and decompositions come from CBLAS and LAPACK.
#pragma once

#include <mutex>

#include "lowrank/core/executor.hpp"

// OpenBLAS only; absent from other libraries, where these stay null. Some cblas.h declare them too, but not as weak.
// NOLINTBEGIN(readability-redundant-declaration)
extern "C" {
void openblas_set_num_threads(int num_threads) __attribute__((weak));
int openblas_get_num_threads(void) __attribute__((weak));
}
// NOLINTEND(readability-redundant-declaration)

namespace lowrank {

namespace detail {

/// While one of these lives, OpenBLAS computes in the calling thread. Our pool cuts the products; a second pool under each
/// tile would leave both waiting for the same cores.
class single_threaded_blas {
 public:
  single_threaded_blas() {
    if (openblas_set_num_threads == nullptr || openblas_get_num_threads == nullptr) return;
    std::scoped_lock const lock{mutex()};
    if (living()++ > 0) return;
    before() = openblas_get_num_threads();
    openblas_set_num_threads(1);
  }
  single_threaded_blas(single_threaded_blas const&) = delete;
  single_threaded_blas& operator=(single_threaded_blas const&) = delete;
  ~single_threaded_blas() {
    if (openblas_set_num_threads == nullptr || openblas_get_num_threads == nullptr) return;
    std::scoped_lock const lock{mutex()};
    if (--living() == 0) openblas_set_num_threads(before());
  }

 private:
  static std::mutex& mutex() {
    static std::mutex value;
    return value;
  }
  static int& living() {
    static int value = 0;
    return value;
  }
  static int& before() {
    static int value = 0;
    return value;
  }
};

}  // namespace detail

/// `host_executor` with products by CBLAS, eigenvectors, SVD and QR by LAPACK. Faster where the library is better than
/// Eigen; without the promise of equal bits for any number of threads, which no BLAS gives.
/// While one lives OpenBLAS's own threads are off (for the whole process; restored when the last one ends). Libraries whose
/// threads have another switch must be told by the caller: OMP_NUM_THREADS=1, MKL_NUM_THREADS=1.
class blas_executor : public host_executor {
 public:
  explicit blas_executor(host_options options = {}) : host_executor{options} {}

 private:
  detail::single_threaded_blas single_threaded_;
};

}  // namespace lowrank
