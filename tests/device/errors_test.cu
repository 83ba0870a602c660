// What is wrong is said by a typed error that names the call and its code, before state and weight are touched; and
// nothing is kept of what was begun.
#include <doctest/doctest.h>

#include <tuple>
#include <utility>

#include "device/device_machine.cuh"
#include "softgpu/softgpu.hpp"
#include "support/messages.hpp"

using namespace lowrank;
using softgpu::test::failing_call;

namespace {

using device = lowrank_test::machine<cuda_executor>;
using bytes = std::vector<std::byte>;

/// One 24 x 40 weight with its gradient and the state of its optimizer, after one good step.
template <class Optimizer>
struct trained {
  static constexpr extents shape{24, 40};
  using weight_type = bf16_weight<device_space>;

  device& m;
  Optimizer optimizer;
  typename Optimizer::template state<device_space> state;
  buffer<bf16, device_space> weight;
  buffer<float, device_space> gradient;

  explicit trained(device& its_machine, Optimizer o = {})
      : m{its_machine}, optimizer{o}, state{o.init(m.exec, shape, 0)} {
    auto const values = lowrank_test::heavy_tailed(shape.size(), 3);
    gradient = m.upload(values);
    std::vector<bf16> narrow;
    for (float const x : values) narrow.push_back(to_bf16(0.1F * x));
    weight = m.upload(narrow);
    m.exec.reserve(optimizer.workspace_bytes(weight_type{weights()}));
    step();
  }
  [[nodiscard]] matrix_view<bf16, device_space> weights() { return row_major<device_space>(weight.data(), shape); }
  [[nodiscard]] matrix_view<float const, device_space> gradients() const {
    return row_major<device_space>(gradient.data(), shape);
  }
  void step(matrix_view<bf16, device_space> w, matrix_view<float const, device_space> g) {
    optimizer.step(m.exec, state, weight_type{w}, g, {.learning_rate = 1e-2F});
  }
  void step() { step(weights(), gradients()); }

  [[nodiscard]] bytes weight_bytes() {
    auto const values = m.download(weight.data(), weight.size());
    auto const* const begin = reinterpret_cast<std::byte const*>(values.data());
    return {begin, begin + values.size() * sizeof(bf16)};
  }
  /// Everything that a checkpoint would hold.
  [[nodiscard]] bytes state_bytes() {
    bytes out;
    for (auto const& part : detail::memory_of(state)) {
      bytes one(part.bytes);
      if (part.buffered) lowrank_test::copy_bytes(m.exec, one.data(), part.data, part.bytes);
      else std::memcpy(one.data(), part.data, part.bytes);
      out.insert(out.end(), one.begin(), one.end());
    }
    return out;
  }
};

/// Code and text of a cuda_error; 0 where there was none.
template <class F>
[[nodiscard]] std::pair<int, std::string> cuda_refusal(F const& f) {
  try {
    f();
  } catch (cuda_error const& e) { return {e.code, e.what()}; }
  return {0, ""};
}
[[nodiscard]] bool says(std::string const& text, std::string const& part) {
  return text.find(part) != std::string::npos;
}

galore_adamw refreshing(index_t period) {
  galore_adamw out{.rank = 4};
  out.refresh.period = period;
  return out;
}

}  // namespace

TEST_CASE("pointers that cannot be meant are refused before anything is launched") {
  auto const refuse = [](auto& t) {
    using narrow = matrix_view<bf16, device_space>;
    using wide = matrix_view<float const, device_space>;
    auto const state = t.state_bytes(), weight = t.weight_bytes();
    long const launches = softgpu::test::calls("cudaLaunchKernel");
    auto const with = [&](void const* w, void const* g) {
      narrow weights = t.weights();
      wide gradients = t.gradients();
      if (w != nullptr) weights.data = static_cast<bf16*>(const_cast<void*>(w));
      if (g != nullptr) gradients.data = static_cast<float const*>(g);
      return message_of<error>([&] { t.step(weights, gradients); });
    };
    auto const* const own_weight = reinterpret_cast<std::byte const*>(t.weight.data());
    auto const* const own_gradient = reinterpret_cast<std::byte const*>(t.gradient.data());
    CHECK(says(with(own_weight + 1, nullptr), "step: the weight must be aligned to 2 bytes"));
    CHECK(says(with(nullptr, own_gradient + 2), "step: the gradient must be aligned to 4 bytes"));
    narrow no_weight = t.weights();
    no_weight.data = nullptr;
    wide no_gradient = t.gradients();
    no_gradient.data = nullptr;
    CHECK(says(message_of<error>([&] { t.step(no_weight, t.gradients()); }), "step: the weight has no memory"));
    CHECK(says(message_of<error>([&] { t.step(t.weights(), no_gradient); }), "step: the gradient has no memory"));

    std::vector<float> on_host(static_cast<std::size_t>(t.shape.size()));
    CHECK(says(with(on_host.data(), nullptr), "step: the weight must be memory of a CUDA device; no device knows"));
    CHECK(says(with(nullptr, on_host.data()), "step: the gradient must be memory of a CUDA device; no device knows"));
    void* pinned = nullptr;
    REQUIRE(cudaMallocHost(&pinned, on_host.size() * sizeof(float)) == cudaSuccess);
    CHECK(says(with(nullptr, pinned), "step: the gradient must be memory of device 0; pinned memory of the host"));
    REQUIRE(cudaFreeHost(pinned) == cudaSuccess);
    void* gone = nullptr;
    REQUIRE(cudaMalloc(&gone, on_host.size() * sizeof(float)) == cudaSuccess);
    REQUIRE(cudaFree(gone) == cudaSuccess);
    CHECK(says(with(nullptr, gone), "no device knows the pointer"));

    CHECK(softgpu::test::calls("cudaLaunchKernel") == launches);
    CHECK(t.state_bytes() == state);
    CHECK(t.weight_bytes() == weight);
    CHECK_NOTHROW(t.step());
  };
  device m;
  trained<adamw> full{m};
  trained<galore_adamw> low{m, refreshing(100)};
  refuse(full);
  refuse(low);
}

