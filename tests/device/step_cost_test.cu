// What a step costs: no allocation, no wait, and no more memory traffic than the formulas need.
#include <doctest/doctest.h>

#include "device/device_machine.cuh"
#include "device/optimizer_cases.hpp"
#include "softgpu/softgpu.hpp"

namespace {

using lowrank::extents;
using lowrank::index_t;
using device = lowrank::device_space;
using device_machine = lowrank_test::machine<lowrank::cuda_executor>;

/// Bytes that a launch touches, each 32-byte sector once for reading and once for writing, for each element.
struct traffic {
  double read, written;
};
traffic bytes_an_element(softgpu_counts const& counts, index_t elements) {
  auto const each = [&](std::uint64_t sectors) {
    return 32.0 * static_cast<double>(sectors) / static_cast<double>(elements);
  };
  return {each(counts.sectors_read), each(counts.sectors_written)};
}

/// One step that finds a basis, then `body` between two looks at the counters.
template <class T = float, class Optimizer, class Weight, class Body>
void after_first_step(device_machine& m, Optimizer const& optimizer, Weight const& weight, Body const& body) {
  extents const shape = weight.shape();
  auto state = optimizer.init(m.exec, shape, 1);
  auto const wide = m.upload(lowrank_test::gradient_of_step(shape, 0));
  lowrank::buffer<T, device> g{shape.size()};
  auto const gradient = lowrank::row_major<device>(g.data(), shape);
  lowrank::convert(m.exec, lowrank::row_major<device>(wide.data(), shape), gradient);
  m.exec.reserve(optimizer.workspace_bytes(weight, std::same_as<T, float> ? 0 : lowrank::narrow_gradient));
  std::ignore = optimizer.step(m.exec, state, weight, gradient, {});
  m.exec.synchronize();
  softgpu::test::clear_counts();
  body([&] { std::ignore = optimizer.step(m.exec, state, weight, gradient, {}); });
}
template <class T = float, class Optimizer, class Weight>
void check_quiet(std::string const& name, device_machine& m, Optimizer const& optimizer, Weight const& weight) {
  CAPTURE(name);
  after_first_step<T>(m, optimizer, weight, [&](auto const& step) {
    auto const allocations = softgpu::test::allocations(), waits = softgpu::test::host_waits();
    for (int i = 0; i < 3; ++i) step();
    CHECK(softgpu::test::allocations() == allocations);
    CHECK(softgpu::test::host_waits() == waits);
  });
}
template <class Optimizer>
Optimizer of_rank(Optimizer optimizer, index_t rank) {
  optimizer.rank = rank;
  return optimizer;
}

/// Only the software GPU counts; what is left out elsewhere says so.
bool counts_sectors() {
  if (!softgpu::test::present()) MESSAGE("not shown here: a real GPU does not count sectors");
  return softgpu::test::present();
}

using q_galore = lowrank::compose<lowrank::rule::adam_8bit, lowrank::basis::randomized, lowrank::format::int4>;

}  // namespace

TEST_CASE("between refreshes a step neither allocates nor waits") {
  device_machine m;
  extents const shape{64, 96};
  auto w = m.upload(lowrank_test::heavy_tailed(shape.size(), 5, 0.1F));
  lowrank::fp32_weight<device> const fp32{lowrank::row_major<device>(w.data(), shape)};
  lowrank::buffer<lowrank::bf16, device> half{shape.size()};
  lowrank::bf16_weight<device> const bf16{lowrank::row_major<device>(half.data(), shape)};
  lowrank::blockwise<lowrank::codec::affine<8>, 256, device> codes{{1, shape.size()}};
  lowrank::quantize(m.exec, w.data(), codes.view());
  check_quiet("adamw", m, lowrank::adamw{}, fp32);
  check_quiet("adamw on bf16", m, lowrank::adamw{}, bf16);
  check_quiet("adamw_8bit on bf16", m, lowrank::adamw_8bit{}, bf16);
  check_quiet("galore_adamw", m, of_rank(lowrank::galore_adamw{}, 8), fp32);
  check_quiet<lowrank::bf16>("adamw_8bit on bf16, bf16 gradients", m, lowrank::adamw_8bit{}, bf16);
  check_quiet<lowrank::bf16>("galore_adamw, bf16 gradients", m, of_rank(lowrank::galore_adamw{}, 8), fp32);
  check_quiet("galore_adamw_8bit on bf16", m, of_rank(lowrank::galore_adamw_8bit{}, 8), bf16);
  check_quiet("q_galore on int8", m, of_rank(q_galore{}, 8), lowrank::as_weight(codes, shape));
}

