// A whole model on a device: optimizers behind one interface, clipping by the norm of all gradients, and nothing written
// where one of them cannot be meant.
#include <doctest/doctest.h>

#include "device/device_machine.cuh"
#include "lowrank/optim/parameter_set.hpp"

using namespace lowrank;

TEST_CASE("a set of parameters steps, clips and refuses on a device") {
  using gradient = any_gradient<cuda_executor>;
  lowrank_test::machine<cuda_executor> m;
  auto const makes = [](auto o) {
    return [=](cuda_executor& e, extents shape, std::uint32_t id) { return make_optimizer(e, o, shape, id); };
  };
  parameter_set<cuda_executor> set{
      {{matrices_named({"matrix"}), makes(galore_adamw{.rank = 4})}, {every_parameter, makes(adamw{})}}};
  extents const shape{16, 24};
  auto const start = lowrank_test::heavy_tailed(shape.size(), 1), ones = std::vector<float>(24, 1.0F);
  auto matrix_weight = m.upload(start), vector_weight = m.upload(ones);
  set.add(m.exec, "matrix", fp32_weight<device_space>{row_major<device_space>(matrix_weight.data(), shape)});
  set.add(m.exec, "vector", fp32_weight<device_space>{row_major<device_space>(vector_weight.data(), {1, 24})});
  m.exec.reserve(set.workspace_bytes());

  auto const values = lowrank_test::heavy_tailed(shape.size(), 2);
  auto const g = m.upload(values), h = m.upload(ones);
  double squares = 24;
  for (float const x : values) squares += static_cast<double>(x) * static_cast<double>(x);
  auto const view = [](float const* data, extents of) { return gradient{row_major<device_space>(data, of)}; };
  auto const report = set.step(m.exec, std::vector<gradient>{view(g.data(), shape), view(h.data(), {1, 24})},
                               {.learning_rate = 0.25F, .clip_norm = 1});
  CHECK(report.stepped == 2);
  CHECK(report.refreshed == 1);
  CHECK(report.gradient_norm == doctest::Approx(std::sqrt(squares)));
  auto const stepped = m.download(vector_weight.data(), 24);
  CHECK(stepped[7] == doctest::Approx(0.75));  // the first step of Adam is as long as the rate
  CHECK(m.download(matrix_weight.data(), 1)[0] != start[0]);

  auto const before = m.download(matrix_weight.data(), shape.size());
  std::vector<gradient> const bad{view(g.data(), shape), view(ones.data(), {1, 24})};
  for (double const clip_norm : {0.0, 1.0})
    CHECK_THROWS_WITH_AS(set.step(m.exec, bad, {.clip_norm = clip_norm}),
                         doctest::Contains("parameter_set::step: the gradient must be memory of a CUDA device"),
                         argument_error);
  CHECK(m.download(matrix_weight.data(), shape.size()) == before);
  index_t named = 0;
  visit_state(set, [&](std::string_view, auto const&) { ++named; });
  CHECK(named > 20);
}