TEST_CASE("memory of another device is refused, managed memory is anybody's") {
  int here = 0;
  auto const asked = [&](cudaMemoryType type, int device) {
    cudaPointerAttributes found{};
    found.type = type, found.device = device;
    return message_of<error>([&] { detail::require_memory_of(1, found, &here, "step", "the weight"); });
  };
  CHECK(says(asked(cudaMemoryTypeDevice, 0), "the weight must be memory of device 1; that at 0x"));
  CHECK(says(asked(cudaMemoryTypeDevice, 0), " is of device 0"));
  CHECK(asked(cudaMemoryTypeDevice, 1).empty());
  CHECK(asked(cudaMemoryTypeManaged, 0).empty());
}

TEST_CASE("an executor that cannot be made says why and keeps nothing") {
  CHECK(says(message_of<error>([] { cuda_executor exec{{.library_bytes = 1 << 20}}; }),
             "library_bytes must be at least"));
  CHECK(
      says(message_of<error>([] { cuda_executor exec{{.scratch_bytes = -1}}; }), "scratch_bytes must not be negative"));
  std::vector<std::byte> on_host(4096);
  CHECK(says(message_of<error>([&] { cuda_executor exec{{.scratch_bytes = 64, .scratch = on_host.data()}}; }),
             "cuda_executor: scratch must be memory of a CUDA device"));
  if (!softgpu::test::present()) return;  // a real device fails when it likes

  long const before = softgpu::test::live_objects();
  struct failure {
    char const* call;
    int nth, status;
    char const* text;
  };
  for (auto const& f :
       {failure{"cudaMalloc", 1, 2, "cudaMalloc failed with cudaErrorMemoryAllocation (2)"},
        failure{"cudaMalloc", 2, 2, "(4096 bytes)"}, failure{"cudaMemset", 1, 719, "cudaMemset failed with "},
        failure{"cudaGetDevice", 1, 101, "cudaGetDevice failed with cudaErrorInvalidDevice (101)"},
        failure{"cudaDeviceGetAttribute", 2, 1, "cudaDeviceGetAttribute failed with cudaErrorInvalidValue (1)"},
        failure{"cublasCreate", 1, 3, "cublasCreate failed with status 3"},
        failure{"cublasSetStream", 1, 1, "cublasSetStream failed with status 1"},
        failure{"cublasSetMathMode", 1, 7, "cublasSetMathMode failed with status 7"},
        failure{"cublasSetWorkspace", 1, 7, "cublasSetWorkspace failed with status 7"},
        failure{"cusolverDnCreate", 1, 1, "cusolverDnCreate failed with status 1"},
        failure{"cusolverDnSetStream", 1, 1, "cusolverDnSetStream failed with status 1"}}) {
    CAPTURE(f.call);
    failing_call const failing{f.call, f.nth, f.status};
    auto const [code, text] = cuda_refusal([] { cuda_executor exec{{.scratch_bytes = 4096}}; });
    CHECK(code == f.status);
    CHECK_MESSAGE(says(text, f.text), text);
    CHECK(softgpu::test::live_objects() == before);
  }
}

