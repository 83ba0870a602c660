// Two devices, a thread and an executor each: what they do is what one of them would do alone, and nobody takes the memory of
// the other.
#include <doctest/doctest.h>

#include <thread>
#include <tuple>

#include "device/device_machine.cuh"
#include "support/messages.hpp"

using namespace lowrank;

namespace {

constexpr extents shape{24, 40};

void use(int device) { lowrank::detail::check_cuda(cudaSetDevice(device), "cudaSetDevice"); }

/// A stream of the device that is current when it is made.
struct own_stream {
  cudaStream_t handle{};
  own_stream() {
    lowrank::detail::check_cuda(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
  }
  own_stream(own_stream const&) = delete;
  own_stream& operator=(own_stream const&) = delete;
  ~own_stream() { static_cast<void>(cudaStreamDestroy(handle)); }
};

/// One weight and its optimizer on the current device.
struct trained {
  own_stream stream;
  lowrank_test::machine<cuda_executor> m{cuda_executor{cuda_options{.stream = stream.handle}}};
  galore_adamw optimizer{.rank = 4};
  galore_adamw::state<device_space> state{optimizer.init(m.exec, shape, 0)};
  buffer<float, device_space> weight{m.upload(lowrank_test::heavy_tailed(shape.size(), 1))},
      gradient{m.upload(lowrank_test::heavy_tailed(shape.size(), 2))};

  trained() { m.exec.reserve(optimizer.workspace_bytes(fp32_weight<device_space>{weights()})); }
  [[nodiscard]] matrix_view<float, device_space> weights() { return row_major<device_space>(weight.data(), shape); }
  void step(matrix_view<float, device_space> w) {
    matrix_view<float const, device_space> const g = row_major<device_space>(gradient.data(), shape);
    std::ignore = optimizer.step(m.exec, state, w, g, {.learning_rate = 0.1F});
  }
  void step() { step(weights()); }
  [[nodiscard]] std::vector<float> values() { return m.download(weight.data(), shape.size()); }
};

void launch_nothing(cuda_executor& exec) {
  exec.single([] LOWRANK_DEVICE {});
}

}  // namespace

TEST_CASE("two devices") {
  int count = 0;
  lowrank::detail::check_cuda(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  if (count < 2) {
    MESSAGE("skipped: this machine has no second device");
    return;
  }
  std::vector<float> alone;
  {
    use(0);
    trained one;
    for (int k = 0; k < 3; ++k) one.step();
    alone = one.values();
  }

  SUBCASE("step beside each other") {
    std::vector<float> found[2];
    std::vector<std::thread> threads;
    for (int device : {0, 1})
      threads.emplace_back([&found, device] {
        use(device);
        trained one;
        if (one.m.exec.device() != device) return;
        for (int k = 0; k < 3; ++k) one.step();
        found[device] = one.values();
      });
    for (auto& thread : threads) thread.join();
    CHECK(found[0] == alone);
    CHECK(found[1] == alone);
  }
  SUBCASE("refuse each other's memory, and to work while another device is current") {
    use(0);
    trained first;
    auto const before = first.values();
    use(1);
    {
      trained second;
      auto const own = second.values();
      auto const text = message_of<error>([&] { second.step(first.weights()); });
      CHECK_MESSAGE(text.find("step: the weight must be memory of device 1; that at 0x") != std::string::npos, text);
      CHECK(text.find(" is of device 0") != std::string::npos);
      CHECK(message_of<error>([&] { first.step(); }).find("the executor runs on device 0, current is device 1") !=
            std::string::npos);
      CHECK(message_of<error>([&] { launch_nothing(first.m.exec); }).find("cudaErrorInvalidResourceHandle") !=
            std::string::npos);
      CHECK(second.values() == own);
      for (int k = 0; k < 3; ++k) second.step();
      CHECK(second.values() == alone);
    }
    use(0);
    CHECK(first.values() == before);
    for (int k = 0; k < 3; ++k) first.step();
    CHECK(first.values() == alone);
  }
  use(0);
}
