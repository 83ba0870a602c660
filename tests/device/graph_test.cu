// A step that is captured once and repeated under a schedule, a NaN in the gradient of one repetition, against the same
// steps one by one: equal bits.
#include <doctest/doctest.h>

#include "device/device_machine.cuh"
#include "device/optimizer_cases.hpp"

namespace {

using lowrank::extents;
using lowrank::index_t;
using device = lowrank::device_space;
using device_machine = lowrank_test::machine<lowrank::cuda_executor>;
using lowrank_test::outcome;

constexpr index_t repetitions = 10, bad_step = 6;

float rate_of(index_t step) { return 1e-2F * (1 + std::cos(0.3F * static_cast<float>(step))); }
std::vector<float> gradient_of(extents shape, index_t step) {
  auto out = lowrank_test::gradient_of_step(shape, step);
  if (step == bad_step) out[out.size() / 3] = std::numeric_limits<float>::quiet_NaN();
  return out;
}

/// Stream, executor, weight, gradient: what both ways of stepping start from.
template <class Optimizer, class Weight>
struct run {
  Optimizer optimizer;
  extents shape;
  cudaStream_t stream;
  device_machine m;
  decltype(optimizer.init(m.exec, shape, 3)) state;
  Weight weight;
  lowrank::buffer<float, device> gradient;

  run(Optimizer const& o, extents s, cudaStream_t where)
      : optimizer{o},
        shape{s},
        stream{where},
        m{lowrank::cuda_executor{{.stream = where}}},
        state{optimizer.init(m.exec, shape, 3)},
        weight{m, shape},
        gradient{shape.size()} {
    m.exec.reserve(optimizer.workspace_bytes(weight.view()));
  }
  void step(index_t number, lowrank::step_options const& options) {
    auto const values = gradient_of(shape, number);
    lowrank_test::copy_bytes(m.exec, gradient.data(), values.data(), values.size() * sizeof(float));
    step_on_what_is_there(options);
  }
  void step_on_what_is_there(lowrank::step_options const& options) {
    std::ignore = optimizer.step(m.exec, state, weight.view(),
                                 lowrank::row_major<device>(std::as_const(gradient).data(), shape), options);
  }
  [[nodiscard]] outcome result() {
    outcome out;
    weight.keep(m, out);
    visit_state(state, [&]<class V>(std::string_view name, V&& value) {
      if constexpr (lowrank::state_memory<std::remove_cvref_t<V>>)
        m.keep(out, std::string{name}, value.data(), value.size());
    });
    return out;
  }
};

struct fp32_memory {
  lowrank::buffer<float, device> values;
  extents shape;

  fp32_memory(device_machine& m, extents s)
      : values{m.upload(lowrank_test::heavy_tailed(s.size(), 5, 0.1F))}, shape{s} {}
  [[nodiscard]] auto view() { return lowrank::fp32_weight<device>{lowrank::row_major<device>(values.data(), shape)}; }
  void keep(device_machine& m, outcome& out) { m.keep(out, "weight", values); }
};
struct bf16_memory {
  lowrank::buffer<lowrank::bf16, device> values;
  extents shape;

  bf16_memory(device_machine& m, extents s) : values{s.size()}, shape{s} {
    auto const wide = m.upload(lowrank_test::heavy_tailed(s.size(), 5, 0.1F));
    lowrank::convert(m.exec, lowrank::row_major<device>(wide.data(), s), view().values);
    m.exec.synchronize();
  }
  [[nodiscard]] lowrank::bf16_weight<device> view() { return {lowrank::row_major<device>(values.data(), shape)}; }
  void keep(device_machine& m, outcome& out) {
    m.keep(out, "weight", reinterpret_cast<std::uint16_t const*>(values.data()), values.size());
  }
};
struct int8_memory {
  lowrank::blockwise<lowrank::codec::affine<8>, 256, device> codes;
  extents shape;

