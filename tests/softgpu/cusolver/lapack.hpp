// LAPACK by the type of its numbers. Workspaces are LAPACK's own: those of cuSOLVER's calls are another size.
#pragma once

#include <lapacke.h>

#include <vector>

namespace softgpu {

template <class T, class Single, class Double>
constexpr auto of_type(Single single_precision, Double double_precision) {
  if constexpr (sizeof(T) == sizeof(float)) return single_precision;
  else return double_precision;
}

/// call(workspace, count) twice: count = -1 asks for the size.
template <class T, class Call>
int with_lapack_workspace(Call const& call) {
  T best{};
  if (int const status = call(&best, -1); status != 0) return status;
  std::vector<T> workspace(static_cast<std::size_t>(best) + 1);
  return call(workspace.data(), static_cast<lapack_int>(workspace.size()));
}

template <class T>
int potrf(char part, int n, T* a, int lda) {
  return of_type<T>(LAPACKE_spotrf_work, LAPACKE_dpotrf_work)(LAPACK_COL_MAJOR, part, n, a, lda);
}

template <class T>
int syevd(char job, char part, int n, T* a, int lda, T* values) {
  constexpr auto call = of_type<T>(LAPACKE_ssyevd_work, LAPACKE_dsyevd_work);
  T best{};
  lapack_int best_integers = 0;
  call(LAPACK_COL_MAJOR, job, part, n, a, lda, values, &best, -1, &best_integers, -1);
  std::vector<T> workspace(static_cast<std::size_t>(best) + 1);
  std::vector<lapack_int> integers(static_cast<std::size_t>(best_integers) + 1);
  return call(LAPACK_COL_MAJOR, job, part, n, a, lda, values, workspace.data(),
              static_cast<lapack_int>(workspace.size()), integers.data(), static_cast<lapack_int>(integers.size()));
}

template <class T>
int gesvd(char job_u, char job_vt, int m, int n, T* a, int lda, T* values, T* u, int ldu, T* vt, int ldvt) {
  return with_lapack_workspace<T>([&](T* workspace, lapack_int count) {
    return of_type<T>(LAPACKE_sgesvd_work, LAPACKE_dgesvd_work)(LAPACK_COL_MAJOR, job_u, job_vt, m, n, a, lda, values,
                                                                u, ldu, vt, ldvt, workspace, count);
  });
}

template <class T>
int geqrf(int m, int n, T* a, int lda, T* tau) {
  return with_lapack_workspace<T>([&](T* workspace, lapack_int count) {
    return of_type<T>(LAPACKE_sgeqrf_work, LAPACKE_dgeqrf_work)(LAPACK_COL_MAJOR, m, n, a, lda, tau, workspace, count);
  });
}

template <class T>
int orgqr(int m, int n, int k, T* a, int lda, T const* tau) {
  return with_lapack_workspace<T>([&](T* workspace, lapack_int count) {
    return of_type<T>(LAPACKE_sorgqr_work, LAPACKE_dorgqr_work)(LAPACK_COL_MAJOR, m, n, k, a, lda, tau, workspace,
                                                                count);
  });
}

}  // namespace softgpu
