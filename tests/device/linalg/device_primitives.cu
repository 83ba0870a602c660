#include "device/device_machine.cuh"
#include "device/linalg/factorization_cases.hpp"
#include "device/linalg/primitive_cases.hpp"
#include "lowrank/linalg/cuda/decompositions.cuh"

namespace lowrank_test {

using device = machine<lowrank::cuda_executor>;

linalg_side device_primitives() { return primitive_cases<device>{}.take(); }
linalg_side device_factorizations() { return factorization_cases<device>{}.take(); }

namespace {

/// Norms, products with factors in memory, and the way from a block of columns to its inverse Cholesky factor.
struct capturable_work {
  machine<lowrank::cuda_executor>& m;
  lowrank::extents shape{90, 70};
  placed<device, float> y{m, shape}, c{m, {70, 70}};
  placed<device, double> gram{m, {70, 70}};
  lowrank::buffer<double, lowrank::device_space> sums{2}, scales{70};
  lowrank::buffer<float, lowrank::device_space> factors{2};
  lowrank::buffer<std::int32_t, lowrank::device_space> flags{2};
  lowrank::buffer<lowrank::gram_condition, lowrank::device_space> condition{1};
  lowrank::buffer<lowrank::unit_scale, lowrank::device_space> unit{1};

  void run() {
    using constant = lowrank::matrix_view<float const, lowrank::device_space>;
    constant const columns = y.view();
    squared_norm(m.exec, columns, sums.data());
    inner_product(m.exec, columns, columns, sums.data() + 1);
    balance_columns(m.exec, y.view(), flags.data());
    lowrank::gram(m.exec, columns, gram.view());
    unit_scales(m.exec, gram.view(), scales.data(), 0.0);
    scale_gram(m.exec, gram.view(), scales.data(), 1e-15, condition.data());
    factor_cholesky(m.exec, gram.view(), flags.data() + 1);
    drop_dependent(m.exec, gram.view(), 1e-14, scales.data(), condition.data());
    invert_lower(m.exec, gram.view());
    fill_rademacher(m.exec, {.seed = 1}, c.view());
    multiply(m.exec, factors.data(), columns.t(), columns, factors.data() + 1, c.view());
    scale_to_unit(m.exec, c.view(), unit.data());
    orient_columns(m.exec, c.view());
  }
  [[nodiscard]] outcome results() {
    findings out;
    y.keep(m, out, "y"), c.keep(m, out, "c"), gram.keep(m, out, "gram");
    m.keep(out.exact, "sums", sums), m.keep(out.exact, "flags", flags), m.keep(out.exact, "scales", scales);
    return out.exact;
  }
  void set(unsigned seed) {
    auto const values = heavy_tailed(shape.size(), seed);
    copy_bytes(m.exec, y.view().data, values.data(), values.size() * sizeof(float));
    std::vector<float> const both{0.5F * static_cast<float>(seed), 0.25F};
    copy_bytes(m.exec, factors.data(), both.data(), both.size() * sizeof(float));
  }
};

}  // namespace

std::vector<replay> device_replays() {
  using lowrank::detail::check_cuda;
  cudaStream_t stream{};
  check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  std::vector<replay> out(2);
  {
    device m{lowrank::cuda_executor{lowrank::cuda_options{.stream = stream}}};
    capturable_work work{m};
    for (unsigned seed = 1; seed <= 2; ++seed) {
      work.set(seed);
      work.run();
      out[seed - 1].direct = work.results();
    }
    cudaGraph_t graph{};
    cudaGraphExec_t program{};
    check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    work.run();
    check_cuda(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
    check_cuda(cudaGraphInstantiate(&program, graph, 0), "cudaGraphInstantiate");
    for (unsigned seed = 1; seed <= 2; ++seed) {
      work.set(seed);
      check_cuda(cudaGraphLaunch(program, stream), "cudaGraphLaunch");
      out[seed - 1].captured = work.results();
    }
    check_cuda(cudaGraphExecDestroy(program), "cudaGraphExecDestroy");
    check_cuda(cudaGraphDestroy(graph), "cudaGraphDestroy");
  }
  check_cuda(cudaStreamDestroy(stream), "cudaStreamDestroy");
  return out;
}

std::vector<std::string> device_refusals() {
  using lowrank::device_space;
  lowrank::cuda_executor exec;
  lowrank::matrix<float, device_space> memory{40, 40};
  lowrank::matrix<double, device_space> wide{4, 4};
  auto const all = memory.view();
  auto const a = all.sub({0, 4, 0, 4}), tall = all.sub({0, 5, 0, 4});
  lowrank::matrix_view<float, device_space> const strided{memory.data(), 4, 4, 12, 3},
      overlapping{memory.data(), 4, 4, 2, 1};
  std::vector<std::string> said;
  auto const refuses = [&](auto const& call) {
    try {
      call();
      said.emplace_back("nothing");
    } catch (lowrank::shape_error const& error) { said.emplace_back(error.what()); }
  };
  refuses([&] { copy(exec, a, tall); });
  refuses([&] { multiply(exec, 1.0F, a, tall, 0.0F, a); });
  refuses([&] { multiply(exec, 1.0F, strided, a, 0.0F, a); });
  refuses([&] { multiply(exec, 1.0F, a, overlapping, 0.0F, a); });
  refuses([&] { multiply(exec, 1.0F, a, a, 0.0F, strided); });
  refuses([&] { gram(exec, lowrank::matrix_view<float const, device_space>(tall), wide.view().sub({0, 3, 0, 3})); });
  refuses([&] { factor_cholesky(exec, wide.view().row_range(0, 3), nullptr); });
  refuses([&] { invert_lower(exec, wide.view().t()); });
  refuses([&] { exact_svd(exec, tall, {.u = a}); });
  refuses([&] { householder_qr(exec, lowrank::matrix_view<float const, device_space>(tall), a); });
  return said;
}

}  // namespace lowrank_test