  int8_memory(device_machine& m, extents s) : codes{{1, s.size()}}, shape{s} {
    auto const wide = m.upload(lowrank_test::heavy_tailed(s.size(), 5, 0.1F));
    lowrank::quantize(m.exec, wide.data(), codes.view());
    m.exec.synchronize();
  }
  [[nodiscard]] auto view() { return lowrank::as_weight(codes, shape); }
  void keep(device_machine& m, outcome& out) {
    visit_state(codes, [&](std::string_view name, auto& memory) {
      m.keep(out, "weight " + std::string{name}, memory.data(), memory.size());
    });
  }
};

template <class Weight, class Optimizer>
void check_replay(std::string const& name, Optimizer const& optimizer) {
  CAPTURE(name);
  extents const shape{64, 96};
  cudaStream_t stream{};
  REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  outcome one_by_one, replayed;
  std::uint32_t decisions = 0;
  {
    run<Optimizer, Weight> r{optimizer, shape, stream};
    r.step(0, {.learning_rate = rate_of(0)});
    auto const before = r.result();
    for (index_t step = 1; step <= repetitions; ++step)
      r.step(step, {.learning_rate = rate_of(step), .weight_decay = 0.1F, .grad_scale = 0.5F});
    one_by_one = r.result();
    CHECK(one_by_one != before);
    decisions = static_cast<std::uint32_t>(r.state.calls);
  }
  {
    run<Optimizer, Weight> r{optimizer, shape, stream};
    r.step(0, {.learning_rate = rate_of(0)});
    lowrank::buffer<lowrank::live_options, device> live{1};
    lowrank::step_options const options{.live = live.data()};
    cudaGraph_t graph{};
    cudaGraphExec_t runnable{};
    REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    r.step_on_what_is_there(options);
    REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    REQUIRE(cudaGraphInstantiate(&runnable, graph, 0) == cudaSuccess);
    for (index_t step = 1; step <= repetitions; ++step) {
      auto const values = gradient_of(shape, step);
      lowrank_test::copy_bytes(r.m.exec, r.gradient.data(), values.data(), values.size() * sizeof(float));
      lowrank::live_options const now{rate_of(step), 0.1F, 0.5F, static_cast<std::uint32_t>(step - 1)};
      lowrank_test::copy_bytes(r.m.exec, live.data(), &now, sizeof now);
      REQUIRE(cudaGraphLaunch(runnable, stream) == cudaSuccess);
      // The step itself was counted when it was captured.
      if (step > 1) r.optimizer.advance(r.state, 1);
      auto const expected =
          step == bad_step ? lowrank::step_status::skipped_bad_gradient : lowrank::step_status::stepped;
      CHECK(r.optimizer.status(r.m.exec, r.state) == expected);
    }
    replayed = r.result();
    CHECK(static_cast<std::uint32_t>(r.state.calls) == decisions);
    cudaGraphExecDestroy(runnable);
    cudaGraphDestroy(graph);
  }
  for (auto const& [what, bytes] : one_by_one) {
    CAPTURE(what);
    CHECK(bytes == replayed.at(what));
  }
  cudaStreamDestroy(stream);
}

template <class Optimizer>
Optimizer of_rank_8(Optimizer optimizer) {
  optimizer.rank = 8;
  return optimizer;
}

}  // namespace

TEST_CASE("a captured step, repeated under a schedule, equals the steps one by one") {
  using namespace lowrank;  // NOLINT(google-build-using-namespace)
  check_replay<fp32_memory>("galore_adamw", of_rank_8(galore_adamw{}));
  check_replay<bf16_memory>("galore_adamw on bf16", of_rank_8(galore_adamw{}));
  check_replay<int8_memory>("q_galore_adamw_8bit on int8",
                            of_rank_8(compose<rule::adam_8bit, basis::randomized, format::int4>{}));
  check_replay<fp32_memory>("adamw", adamw{});
  check_replay<bf16_memory>("adamw_8bit on bf16", adamw_8bit{});
}

TEST_CASE("a step that would wait cannot be captured, and says so before anything happens") {
  extents const shape{64, 96};
  cudaStream_t stream{};
  REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  {
    run<lowrank::galore_adamw, fp32_memory> r{of_rank_8(lowrank::galore_adamw{}), shape, stream};
    auto const before = r.result();
    cudaGraph_t graph{};
    REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    CHECK_THROWS_AS(r.step_on_what_is_there({}), lowrank::state_error);
    REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    cudaGraphDestroy(graph);
    CHECK(r.state.calls == 0);
    CHECK(r.result() == before);
  }
  cudaStreamDestroy(stream);
}
