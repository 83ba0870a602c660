// Cholesky factors and eigenvalues of symmetric matrices.
#include <cusolverDn.h>

#include <algorithm>

#include "cusolver/handle.hpp"
#include "cusolver/lapack.hpp"
#include "operand.hpp"

using namespace softgpu;

namespace {

triangle part_of(cublasFillMode_t fill) { return fill == CUBLAS_FILL_MODE_LOWER ? triangle::lower : triangle::upper; }
char letter_of(cublasFillMode_t fill) { return fill == CUBLAS_FILL_MODE_LOWER ? 'L' : 'U'; }

// What the calls here claim to need; the vendor's sizes differ from version to version.
int potrf_workspace(int n) { return n + 7; }
int syevd_workspace(int n) { return 2 * n + 11; }

bool sensible(int n, int lda) { return n >= 0 && lda >= std::max(1, n); }

template <class T>
cusolverStatus_t factor(char const* call, cusolverDnHandle_t handle, cublasFillMode_t fill, int n, T* a, int lda,
                        T* workspace, int count, int* info) {
  return solver_call(call, handle, [&] {
    if (!sensible(n, lda) || count < potrf_workspace(n)) return CUSOLVER_STATUS_INVALID_VALUE;
    operand const matrix{"potrf A", a, n, n, lda, sizeof(T)};
    return submit_solver(
        handle, when_captured::recorded, workspace, sizeof(T) * static_cast<std::size_t>(count), info, [=] {
          char* const elements = matrix.read(part_of(fill));  // the other triangle stays untouched
          return elements != nullptr ? potrf(letter_of(fill), n, reinterpret_cast<T*>(elements), lda) : 0;
        });
  });
}

template <class T>
cusolverStatus_t decompose(char const* call, cusolverDnHandle_t handle, cusolverEigMode_t mode, cublasFillMode_t fill,
                           int n, T* a, int lda, T* values, T* workspace, int count, int* info) {
  return solver_call(call, handle, [&] {
    if (!sensible(n, lda) || count < syevd_workspace(n)) return CUSOLVER_STATUS_INVALID_VALUE;
    operand const matrix{"syevd A", a, n, n, lda, sizeof(T)};
    operand const spectrum{"syevd W", values, n, 1, std::max(1, n), sizeof(T)};
    return submit_solver(handle, when_captured::ends_capture, workspace, sizeof(T) * static_cast<std::size_t>(count),
                         info, [=] {
                           char *const elements = matrix.read(part_of(fill)), *const out = spectrum.reach();
                           if (elements == nullptr || out == nullptr || matrix.reach() == nullptr) return 0;
                           bool const vectors = mode == CUSOLVER_EIG_MODE_VECTOR;
                           int const status = syevd(vectors ? 'V' : 'N', letter_of(fill), n,
                                                    reinterpret_cast<T*>(elements), lda, reinterpret_cast<T*>(out));
                           spectrum.written();
                           if (vectors) matrix.written();
                           else matrix.spoiled();
                           return status;
                         });
  });
}

cusolverStatus_t size_of(char const* call, cusolverDnHandle_t handle, int n, int lda, int needed, int* count) {
  return solver_call(call, handle, [&] {
    if (!sensible(n, lda)) return CUSOLVER_STATUS_INVALID_VALUE;
    *count = needed;
    return CUSOLVER_STATUS_SUCCESS;
  });
}

}  // namespace

#define SOFTGPU_SYMMETRIC(letter, number)                                                                              \
  cusolverStatus_t cusolverDn##letter##potrf_bufferSize(cusolverDnHandle_t handle, cublasFillMode_t, int n, number*,   \
                                                        int lda, int* count) {                                         \
    return size_of("cusolverDn" #letter "potrf_bufferSize", handle, n, lda, potrf_workspace(n), count);                \
  }                                                                                                                    \
  cusolverStatus_t cusolverDn##letter##potrf(cusolverDnHandle_t handle, cublasFillMode_t fill, int n, number* a,       \
                                             int lda, number* workspace, int count, int* info) {                       \
    return factor<number>("cusolverDn" #letter "potrf", handle, fill, n, a, lda, workspace, count, info);              \
  }                                                                                                                    \
  cusolverStatus_t cusolverDn##letter##syevd_bufferSize(cusolverDnHandle_t handle, cusolverEigMode_t,                  \
                                                        cublasFillMode_t, int n, number const*, int lda,               \
                                                        number const*, int* count) {                                   \
    return size_of("cusolverDn" #letter "syevd_bufferSize", handle, n, lda, syevd_workspace(n), count);                \
  }                                                                                                                    \
  cusolverStatus_t cusolverDn##letter##syevd(cusolverDnHandle_t handle, cusolverEigMode_t mode, cublasFillMode_t fill, \
                                             int n, number* a, int lda, number* values, number* workspace, int count,  \
                                             int* info) {                                                              \
    return decompose<number>("cusolverDn" #letter "syevd", handle, mode, fill, n, a, lda, values, workspace, count,    \
                             info);                                                                                    \
  }

extern "C" {
SOFTGPU_SYMMETRIC(S, float)
SOFTGPU_SYMMETRIC(D, double)
}
