// Singular values and QR factors of matrices with at least as many rows as columns.
#include <cusolverDn.h>

#include <algorithm>
#include <string_view>

#include "cusolver/handle.hpp"
#include "cusolver/lapack.hpp"
#include "operand.hpp"

using namespace softgpu;

namespace {

// What the calls here claim to need; the vendor's sizes differ from version to version.
int gesvd_workspace(int m, int n) { return 4 * (m + n) + 13; }
int geqrf_workspace(int n) { return 32 * n + 5; }
int orgqr_workspace(int n) { return 32 * n + 9; }

template <class T>
T* elements_of(char* pointer) {
  return reinterpret_cast<T*>(pointer);
}

template <class T>
cusolverStatus_t decompose(char const* call, cusolverDnHandle_t handle, char job_u, char job_vt, int m, int n, T* a,
                           int lda, T* values, T* u, int ldu, T* vt, int ldvt, T* workspace, int count, int* info) {
  return solver_call(call, handle, [&] {
    constexpr std::string_view jobs = "ASON";
    bool const wants_u = job_u == 'A' || job_u == 'S', wants_vt = job_vt == 'A' || job_vt == 'S';
    if (n < 0 || m < n || lda < std::max(1, m) || jobs.find(job_u) == jobs.npos || jobs.find(job_vt) == jobs.npos ||
        (job_u == 'O' && job_vt == 'O') || (wants_u && ldu < std::max(1, m)) || (wants_vt && ldvt < std::max(1, n)) ||
        count < gesvd_workspace(m, n))
      return CUSOLVER_STATUS_INVALID_VALUE;
    operand const matrix{"gesvd A", a, m, n, lda, sizeof(T)};
    operand const spectrum{"gesvd S", values, n, 1, std::max(1, n), sizeof(T)};
    operand const left{"gesvd U", u, wants_u ? m : 0, job_u == 'A' ? m : n, ldu, sizeof(T)};
    operand const right{"gesvd VT", vt, wants_vt ? n : 0, n, ldvt, sizeof(T)};
    return submit_solver(
        handle, when_captured::fails, workspace, sizeof(T) * static_cast<std::size_t>(count), info, [=] {
          char *const in = matrix.read(), *const s = spectrum.reach();
          char *const out_u = wants_u ? left.reach() : in, *const out_vt = wants_vt ? right.reach() : in;
          if (in == nullptr || s == nullptr || out_u == nullptr || out_vt == nullptr) return 0;
          int const status =
              gesvd<T>(job_u, job_vt, m, n, elements_of<T>(in), lda, elements_of<T>(s), elements_of<T>(out_u),
                       wants_u ? ldu : m, elements_of<T>(out_vt), wants_vt ? ldvt : n);
          spectrum.written();
          left.written();
          right.written();
          if (job_u != 'O' && job_vt != 'O') matrix.spoiled();
          return status;
        });
  });
}

template <class T>
cusolverStatus_t factor(char const* call, cusolverDnHandle_t handle, int m, int n, T* a, int lda, T* tau, T* workspace,
                        int count, int* info) {
  return solver_call(call, handle, [&] {
    if (m < 0 || n < 0 || lda < std::max(1, m) || count < geqrf_workspace(n)) return CUSOLVER_STATUS_INVALID_VALUE;
    operand const matrix{"geqrf A", a, m, n, lda, sizeof(T)};
    operand const scales{"geqrf TAU", tau, std::min(m, n), 1, std::max(1, std::min(m, n)), sizeof(T)};
    return submit_solver(handle, when_captured::recorded, workspace, sizeof(T) * static_cast<std::size_t>(count), info,
                         [=] {
                           char *const elements = matrix.read(), *const out = scales.reach();
                           if (elements == nullptr || out == nullptr) return 0;
                           int const status = geqrf<T>(m, n, elements_of<T>(elements), lda, elements_of<T>(out));
                           scales.written();
                           return status;
                         });
  });
}

template <class T>
cusolverStatus_t form(char const* call, cusolverDnHandle_t handle, int m, int n, int k, T* a, int lda, T const* tau,
                      T* workspace, int count, int* info) {
  return solver_call(call, handle, [&] {
    if (n < 0 || m < n || k < 0 || k > n || lda < std::max(1, m) || count < orgqr_workspace(n))
      return CUSOLVER_STATUS_INVALID_VALUE;
    operand const matrix{"orgqr A", a, m, n, lda, sizeof(T)};
    operand const reflectors{"orgqr A", a, m, k, lda, sizeof(T)};
    operand const scales{"orgqr TAU", tau, k, 1, std::max(1, k), sizeof(T)};
    return submit_solver(handle, when_captured::recorded, workspace, sizeof(T) * static_cast<std::size_t>(count), info,
                         [=] {
                           char *const elements = matrix.reach(), *const in = scales.read();
                           if (elements == nullptr || in == nullptr || reflectors.read() == nullptr) return 0;
                           int const status = orgqr<T>(m, n, k, elements_of<T>(elements), lda, elements_of<T>(in));
                           matrix.written();
                           return status;
                         });
  });
}

cusolverStatus_t size_of(char const* call, cusolverDnHandle_t handle, bool sensible, int needed, int* count) {
  return solver_call(call, handle, [&] {
    if (!sensible) return CUSOLVER_STATUS_INVALID_VALUE;
    *count = needed;
    return CUSOLVER_STATUS_SUCCESS;
  });
}

}  // namespace