TEST_CASE("fused 8-bit AdamW reads and writes each byte once") {
  if (!counts_sectors()) return;
  device_machine m;
  extents const shape{256, 1024};
  lowrank::buffer<lowrank::bf16, device> half{shape.size()};
  lowrank::bf16_weight<device> const weight{lowrank::row_major<device>(half.data(), shape)};
  after_first_step(m, lowrank::adamw_8bit{}, weight, [&](auto const& step) {
    step();
    m.exec.synchronize();
    auto const counts = softgpu::test::counts_of("bf16_tiles");
    REQUIRE(counts.launches == 1);
    auto const [read, written] = bytes_an_element(counts, shape.size());
    double const instructions = static_cast<double>(counts.warp_instructions) / static_cast<double>(shape.size() / 256);
    MESSAGE("bytes read ", read, ", written ", written, "; PTX instructions a tile of 256 ", instructions);
    // bf16 weight 2, fp32 gradient 4, moments 2 x (1 + 4 / 256); of these the gradient is not written.
    CHECK(read == doctest::Approx(8.03125).epsilon(0.01));  // the tables of the codes come on top
    CHECK(written == doctest::Approx(4.03125).epsilon(0.001));
  });
}

TEST_CASE("fused 8-bit AdamW on bf16 weights and gradients: 10.06 bytes, and the tables of its codes") {
  if (!counts_sectors()) return;
  device_machine m;
  extents const shape{512, 1024};
  lowrank::buffer<lowrank::bf16, device> half{shape.size()};
  lowrank::bf16_weight<device> const weight{lowrank::row_major<device>(half.data(), shape)};
  after_first_step<lowrank::bf16>(m, lowrank::adamw_8bit{}, weight, [&](auto const& step) {
    step();
    m.exec.synchronize();
    auto const counts = softgpu::test::counts_of("bf16_tiles");
    REQUIRE(counts.launches == 1);
    auto const [read, written] = bytes_an_element(counts, shape.size());
    MESSAGE("bytes read ", read, ", written ", written);
    CHECK(read + written <= 10.1);
    CHECK(read + written >= 10.0625);
  });
}

TEST_CASE("fused AdamW in fp32: 16 bytes read, 12 written") {
  if (!counts_sectors()) return;
  device_machine m;
  extents const shape{256, 1024};
  auto w = m.upload(lowrank_test::heavy_tailed(shape.size(), 5, 0.1F));
  lowrank::fp32_weight<device> const weight{lowrank::row_major<device>(w.data(), shape)};
  after_first_step(m, lowrank::adamw{}, weight, [&](auto const& step) {
    step();
    m.exec.synchronize();
    auto const [read, written] = bytes_an_element(softgpu::test::counts_of("fp32_tiles"), shape.size());
    CHECK(read == doctest::Approx(16).epsilon(0.001));
    CHECK(written == doctest::Approx(12).epsilon(0.001));
  });
}

TEST_CASE("Q-GaLore on an int8 weight: codes in, codes out, and panels in between") {
  if (!counts_sectors()) return;
  device_machine m;
  extents const shape{512, 512};
  index_t const rank = 16;  // r / m = 1 / 32, as 128 of 4096
  auto const w = m.upload(lowrank_test::heavy_tailed(shape.size(), 5, 0.1F));
  lowrank::blockwise<lowrank::codec::affine<8>, 256, device> codes{{1, shape.size()}};
  lowrank::quantize(m.exec, w.data(), codes.view());
  after_first_step(m, of_rank(q_galore{}, rank), lowrank::as_weight(codes, shape), [&](auto const& step) {
    step();
    m.exec.synchronize();
    auto const close = bytes_an_element(softgpu::test::counts_of("quantize_stochastic"), shape.size());
    auto const all = bytes_an_element(softgpu::test::total_counts(), shape.size());
    MESSAGE("storing codes: ", close.read, " + ", close.written, " bytes a weight; all our kernels: ", all.read, " + ",
            all.written);
    // A panel in, codes and two bf16 of scale for each block out.
    CHECK(close.read == doctest::Approx(4).epsilon(0.01));
    CHECK(close.written == doctest::Approx(1 + 4.0 / 256).epsilon(0.01));
    // Codes and scales to a panel and back; R, P and the moments are r / m of a weight each.
    CHECK(all.read < 6);
    CHECK(all.written < 6);
  });
  // A gradient in 16 bits goes to the product as it is: our kernels see none of it.
  after_first_step<lowrank::bf16>(m, of_rank(q_galore{}, rank), lowrank::as_weight(codes, shape),
                                  [&](auto const& step) {
                                    step();
                                    m.exec.synchronize();
                                    auto const all = bytes_an_element(softgpu::test::total_counts(), shape.size());
                                    MESSAGE("with bf16 gradients, all our kernels: ", all.read, " + ", all.written);
                                    CHECK(all.read < 6);
                                    CHECK(all.written < 6);
                                  });
}