TEST_CASE("memory that cannot be had: state, scratch and solver") {
  if (!softgpu::test::present()) return;
  device m;
  galore_adamw const optimizer{.rank = 4};
  long const before = softgpu::test::live_objects();
  int refused = 0;
  for (int nth = 1; nth < 20; ++nth) {
    failing_call const failing{"cudaMalloc", nth, 2};
    try {
      auto const state = optimizer.init(m.exec, {24, 40}, 0);
      break;
    } catch (cuda_bad_alloc const& e) {
      ++refused;
      CHECK(e.code == 2);
      CHECK(says(e.what(), " bytes)"));
    }
    CHECK(softgpu::test::live_objects() == before);
  }
  CHECK(refused >= 4);  // basis, two moments, record
  {
    m.exec.reserve(1000);
    failing_call const failing{"cudaMalloc", 1, 2};
    CHECK_THROWS_AS(m.exec.reserve(2000), cuda_bad_alloc);
    CHECK(m.exec.arena().reserved() == 0);
    CHECK_THROWS_AS(std::ignore = m.exec.arena().take<float>(1), state_error);
  }
  m.exec.reserve(2000);
  CHECK(m.exec.arena().available() >= 2000);
  {
    failing_call const failing{"cudaMalloc", 1, 2};
    CHECK_THROWS_AS(std::ignore = m.exec.solver_memory(1 << 20), cuda_bad_alloc);
  }
  CHECK(m.exec.solver_memory(1 << 20) != nullptr);
}

TEST_CASE("a device that has failed before is not given any work") {
  if (!softgpu::test::present()) return;
  device m;
  trained<galore_adamw> t{m, refreshing(1)};
  auto const state = t.state_bytes(), weight = t.weight_bytes();
  {
    failing_call const failing{"cudaMemsetAsync", 1, 700};
    static_cast<void>(cudaMemsetAsync(t.gradient.data(), 0, 4, t.m.exec.stream()));
  }
  long const launches = softgpu::test::calls("cudaLaunchKernel");
  auto const [code, text] = cuda_refusal([&] { t.step(); });
  CHECK(code == 700);
  CHECK_MESSAGE(says(text, "a CUDA call before this one failed with cudaErrorIllegalAddress (700)"), text);
  CHECK(softgpu::test::calls("cudaLaunchKernel") == launches);
  static_cast<void>(cudaGetLastError());
  CHECK(t.state_bytes() == state);
  CHECK(t.weight_bytes() == weight);
  {
    failing_call const failing{"cudaPointerGetAttributes", 1, 719};
    CHECK(cuda_refusal([&] { t.step(); }).first == 719);
  }
  {
    failing_call const failing{"cudaStreamSynchronize", 1, 719};
    CHECK(says(cuda_refusal([&] { t.m.exec.synchronize(); }).second, "cudaStreamSynchronize failed with "));
  }
  CHECK(t.state_bytes() == state);
}

TEST_CASE("any call of a step can fail: the weight keeps its bits, and until the rule runs nothing has happened") {
  if (!softgpu::test::present()) return;
  device m;  // one for all: it has to be good after every failure
  auto const fail_each = [&](auto const& optimizer, std::string const& call, int status, int stride = 1) {
    trained clean{m, optimizer};
    auto const before = clean.weight_bytes();
    clean.step();
    int failures = 0, traceless = 0;
    for (int nth = 1;; nth += stride) {
      CAPTURE(call);
      CAPTURE(nth);
      trained t{m, optimizer};
      long const live = softgpu::test::live_objects();
      std::pair<int, std::string> refused;
      {
        failing_call const failing{call.c_str(), nth, status};
        refused = cuda_refusal([&] { t.step(); });
      }
      if (refused.first == 0) break;
      ++failures;
      CHECK(refused.first == status);
      CHECK_MESSAGE(says(refused.second, " failed with "), refused.second);
      CHECK(softgpu::test::live_objects() == live);
      CHECK(t.weight_bytes() == before);
      CHECK_NOTHROW(t.step());
      bool const same = t.weight_bytes() == clean.weight_bytes() && t.state_bytes() == clean.state_bytes();
      if (same) CHECK(traceless == failures - 1);  // once the rule has run, it has
      traceless += same ? 1 : 0;
    }
    CHECK(failures > 0);
    return std::pair{failures, traceless};
  };
  galore_adamw const without = refreshing(100), with = refreshing(1);
  auto const [products, products_before] = fail_each(without, "cublasSgemm", 13);
  CHECK(products == 2);  // projection and lift
  CHECK(products_before == 1);
  auto const [calls, calls_before] = fail_each(with, "cublas*", 13);
  CHECK(calls_before == calls - 2);  // the lift, and that its factors are on the device
  auto const [solves, solves_before] = fail_each(with, "cusolverDn*", 7);
  CHECK(solves_before == solves);
  auto const [looks, looks_before] = fail_each(with, "cudaMemcpyAsync", 719);
  CHECK(looks_before == looks);
  for (auto const& [optimizer, stride] : {std::pair{without, 1}, std::pair{with, 7}}) {
    auto const [launches, launches_before] = fail_each(optimizer, "cudaLaunchKernel", 701, stride);
    CHECK(launches_before >= launches - 4);  // what follows the rule's first kernel
  }
  auto const [of_adamw, of_adamw_before] = fail_each(adamw{}, "cudaLaunchKernel", 701);
  CHECK(of_adamw_before >= 2);
  CHECK(of_adamw > of_adamw_before);
}
