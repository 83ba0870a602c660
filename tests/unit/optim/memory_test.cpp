#include <doctest/doctest.h>

#include <tuple>
#include <vector>

#include "lowrank/lowrank.hpp"
#include "lowrank/optim/parameter_set.hpp"

namespace memory_test {

using namespace lowrank;

namespace {

/// The number `data` would be if its elements began `bytes` later.
template <class T>
[[nodiscard]] T* later(T* data, std::ptrdiff_t bytes) {
  return reinterpret_cast<T*>(reinterpret_cast<std::uintptr_t>(data) + static_cast<std::uintptr_t>(bytes));
}

}  // namespace

TEST_SUITE("memory of weights and gradients") {
  TEST_CASE("null and misaligned pointers are refused before anything is written") {
    extents const shape{12, 20};
    host_executor exec{{.threads = 1}};
    galore_adamw optimizer{.rank = 4};
    optimizer.accumulate_in = accumulation::projected;
    auto state = optimizer.init(exec, shape, 0);
    std::vector<float> w(240, 1.0F), g(240, 2.0F);
    std::vector<bf16> narrow(240);
    exec.reserve(optimizer.workspace_bytes(bf16_weight<>{row_major(narrow.data(), shape)}, 16));
    matrix_view<float const> const good = row_major(static_cast<float const*>(g.data()), shape);
    auto const step = [&](float* weight, float const* gradient) {
      optimizer.step(exec, state, row_major(weight, shape), row_major(gradient, shape), {});
    };
    CHECK_THROWS_WITH_AS(step(nullptr, g.data()),
                         "lowrank::low_rank::step: the weight has no memory: the pointer is null", argument_error);
    CHECK_THROWS_WITH_AS(step(w.data(), nullptr), doctest::Contains("the gradient has no memory"), argument_error);
    CHECK_THROWS_WITH_AS(step(later(w.data(), 2), g.data()), doctest::Contains("the weight must be aligned to 4 bytes"),
                         argument_error);
    CHECK_THROWS_WITH_AS(step(w.data(), later(g.data(), 1)), doctest::Contains("the gradient must be aligned to 4"),
                         argument_error);
    auto const narrow_step = [&](bf16* weight) {
      optimizer.step(exec, state, bf16_weight<>{row_major(weight, shape)}, good, {});
    };
    CHECK_THROWS_WITH_AS(narrow_step(later(narrow.data(), 1)), doctest::Contains("must be aligned to 2"),
                         argument_error);
    master_weight<fp16> const no_master{row_major(static_cast<fp16*>(nullptr), shape), row_major(w.data(), shape)};
    CHECK_THROWS_AS(optimizer.step(exec, state, no_master, good, {}), argument_error);
    outer_product<> const factors{row_major(static_cast<float const*>(nullptr), {16, 12}),
                                  row_major(good.data, {16, 20})};
    CHECK_THROWS_WITH_AS(optimizer.accumulate(exec, state, factors),
                         doctest::Contains("the gradient of the output has no memory"), argument_error);
    CHECK_THROWS_AS(optimizer.accumulate(exec, state, row_major(static_cast<float const*>(nullptr), shape)),
                    argument_error);
    CHECK(state.calls == 0);
    CHECK(state.micro_batches == 0);
    CHECK(state.has_basis == 0);
    CHECK(w == std::vector<float>(240, 1.0F));
    CHECK_NOTHROW(step(w.data(), g.data()));
  }

  TEST_CASE("a set looks at all gradients before it steps the first parameter") {
    host_executor exec{{.threads = 1}};
    auto const make = [](host_executor& e, extents shape, std::uint32_t id) {
      return make_optimizer(e, adamw{}, shape, id);
    };
    parameter_set<host_executor> set{{{every_parameter, make}}};
    std::vector<float> a(6, 1.0F), b(6, 1.0F), g(6, 0.5F);
    set.add(exec, "a", fp32_weight<>{row_major(a.data(), {2, 3})});
    set.add(exec, "b", fp32_weight<>{row_major(b.data(), {2, 3})});
    CHECK_THROWS_AS(set.add(exec, "c", fp32_weight<>{row_major(static_cast<float*>(nullptr), {2, 3})}), argument_error);
    CHECK(set.size() == 2);
    exec.reserve(set.workspace_bytes());
    using gradient = any_gradient<host_executor>;
    float const* const none = nullptr;
    gradient const good = row_major(static_cast<float const*>(g.data()), {2, 3}), bad = row_major(none, {2, 3});
    std::vector<gradient> const gradients{good, bad};
    CHECK_THROWS_WITH_AS(set.step(exec, gradients, {.clip_norm = 1}),
                         doctest::Contains("parameter_set::step: the gradient has no memory"), argument_error);
    CHECK(a == std::vector<float>(6, 1.0F));
  }
}

}  // namespace memory_test
