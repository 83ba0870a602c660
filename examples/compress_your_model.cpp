// From trained weights to a smaller file, and on from there: spectra, ranks under one budget, factors that know the inputs, a
// file that needs nothing else to be read, and training of the low-rank components alone.
#include <cmath>
#include <filesystem>
#include <iostream>

#include "lowrank/compress/compress_file.hpp"
#include "lowrank/compress/lrc_finetune.hpp"
#include "lowrank/compress/welore.hpp"
#include "lowrank/lowrank.hpp"

using namespace lowrank;
constexpr index_t width = 96, inner = 160, samples = 600;

/// Numbers with the spectrum k^-decay, times noise that is the same for the same seed.
matrix<float> random_matrix(extents shape, std::uint32_t seed, float decay) {
  matrix<float> out{shape};
  for (index_t k = 0; k < std::min(shape.rows, shape.cols); ++k) {
    float const size = std::pow(static_cast<float>(k + 1), -decay);
    auto const number = [&](std::uint32_t side, index_t i) {
      return gaussian({.seed = seed, .step = side, .tensor = static_cast<std::uint32_t>(k)},
                      static_cast<std::uint64_t>(i));
    };
    for (index_t i = 0; i < shape.rows; ++i)
      for (index_t j = 0; j < shape.cols; ++j) out(i, j) += size * number(0, i) * number(1, j);
  }
  return out;
}
double norm_of_difference(matrix<float> const& a, matrix<float> const& b) {
  double sum = 0;
  for (index_t i = 0; i < a.shape().size(); ++i) sum += std::pow(a.data()[i] - b.data()[i], 2);
  return std::sqrt(sum);
}
void expect(bool holds, char const* what) {
  std::cout << (holds ? "  ok: " : "  FAILED: ") << what << "\n";
  if (!holds) std::exit(1);
}

int main() {
  host_executor exec{{.threads = 2}};
  auto const folder = std::filesystem::temp_directory_path() / "lowrank-compress-example";
  std::filesystem::create_directories(folder);

  // Your checkpoint: two matrices to compress, one tensor that is none of our business.
  auto const attention = random_matrix({width, width}, 1, 1.2F), up = random_matrix({inner, width}, 2, 0.5F);
  std::vector<float> const gain(width, 1.0F);
  auto const bytes = [](auto const& values, index_t count) {
    return std::as_bytes(std::span{values.data(), static_cast<std::size_t>(count)});
  };
  std::vector<tensor_source> const tensors{
      {{"attention.weight", dtype::f32, {width, width}}, bytes(attention, width * width)},
      {{"up.weight", dtype::f32, {inner, width}}, bytes(up, inner * width)},
      {{"norm.weight", dtype::f32, {width}}, bytes(gain, width)}};
  write_safetensors(folder / "model.safetensors", tensors);

  // What the layers see: channels of very different size. A few hundred rows are enough.
  auto inputs = random_matrix({samples, width}, 3, 0.6F);
  for (index_t t = 0; t < samples; ++t) inputs(t, 7) *= 20;
  exec.reserve(activation_statistics::workspace_bytes(width));
  activation_statistics seen{width};
  seen.add(exec, inputs.view());

  file_compression job{folder / "model.safetensors", folder / "plain.safetensors",
                       [](std::string_view name) { return name.ends_with(".weight") && name != "norm.weight"; },
                       "example"};
  auto const plan = compress_file(exec, welore_for(0.4), job);
  job.output = folder / "whitened.safetensors";
  compress_file(exec, welore_for<welore_whitened>(0.4), job, [&](std::string_view) { return layer_statistics{&seen}; });
  for (auto const& m : plan.matrices)
    std::cout << m.name << ": rank " << m.rank << " of " << std::min(m.shape.rows, m.shape.cols) << ", " << name(m.form)
              << ", " << name(m.kind) << "\n";

  // A reload takes ranks, forms and kinds from the file.
  auto const outputs_of = [&](char const* file, factor_pair& pair) {
    safetensors_reader const reader{folder / file};
    auto const plans = compressed_plans(reader);
    pair = std::get<factor_pair>(read_compressed(reader, plans.at("attention.weight")).weight);
    matrix<float> z{samples, pair.rank()}, y{samples, width};
    forward(exec, pair.view(), inputs.view(), z.view(), y.view());
    return y;
  };
  matrix<float> wanted{samples, width};
  multiply(exec, 1.0F, matrix_view<float const>(inputs.view()), attention.view().t(), 0.0F, wanted.view());
  factor_pair plain, whitened;
  double const by_plain = norm_of_difference(outputs_of("plain.safetensors", plain), wanted);
  double const by_whitened = norm_of_difference(outputs_of("whitened.safetensors", whitened), wanted);
  std::cout << "error of the outputs: " << by_plain << " by the SVD, " << by_whitened << " knowing the inputs\n";
  expect(plan.matrices[0].kind == component_kind::lrc && plan.matrices[1].kind == component_kind::n_lrc,
         "the matrix with the fast spectrum is cut, the other one is left alone");
  expect(by_whitened < 0.9 * by_plain, "factors that know the inputs lose less of the outputs");

  // A new task: some outputs shall be larger. Only low-rank components learn: two factors, and AdamW's moments of these.
  lrc_mask const mask{plan.matrices};
  expect(mask.trains("attention.U.weight", whitened.u.shape()) && !mask.trains("up.weight", up.shape()),
         "factors of the LRC train, the other matrix is frozen");
  for (index_t t = 0; t < samples; ++t)
    for (index_t i = 0; i < width / 4; ++i) wanted(t, i) *= 1.5F;
  adamw const optimizer{};
  auto u_state = optimizer.init(exec, whitened.u.shape(), 0), v_state = optimizer.init(exec, whitened.v.shape(), 1);
  exec.reserve(optimizer.workspace_bytes(fp32_weight<>{whitened.u.view()}));
  matrix<float> z{samples, whitened.rank()}, y{samples, width}, du{whitened.u.shape()}, dv{whitened.v.shape()};
  double before = 0, after = 0;
  for (int step = 0; step <= 100; ++step) {
    forward(exec, whitened.view(), inputs.view(), z.view(), y.view());
    after = norm_of_difference(y, wanted);
    if (step == 0) before = after;
    for (index_t i = 0; i < y.shape().size(); ++i) y.data()[i] = (y.data()[i] - wanted.data()[i]) / samples;
    backward(exec, whitened.view(), inputs.view(), z.view(), y.view(), z.view(), {},
             {.left = du.view(), .right = dv.view()});
    step_options const now{.learning_rate = 2e-3F};
    optimizer.step(exec, u_state, fp32_weight<>{whitened.u.view()}, matrix_view<float const>(du.view()), now);
    optimizer.step(exec, v_state, fp32_weight<>{whitened.v.view()}, matrix_view<float const>(dv.view()), now);
  }
  std::cout << "error on the new task: " << before << ", after 100 steps " << after << "\n";
  expect(after < 0.6 * before, "the factors alone have learnt it");
  std::filesystem::remove_all(folder);
}
