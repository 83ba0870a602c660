// Optimizers on a device through a checkpoint on disk: what goes on is what would have gone on, bit for bit.
#include <doctest/doctest.h>

#include <limits>
#include <tuple>

#include "device/device_machine.cuh"
#include "lowrank/io/checkpoint.hpp"
#include "softgpu/softgpu.hpp"
#include "unit/io/temporary_folder.hpp"

using namespace lowrank;

namespace {

using device = lowrank_test::machine<cuda_executor>;

constexpr extents shape{96, 200};  // states of several of the pieces that are copied at a time

/// A weight with the state of its optimizer.
template <class Optimizer>
struct run {
  device& m;
  Optimizer optimizer;
  typename Optimizer::template state<device_space> state{optimizer.init(m.exec, shape, 3)};
  buffer<float, device_space> weight{m.upload(lowrank_test::heavy_tailed(shape.size(), 5, 0.1F))};

  void step(unsigned number) {
    auto values = lowrank_test::heavy_tailed(shape.size(), 100 + number);
    if (number == 4) values[7] = std::numeric_limits<float>::quiet_NaN();
    auto const g = m.upload(values);
    fp32_weight<device_space> const view{row_major<device_space>(weight.data(), shape)};
    m.exec.reserve(optimizer.workspace_bytes(view));
    std::ignore = optimizer.step(m.exec, state, view, row_major<device_space>(g.data(), shape),
                                 {.learning_rate = 0.01F, .weight_decay = 0.1F});
  }
  [[nodiscard]] std::vector<float> weights() { return m.download(weight.data(), shape.size()); }
  /// Everything that a checkpoint holds.
  [[nodiscard]] std::vector<std::byte> bytes() {
    std::vector<std::byte> out;
    for (auto const& part : lowrank::detail::memory_of(state)) {
      std::vector<std::byte> one(part.bytes);
      if (part.buffered) lowrank_test::copy_bytes(m.exec, one.data(), part.data, part.bytes);
      else std::memcpy(one.data(), part.data, part.bytes);
      out.insert(out.end(), one.begin(), one.end());
    }
    return out;
  }
  void save(std::filesystem::path const& path) {
    checkpoint_writer writer;
    writer.add(m.exec, "w", state);
    writer.add_metadata("weight", "elsewhere");
    writer.write(path);
  }
  void load(std::filesystem::path const& path) {
    checkpoint_reader file{path};
    file.load(m.exec, "w", state);
    file.require_all_read();
  }
};

template <class Optimizer>
void resume(Optimizer const& optimizer, unsigned saved_at) {
  temporary_folder const folder;
  device m;
  run<Optimizer> a{m, optimizer};
  for (unsigned k = 0; k < saved_at; ++k) a.step(k);
  a.save(folder / "c");

  run<Optimizer> b{m, optimizer}, fresh{m, optimizer};
  lowrank_test::copy_bytes(m.exec, b.weight.data(), a.weight.data(), a.weight.bytes());
  lowrank_test::copy_bytes(m.exec, fresh.weight.data(), a.weight.data(), a.weight.bytes());
  REQUIRE(b.bytes() != a.bytes());
  b.load(folder / "c");
  REQUIRE(b.bytes() == a.bytes());
  for (unsigned k = saved_at; k < saved_at + 6; ++k) {
    a.step(k), b.step(k), fresh.step(k);
    REQUIRE(b.weights() == a.weights());
    REQUIRE(b.bytes() == a.bytes());
  }
  CHECK(fresh.weights() != a.weights());
}

galore_adamw galore(index_t rank = 8) {
  galore_adamw out{.rank = rank};
  out.refresh.period = 4;
  return out;
}

}  // namespace

TEST_CASE("loaded into a fresh state, a run goes on bit for bit") {
  q_galore_adamw_8bit quantized{.rank = 8};
  quantized.refresh.gap = 3;
  for (unsigned const saved_at : {2U, 5U}) {  // in the middle of an interval, and after a step that was skipped
    CAPTURE(saved_at);
    resume(galore(), saved_at);
    resume(quantized, saved_at);
    resume(adamw{}, saved_at);
  }
}

TEST_CASE("the file says nothing of the device: a host loads it, and the other way round") {
  temporary_folder const folder;
  device m;
  run<galore_adamw> a{m, galore()};
  for (unsigned k = 0; k < 3; ++k) a.step(k);
  a.save(folder / "device");
  host_executor exec;
  auto on_host = galore().init(exec, shape, 3);
  {
    checkpoint_reader file{folder / "device"};
    file.load(exec, "w", on_host);
  }
  auto copied = galore().init(exec, shape, 3);
  copy_to_host(m.exec, a.state, copied);
  CHECK(states_equal(on_host, copied));
  checkpoint_writer writer;
  writer.add(exec, "w", on_host);
  writer.add_metadata("weight", "elsewhere");
  writer.write(folder / "host");
  CHECK(content_of(folder / "host") == content_of(folder / "device"));

  run<galore_adamw> b{m, galore()};
  b.load(folder / "host");
  CHECK(b.bytes() == a.bytes());
}

TEST_CASE("what does not fit is refused, and the state keeps its bits") {
  temporary_folder const folder;
  device m;
  run<galore_adamw> a{m, galore()};
  a.step(0);
  a.save(folder / "c");
  run<galore_adamw> other{m, galore(6)};
  other.step(0);
  auto const before = other.bytes();
  CHECK(message_of<error>([&] { other.load(folder / "c"); }).find("the saved state is of another kind: \"w.") !=
        std::string::npos);
  CHECK(other.bytes() == before);
  auto damaged = content_of(folder / "c");
  damaged[damaged.size() / 2] = static_cast<char>(damaged[damaged.size() / 2] + 1);
  write_content(folder / "damaged", damaged);
  auto const mine = a.bytes();
  CHECK(message_of<error>([&] { a.load(folder / "damaged"); }).find("the file is damaged") != std::string::npos);
  CHECK(a.bytes() == mine);
}

TEST_CASE("a device that fails while it is saved leaves the file that was there") {
  if (!softgpu::test::present()) return;
  temporary_folder const folder;
  device m;
  run<adamw> a{m, {}};
  a.step(0);
  a.save(folder / "c");
  auto const whole = content_of(folder / "c");
  a.step(1);
  {
    softgpu::test::failing_call const failing{"cudaMemcpyAsync", 2, 719};
    CHECK_THROWS_AS(a.save(folder / "c"), cuda_error);
  }
  CHECK(content_of(folder / "c") == whole);
  CHECK(folder.entries() == 1);
  {
    softgpu::test::failing_call const failing{"cudaMemcpyAsync", 2, 719};
    CHECK_THROWS_AS(a.load(folder / "c"), cuda_error);
  }
  a.load(folder / "c");
  run<adamw> b{m, {}};
  b.step(0);
  CHECK(a.bytes() == b.bytes());
}
