// What an optimizer step takes on this GPU, beside a copy of as many bytes on the same stream.
// usage: step_bench [tf32]      products of fp32 matrices on tensor cores, operands rounded to 10 bits of mantissa
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>

#include "lowrank/lowrank.cuh"

namespace {

using lowrank::extents;
using lowrank::index_t;
using device = lowrank::device_space;

/// A time of what did not run is worse than none.
void check(cudaError_t status) { lowrank::detail::check_cuda(status, "step_bench"); }

/// Milliseconds of one call of `body`, mean of `count` after two that are not counted.
template <class Body>
double milliseconds(lowrank::cuda_executor& exec, int count, Body const& body) {
  cudaEvent_t begin{}, end{};
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  for (int i = 0; i < 2; ++i) body();
  check(cudaEventRecord(begin, exec.stream()));
  for (int i = 0; i < count; ++i) body();
  check(cudaEventRecord(end, exec.stream()));
  check(cudaEventSynchronize(end));
  float total = 0;
  check(cudaEventElapsedTime(&total, begin, end));
  check(cudaEventDestroy(begin));
  check(cudaEventDestroy(end));
  return static_cast<double>(total) / count;
}

class bench {
 public:
  explicit bench(double copy_rate) : copy_rate_{copy_rate} {}

  /// `bytes`: what the step has to move.
  void report(std::string const& name, double ms, double bytes) const {
    double const rate = bytes / ms * 1e-6;
    std::printf("%-58s %9.4f ms %8.0f GB/s %6.1f %% of a copy\n", name.c_str(), ms, rate, 100 * rate / copy_rate_);
    std::fflush(stdout);
  }

 private:
  double copy_rate_;
};

lowrank::matrix<float, device> random_matrix(lowrank::cuda_executor& exec, extents shape, std::uint32_t tensor,
                                             float size) {
  lowrank::matrix<float, device> out{shape};
  lowrank::fill_gaussian(exec, {.seed = 1, .tensor = tensor}, out.view());
  lowrank::scale(exec, size, out.view());
  return out;
}

/// A whole-parameter step on fp32.
template <class Optimizer>
void full_rank_step(lowrank::cuda_executor& exec, bench const& b, std::string const& name, Optimizer const& optimizer,
                    extents shape, double bytes_each) {
  auto state = optimizer.init(exec, shape, 0);
  auto w = random_matrix(exec, shape, 1, 0.02F), g = random_matrix(exec, shape, 2, 1e-3F);
  exec.reserve(optimizer.workspace_bytes(lowrank::fp32_weight<device>{w.view()}));
  auto const ms = milliseconds(exec, 20, [&] { optimizer.step(exec, state, w.view(), std::as_const(g).view(), {}); });
  b.report(name, ms, bytes_each * static_cast<double>(shape.size()));
}

/// A gradient in that number format.
template <class T>
lowrank::matrix<T, device> random_gradient(lowrank::cuda_executor& exec, extents shape) {
  auto const wide = random_matrix(exec, shape, 2, 1e-3F);
  lowrank::matrix<T, device> out{shape};
  lowrank::convert(exec, wide.view(), out.view());
  return out;
}
template <class T>
inline constexpr index_t form_of = std::same_as<T, float> ? 0 : lowrank::narrow_gradient;

/// The same on bf16, rounded at random; T is the number format of the gradient.
template <class T = float, class Optimizer>
void full_rank_bf16(lowrank::cuda_executor& exec, bench const& b, std::string const& name, Optimizer const& optimizer,
                    extents shape, double bytes_each) {
  auto state = optimizer.init(exec, shape, 0);
  auto const g = random_gradient<T>(exec, shape);
  lowrank::buffer<lowrank::bf16, device> w{shape.size()};
  lowrank::bf16_weight<device> const weight{lowrank::row_major<device>(w.data(), shape)};
  exec.reserve(optimizer.workspace_bytes(weight));
  auto const ms = milliseconds(exec, 20, [&] { optimizer.step(exec, state, weight, g.view(), {}); });
  b.report(name, ms, bytes_each * static_cast<double>(shape.size()));
}

/// A low-rank step between refreshes, and one that refreshes.
template <class T = float, class Optimizer, class Weight>
void low_rank_step(lowrank::cuda_executor& exec, bench const& b, std::string const& name, Optimizer optimizer,
                   Weight const& weight, double bytes) {
  extents const shape = weight.shape();
  auto state = optimizer.init(exec, shape, 0);
  auto const g = random_gradient<T>(exec, shape);
  exec.reserve(optimizer.workspace_bytes(weight, form_of<T>));
  lowrank::step_options const options{.learning_rate = 1e-4F};
  auto const step = [&] { optimizer.step(exec, state, weight, std::as_const(g).view(), options); };
  step();
  auto const plain = milliseconds(exec, 20, step);
  b.report(name, plain, bytes);
  // As a graph: one launch instead of many.
  cudaGraph_t graph{};
  cudaGraphExec_t runnable{};
  check(cudaStreamBeginCapture(exec.stream(), cudaStreamCaptureModeThreadLocal));
  step();
  check(cudaStreamEndCapture(exec.stream(), &graph));
  check(cudaGraphInstantiate(&runnable, graph, 0));
  auto const replayed = milliseconds(exec, 20, [&] { check(cudaGraphLaunch(runnable, exec.stream())); });
  b.report(name + ", as a graph", replayed, bytes);
  check(cudaGraphExecDestroy(runnable));
  check(cudaGraphDestroy(graph));
  optimizer.refresh.period = 1;
  auto const whole = milliseconds(exec, 10, step);
  std::printf("%-58s %9.4f ms\n", (name + ", refresh alone").c_str(), whole - plain);
}

}  // namespace

