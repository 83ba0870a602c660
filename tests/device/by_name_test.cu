// Every optimizer that has a name, on a device: what the host makes of the same options, within rounding, and a state that a
// checkpoint holds. What runs on the host is compiled elsewhere (support/named_optimizers.cpp).
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "device/device_machine.cuh"
#include "lowrank/io/checkpoint.hpp"
#include "lowrank/linalg/cuda/decompositions.cuh"
#include "support/named_optimizers.hpp"
#include "unit/io/temporary_folder.hpp"

using namespace lowrank;
using lowrank_test::heavy_tailed;

namespace {

constexpr extents shape{64, 96};  // moments of 4096 numbers at least are kept in codes
constexpr index_t steps = 6;

[[nodiscard]] std::vector<float> gradient_values(index_t step) {
  return heavy_tailed(shape.size(), static_cast<unsigned>(100 + step));
}

/// One weight of a machine with the optimizer of a name.
template <class M>
struct trained {
  using executor = typename M::executor;
  using space = typename M::space;

  M& m;
  std::unique_ptr<matrix_optimizer<executor>> optimizer;
  float decay;
  buffer<float, space> weight{m.upload(heavy_tailed(shape.size(), 5, 0.1F))};

  trained(M& its_machine, named_optimizer<executor> const& named)
      : m{its_machine}, optimizer{named.make(m.exec, shape, 3)}, decay{named.weight_decay} {}

  void step(index_t number) {
    auto const g = m.upload(gradient_values(number));
    any_weight<executor> const view{fp32_weight<space>{row_major<space>(weight.data(), shape)}};
    m.exec.reserve(optimizer->workspace_bytes(view, 0));
    matrix_view<float const, space> const gradient = row_major<space>(g.data(), shape);
    std::ignore = optimizer->step(m.exec, view, gradient, {.learning_rate = 0.01F, .weight_decay = decay});
  }
  [[nodiscard]] std::vector<float> weights() { return m.download(weight.data(), shape.size()); }
};
using host = lowrank_test::machine<host_executor>;
using device = lowrank_test::machine<cuda_executor>;

[[nodiscard]] named_optimizer<cuda_executor> on_device(std::string const& name, std::string const& options) {
  return by_name<cuda_executor>(
      name, option_list{options},
      {.exact_svd = [](cuda_executor& exec, matrix_view<float const, device_space> a,
                       svd_output<device_space> const& out) { return exact_svd(exec, a, out); }});
}

/// The largest difference in units of the longest way that a weight has come.
[[nodiscard]] double apart(std::vector<float> const& a, std::vector<float> const& b, std::vector<float> const& start) {
  double most = 0, way = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    most = std::max(most, std::abs(double{a[i]} - double{b[i]}));
    way = std::max(way, std::abs(double{a[i]} - double{start[i]}));
  }
  return way > 0 ? most / way : 1;
}

}  // namespace

TEST_CASE("every name and every finder steps as on the host, and resumes bit for bit") {
  struct configuration {
    std::string name, options;
  };
  std::vector<configuration> all{
      {"galore_adamw", "rank=8, update_proj_gap=3, finder=warm, transport=rotate, basis_format=bf16, weight_decay=0.1"},
      {"galore_adamw", "rank=8, update_proj_gap=3, finder=tracked, accumulate=none, measure=every_step"},
      {"galore_adamw", "rank=8, update_proj_gap=3, finder=svd, refresh=staggered"},
      {"galore_adamw", "rank=8, update_proj_gap=3, finder=stiefel, basis_format=int8, transport=reset"},
      {"galore_sgd", "rank=8, proj_type=full, update_proj_gap=3, momentum=0.9"},
      {"galore_adamw", "rank=16, update_proj_gap=2, energy_rank=0.6, least_rank=1, rank_multiple=1"},
      {"galore_adafactor", "rank=8, proj_type=right, refresh=energy, settle=1, tolerance=0.01, longest_gap=3"},
      {"adafactor", "beta1=0.9, scale_parameter=True, weight_decay=0.1"}};
  for (auto const name : known_optimizers())
    all.push_back(
        {std::string{name}, name.find("galore") != std::string_view::npos ? "rank=8, update_proj_gap=3" : ""});
  host h;
  device d;
  auto const start = heavy_tailed(shape.size(), 5, 0.1F);
  temporary_folder const folder;
  for (auto const& [name, options] : all) {
    CAPTURE(name);
    CAPTURE(options);
    trained<host> expected{h, lowrank_test::named(name, options)};
    trained<device> found{d, on_device(name, options)}, resumed{d, on_device(name, options)};
    for (index_t k = 0; k < steps; ++k) {
      expected.step(k), found.step(k);
      if (k >= 4) resumed.step(k);
      if (k != 3) continue;
      checkpoint_writer writer;
      writer.add(d.exec, "w", *found.optimizer);
      writer.write(folder / "c");
      checkpoint_reader file{folder / "c"};
      file.load(d.exec, "w", *resumed.optimizer);
      file.require_all_read();
      lowrank_test::copy_bytes(d.exec, resumed.weight.data(), found.weight.data(), found.weight.bytes());
    }
    CHECK(apart(expected.weights(), found.weights(), start) < 3e-4);
    CHECK(found.weights() == resumed.weights());
    CHECK(found.optimizer->bytes() == expected.optimizer->bytes());
    CHECK(found.optimizer->rank() == expected.optimizer->rank());
  }
}

TEST_CASE("a basis that is given lies on the device") {
  host h;
  device d;
  auto const named = [&](float const* data) {
    by_name_context<cuda_executor> context;
    context.bases.source = [=](index_t, side facing) {
      return facing == side::left ? row_major<device_space>(data, {shape.rows, 8})
                                  : row_major<device_space>(data, {shape.cols, 8});
    };
    return by_name<cuda_executor>("galore_adamw", option_list{"rank=8, finder=given"}, context);
  };
  std::vector<float> columns(static_cast<std::size_t>(shape.rows * 8));
  for (std::size_t k = 0; k < 8; ++k) columns[k * 8 + k] = 1;
  auto const there = d.upload(columns);
  trained<device> good{d, named(there.data())}, bad{d, named(columns.data())};
  auto const before = good.weights();
  good.step(0);
  auto const after = good.weights();
  // Only the first eight rows are in the subspace, whichever side it is on.
  CHECK(after[5] != before[5]);
  CHECK(after[static_cast<std::size_t>(20 * shape.cols)] == before[static_cast<std::size_t>(20 * shape.cols)]);
  CHECK_THROWS_WITH_AS(bad.step(0), doctest::Contains("basis::given: the basis must be memory of a CUDA device"),
                       argument_error);
  CHECK(bad.weights() == before);
}