#define SOFTGPU_RECTANGULAR(letter, number)                                                                            \
  cusolverStatus_t cusolverDn##letter##gesvd_bufferSize(cusolverDnHandle_t handle, int m, int n, int* count) {         \
    return size_of("cusolverDn" #letter "gesvd_bufferSize", handle, n >= 0 && m >= n, gesvd_workspace(m, n), count);   \
  }                                                                                                                    \
  cusolverStatus_t cusolverDn##letter##gesvd(cusolverDnHandle_t handle, signed char job_u, signed char job_vt, int m,  \
                                             int n, number* a, int lda, number* values, number* u, int ldu,            \
                                             number* vt, int ldvt, number* workspace, int count, number*, int* info) { \
    return decompose<number>("cusolverDn" #letter "gesvd", handle, static_cast<char>(job_u),                           \
                             static_cast<char>(job_vt), m, n, a, lda, values, u, ldu, vt, ldvt, workspace, count,      \
                             info);                                                                                    \
  }                                                                                                                    \
  cusolverStatus_t cusolverDn##letter##geqrf_bufferSize(cusolverDnHandle_t handle, int m, int n, number*, int lda,     \
                                                        int* count) {                                                  \
    return size_of("cusolverDn" #letter "geqrf_bufferSize", handle, m >= 0 && n >= 0 && lda >= std::max(1, m),         \
                   geqrf_workspace(n), count);                                                                         \
  }                                                                                                                    \
  cusolverStatus_t cusolverDn##letter##geqrf(cusolverDnHandle_t handle, int m, int n, number* a, int lda, number* tau, \
                                             number* workspace, int count, int* info) {                                \
    return factor<number>("cusolverDn" #letter "geqrf", handle, m, n, a, lda, tau, workspace, count, info);            \
  }                                                                                                                    \
  cusolverStatus_t cusolverDn##letter##orgqr_bufferSize(cusolverDnHandle_t handle, int m, int n, int k, number const*, \
                                                        int lda, number const*, int* count) {                          \
    return size_of("cusolverDn" #letter "orgqr_bufferSize", handle,                                                    \
                   n >= 0 && m >= n && k >= 0 && k <= n && lda >= std::max(1, m), orgqr_workspace(n), count);          \
  }                                                                                                                    \
  cusolverStatus_t cusolverDn##letter##orgqr(cusolverDnHandle_t handle, int m, int n, int k, number* a, int lda,       \
                                             number const* tau, number* workspace, int count, int* info) {             \
    return form<number>("cusolverDn" #letter "orgqr", handle, m, n, k, a, lda, tau, workspace, count, info);           \
  }

extern "C" {
SOFTGPU_RECTANGULAR(S, float)
SOFTGPU_RECTANGULAR(D, double)
}