int main(int argc, char** argv) {
  cudaStream_t stream{};
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  {
    bool const tf32 = argc > 1 && std::string_view{argv[1]} == "tf32";
    lowrank::cuda_executor exec{
        {.stream = stream, .products = tf32 ? lowrank::product_precision::tf32 : lowrank::product_precision::fp32}};
    index_t const copied = index_t{1} << 30;
    lowrank::buffer<std::byte, device> from{copied}, to{copied};
    auto const copy = milliseconds(exec, 20, [&] {
      check(
          cudaMemcpyAsync(to.data(), from.data(), static_cast<std::size_t>(copied), cudaMemcpyDeviceToDevice, stream));
    });
    double const rate = 2.0 * static_cast<double>(copied) / copy * 1e-6;
    bench const b{rate};
    b.report("copy", copy, 2.0 * static_cast<double>(copied));
    from = {}, to = {};

    extents const large{8192, 8192}, usual{4096, 4096}, wide{4096, 11008};
    full_rank_step(exec, b, "AdamW, fp32, 8192x8192 (28 B an element, guard 4)", lowrank::adamw{}, large, 32);
    full_rank_bf16(exec, b, "AdamW, bf16 stochastic, 8192x8192 (24 B an element, guard 4)", lowrank::adamw{}, large,
                   28);
    full_rank_bf16(exec, b, "8-bit AdamW, bf16 stochastic, 8192x8192 (12.06, guard 4)", lowrank::adamw_8bit{}, large,
                   16.06);
    full_rank_bf16<lowrank::bf16>(exec, b, "AdamW, bf16 gradients as well, 8192x8192 (22, guard 2)", lowrank::adamw{},
                                  large, 24);
    full_rank_bf16<lowrank::bf16>(exec, b, "8-bit AdamW, bf16 gradients as well, 8192x8192 (10.06, guard 2)",
                                  lowrank::adamw_8bit{}, large, 12.06);
    full_rank_step(exec, b, "8-bit AdamW, 8192x8192 (16.06, guard 4)", lowrank::adamw_8bit{}, large, 20.06);
    full_rank_step(exec, b, "4-bit AdamW, 8192x8192 (14.06, guard 4)", lowrank::adamw_4bit{}, large, 18.06);
    full_rank_step(exec, b, "AdamW, fp32, 4096x4096", lowrank::adamw{}, usual, 32);

    for (extents const shape : {usual, wide})
      for (index_t const rank : {128, 1024}) {
        auto const size = static_cast<double>(shape.size());
        auto const title = [&](std::string const& name) {
          return name + " r=" + std::to_string(rank) + " " + std::to_string(shape.rows) + "x" +
                 std::to_string(shape.cols);
        };
        auto w = random_matrix(exec, shape, 1, 0.02F);
        lowrank::fp32_weight<device> const fp32{w.view()};
        auto const warm = [&](auto optimizer) {
          optimizer.rank = rank;
          return optimizer;
        };
        using lowrank::basis::warm_start;
        low_rank_step(exec, b, title("GaLore AdamW fp32"), warm(lowrank::galore_adamw_with<warm_start>{}), fp32,
                      12 * size);
        lowrank::buffer<lowrank::bf16, device> half{shape.size()};
        auto const rows = lowrank::row_major<device>(half.data(), shape);
        lowrank::convert(exec, std::as_const(w).view(), rows);
        low_rank_step(exec, b, title("GaLore AdamW bf16"), warm(lowrank::galore_adamw_with<warm_start>{}),
                      lowrank::bf16_weight<device>{rows}, 8 * size);
        low_rank_step<lowrank::bf16>(exec, b, title("GaLore AdamW bf16, bf16 gradients"),
                                     warm(lowrank::galore_adamw_with<warm_start>{}), lowrank::bf16_weight<device>{rows},
                                     6 * size);
        low_rank_step(exec, b, title("8-bit GaLore bf16"), warm(lowrank::galore_adamw_8bit_with<warm_start>{}),
                      lowrank::bf16_weight<device>{rows}, 8 * size);
        lowrank::blockwise<lowrank::codec::affine<8>, 256, device> codes{{1, shape.size()}};
        lowrank::quantize(exec, w.data(), codes.view());
        using q_galore = lowrank::compose<lowrank::rule::adam_8bit, warm_start, lowrank::format::int4>;
        low_rank_step(exec, b, title("Q-GaLore int8"), warm(q_galore{}), lowrank::as_weight(codes, shape), 6 * size);
        low_rank_step<lowrank::bf16>(exec, b, title("Q-GaLore int8, bf16 gradients"), warm(q_galore{}),
                                     lowrank::as_weight(codes, shape), 4 * size);
      }
  }
  check(cudaStreamDestroy(stream));
}
