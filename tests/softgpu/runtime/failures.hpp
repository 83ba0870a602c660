// Failures on demand: tests choose a call, and the n-th of its kind from then on returns a status of theirs instead of
// doing anything.
#pragma once

#include <optional>
#include <string_view>

namespace softgpu {

/// Calls are named without _v2 and _64: "cublasSgemm". A name that ends in * means all calls that begin like this.
/// The environment says the same: SOFTGPU_FAIL="cudaMalloc*:3:2,cusolverDnSsyevd:1:7" (name, n, status).
void fail_call(std::string_view call, int nth, int status);
/// How many of the failures asked for have not happened; none is left afterwards.
int drop_failures();
/// The status that this call shall return, if any; counts the call.
std::optional<int> injected_failure(std::string_view call);
/// How often calls of this name were made.
long calls_of(std::string_view call);

}  // namespace softgpu
