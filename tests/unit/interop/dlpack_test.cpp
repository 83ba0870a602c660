#include <doctest/doctest.h>

#include <cstddef>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include "lowrank/interop/dlpack.hpp"

namespace dlpack_test {

using namespace lowrank;

// What dlpack.h declares, written down once more: a program that includes it passes these.
namespace foreign {

enum DLDeviceType : std::int32_t { kDLCPU = 1, kDLCUDA = 2, kDLCUDAHost = 3, kDLMetal = 8, kDLCUDAManaged = 13 };
struct DLDevice {
  DLDeviceType device_type;
  std::int32_t device_id;
};
struct DLDataType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};
struct DLTensor {
  void* data;
  DLDevice device;
  std::int32_t ndim;
  DLDataType dtype;
  std::int64_t *shape, *strides;
  std::uint64_t byte_offset;
};
struct DLManagedTensor {
  DLTensor dl_tensor;
  void* manager_ctx;
  void (*deleter)(DLManagedTensor*);
};
struct DLPackVersion {
  std::uint32_t major, minor;
};
struct DLManagedTensorVersioned {
  DLPackVersion version;
  void* manager_ctx;
  void (*deleter)(DLManagedTensorVersioned*);
  std::uint64_t flags;
  DLTensor dl_tensor;
};

}  // namespace foreign

namespace {

/// A tensor of somebody else, of 2 x 3 floats 0 to 5 unless a test says otherwise.
struct producer {
  std::vector<float> memory = [] {
    std::vector<float> out(64);
    std::iota(out.begin(), out.end(), 0.0F);
    return out;
  }();
  std::int64_t shape[4] = {2, 3, 1, 1}, strides[4] = {3, 1, 1, 1};
  foreign::DLTensor tensor{memory.data(), {foreign::kDLCPU, 0}, 2, {2, 32, 1}, shape, strides, 0};

  template <class T = float>
  [[nodiscard]] matrix_view<T> view() const {
    return from_dlpack<T>(tensor);
  }
  [[nodiscard]] foreign::DLManagedTensorVersioned versioned(std::uint64_t flags) const {
    return {{1, 0}, nullptr, nullptr, flags, tensor};
  }
};

/// Has the space and the number of a device, which is all that is asked.
struct device_number_one {
  using space = device_space;
  [[nodiscard]] int device() const noexcept { return 1; }
};

struct counted {
  std::shared_ptr<int> alive = std::make_shared<int>();
};

}  // namespace

TEST_SUITE("dlpack") {
  TEST_CASE("the structures lie in memory as the specification says") {
    static_assert(sizeof(dlpack::tensor) == 48 && offsetof(dlpack::tensor, ndim) == 16);
    static_assert(offsetof(dlpack::tensor, dtype) == 20 && offsetof(dlpack::tensor, shape) == 24);
    static_assert(offsetof(dlpack::tensor, byte_offset) == 40);
    static_assert(sizeof(dlpack::managed_tensor) == 64 && offsetof(dlpack::managed_tensor, deleter) == 56);
    static_assert(sizeof(dlpack::managed_tensor_versioned) == 80);
    static_assert(offsetof(dlpack::managed_tensor_versioned, deleter) == 16);
    static_assert(offsetof(dlpack::managed_tensor_versioned, flags) == 24);
    static_assert(offsetof(dlpack::managed_tensor_versioned, dl_tensor) == 32);
    static_assert(dlpack::versioned<foreign::DLManagedTensorVersioned> && dlpack::managed<foreign::DLManagedTensor>);
    static_assert(!dlpack::versioned<foreign::DLManagedTensor> && dlpack::plain<foreign::DLTensor>);
  }

  TEST_CASE("views see the producer's memory, with its strides and its offset") {
    producer p;
    auto const v = p.view();
    CHECK(v.shape() == extents{2, 3});
    CHECK(v(1, 2) == 5);
    v(1, 2) = 50;
    CHECK(p.memory[5] == 50);

    p.tensor.strides = nullptr;
    p.tensor.byte_offset = 8;
    CHECK(p.view()(1, 0) == 50);
    CHECK(p.view().data == p.memory.data() + 2);

    p.tensor.strides = p.strides;
    p.strides[0] = 1, p.strides[1] = 10;
    CHECK(p.view()(1, 2) == 2 + 1 + 20);

    p.tensor.ndim = 1, p.shape[0] = 7, p.strides[0] = 2, p.tensor.byte_offset = 0;
    auto const every_other = p.view<float const>();
    CHECK(every_other.shape() == extents{1, 7});
    CHECK(every_other(0, 6) == 12);
    p.tensor.strides = nullptr;
    CHECK(p.view().is_row_major());
  }

  TEST_CASE("strides of what has one element or none mean nothing") {
    producer p;
    index_t const wild = std::numeric_limits<index_t>::min();
    p.shape[0] = 1, p.strides[0] = wild;
    CHECK(p.view()(0, 2) == 2);
    p.shape[0] = 3, p.shape[1] = 1, p.strides[0] = 2, p.strides[1] = wild;
    CHECK(p.view()(2, 0) == 4);
    p.shape[0] = 0, p.shape[1] = 5, p.strides[0] = p.strides[1] = 0, p.tensor.data = nullptr;
    CHECK(p.view().empty());
  }

  TEST_CASE("types of elements have to be meant") {
    producer p;
    CHECK_THROWS_WITH_AS(
        std::ignore = p.view<double>(),
        "lowrank::from_dlpack: needs elements of type code 2 with 64 bits in 1 lane, got code 2 with 32 "
        "bits in 1",
        argument_error);
    CHECK_THROWS_AS(std::ignore = p.view<std::int32_t>(), argument_error);
    p.tensor.dtype = {4, 16, 1};
    CHECK_NOTHROW(std::ignore = p.view<bf16>());
    CHECK_THROWS_AS(std::ignore = p.view<fp16>(), argument_error);
    p.tensor.dtype = {2, 16, 1};
    CHECK_NOTHROW(std::ignore = p.view<fp16>());
    CHECK_THROWS_AS(std::ignore = p.view<bf16>(), argument_error);
    p.tensor.dtype = {1, 8, 1};
    CHECK_NOTHROW(std::ignore = p.view<std::uint8_t>());
    CHECK_THROWS_AS(std::ignore = p.view<std::int8_t>(), argument_error);
    for (std::uint16_t const lanes : {0, 2, 4}) {
      p.tensor.dtype = {2, 32, lanes};
      CHECK_THROWS_AS(std::ignore = p.view(), argument_error);
    }
  }

  TEST_CASE("shapes that are no matrix, and that lead out of memory, are refused") {
    producer p;
    for (int const ndim : {-1, 0, 3, 4}) {
      p.tensor.ndim = ndim;
      CHECK_THROWS_WITH_AS(std::ignore = p.view(), doctest::Contains("needs 1 or 2 dimensions"), shape_error);
    }
    p.tensor.ndim = 2;
    p.tensor.shape = nullptr;
    CHECK_THROWS_AS(std::ignore = p.view(), shape_error);
    p.tensor.shape = p.shape;
    p.strides[0] = -3;
    CHECK_THROWS_WITH_AS(std::ignore = p.view(), doctest::Contains("strides must not be negative"), shape_error);
    p.strides[0] = 0;
    CHECK_THROWS_AS(std::ignore = p.view(), shape_error);
    CHECK_NOTHROW(std::ignore = p.view<float const>());  // broadcast, and only looked at
    p.strides[0] = 3, p.shape[0] = -2;
    CHECK_THROWS_AS(std::ignore = p.view(), shape_error);
    p.shape[0] = p.shape[1] = index_t{1} << 40;
    p.tensor.strides = nullptr;
    CHECK_THROWS_AS(std::ignore = p.view(), shape_error);
    p.shape[0] = 2, p.shape[1] = 3;
    p.tensor.byte_offset = std::numeric_limits<std::uint64_t>::max() - 3;
    CHECK_THROWS_WITH_AS(std::ignore = p.view(), doctest::Contains("the byte offset leads out of memory"), shape_error);
    p.tensor.byte_offset = 2;
    CHECK_THROWS_WITH_AS(std::ignore = p.view(), doctest::Contains("must be aligned to 4 bytes"), argument_error);
    p.tensor.byte_offset = 0;
    p.tensor.data = nullptr;
    CHECK_THROWS_WITH_AS(std::ignore = p.view(), doctest::Contains("got a null pointer"), argument_error);
  }

  TEST_CASE("memory has to be where the executor is") {
    producer p;
    device_number_one const exec;
    CHECK_THROWS_WITH_AS(std::ignore = from_dlpack<float>(exec, p.tensor), doctest::Contains("got device type 1"),
                         argument_error);
    p.tensor.device = {foreign::kDLCUDA, 1};
    auto const v = from_dlpack<float>(exec, p.tensor);
    static_assert(std::is_same_v<decltype(v), matrix_view<float, device_space> const>);
    CHECK(v.data == p.memory.data());
    CHECK_THROWS_WITH_AS(std::ignore = p.view(), doctest::Contains("got device type 2"), argument_error);
    p.tensor.device.device_id = 0;
    CHECK_THROWS_WITH_AS(std::ignore = from_dlpack<float>(exec, p.tensor),
                         "lowrank::from_dlpack: the executor runs on device 1, the tensor is on device 0",
                         argument_error);
    p.tensor.device = {foreign::kDLCUDAManaged, 0};
    CHECK_NOTHROW(std::ignore = from_dlpack<float>(exec, p.tensor));
    p.tensor.device.device_type = foreign::kDLCUDAHost;
    CHECK_NOTHROW(std::ignore = p.view());
    CHECK_THROWS_AS(std::ignore = from_dlpack<float>(exec, p.tensor), argument_error);
    p.tensor.device.device_type = foreign::kDLMetal;
    CHECK_THROWS_AS(std::ignore = p.view(), argument_error);
    CHECK_THROWS_AS(std::ignore = from_dlpack<float>(exec, p.tensor), argument_error);
  }

  TEST_CASE("what is read-only stays unwritten, and a version to come is not guessed at") {
    producer const p;
    CHECK_NOTHROW(std::ignore = from_dlpack<float>(p.versioned(0)));
    CHECK_NOTHROW(std::ignore = from_dlpack<float>(p.versioned(2)));
    CHECK_THROWS_WITH_AS(std::ignore = from_dlpack<float>(p.versioned(1)),
                         "lowrank::from_dlpack: the tensor is read-only; ask for const elements", argument_error);
    CHECK(from_dlpack<float const>(p.versioned(1))(1, 2) == 5);
    auto later = p.versioned(0);
    later.version = {1, 99};
    CHECK_NOTHROW(std::ignore = from_dlpack<float>(later));
    later.version = {2, 0};
    CHECK_THROWS_WITH_AS(std::ignore = from_dlpack<float>(later), doctest::Contains("got 2.0"), argument_error);
    foreign::DLManagedTensor const old{p.tensor, nullptr, nullptr};
    CHECK(from_dlpack<float>(old).data == p.memory.data());
  }

  TEST_CASE("what goes out is alive until it is given back, and comes in as it was") {
    matrix<float> weights{5, 7};
    for (index_t i = 0; i < 35; ++i) weights.data()[i] = static_cast<float>(i);
    float const* const memory = weights.data();
    counted const owner;
    {
      auto const tensor = to_dlpack(weights.view().t().row_range(1, 4), owner);
      CHECK(owner.alive.use_count() == 2);
      auto const back = from_dlpack<float>(*tensor);
      CHECK(back.shape() == extents{3, 5});
      CHECK(back.data == memory + 1);
      CHECK(back(2, 4) == 4 * 7 + 3);
      CHECK(tensor->flags == 0);
      CHECK(tensor->version.major == 1);
    }
    CHECK(owner.alive.use_count() == 1);

    // The duty to give it back goes on to a consumer that knows dlpack.h only.
    auto* const taken = to_dlpack<foreign::DLManagedTensorVersioned>(weights.view(), owner).release();
    CHECK(owner.alive.use_count() == 2);
    CHECK(taken->dl_tensor.device.device_type == foreign::kDLCPU);
    CHECK(taken->dl_tensor.strides[0] == 7);
    taken->deleter(taken);
    CHECK(owner.alive.use_count() == 1);
    auto const old = to_dlpack<foreign::DLManagedTensor>(weights.view(), owner);
    CHECK(from_dlpack<float>(*old).data == memory);

    // The matrix itself moves in: nobody else keeps it.
    auto const moved = to_dlpack(weights.view(), std::move(weights));
    CHECK(from_dlpack<float const>(*moved)(4, 6) == 34);
    CHECK(moved->dl_tensor.data == memory);
  }

  TEST_CASE("const views go out read-only, device views with their device") {
    std::vector<float> memory(6);
    auto const tensor = to_dlpack(raw::row_major(static_cast<float const*>(memory.data()), 2, 3), 0);
    CHECK(tensor->flags == dlpack::read_only);
    CHECK_THROWS_AS(std::ignore = from_dlpack<float>(*tensor), argument_error);
    CHECK_NOTHROW(std::ignore = from_dlpack<float const>(*tensor));

    device_number_one const exec;
    std::vector<bf16> narrow(6);
    auto const on_device = to_dlpack(exec, raw::row_major<device_space>(narrow.data(), 2, 3), 0);
    CHECK(on_device->dl_tensor.device.device_type == dlpack::cuda);
    CHECK(on_device->dl_tensor.device.device_id == 1);
    CHECK(int{on_device->dl_tensor.dtype.code} == 4);
    CHECK(int{on_device->dl_tensor.dtype.bits} == 16);
    CHECK(from_dlpack<bf16>(exec, *on_device).data == narrow.data());
    CHECK_THROWS_AS(std::ignore = from_dlpack<bf16>(*on_device), argument_error);
  }

  TEST_CASE("handles give back what others made, once") {
    static int given_back = 0;
    producer const p;
    auto theirs = p.versioned(0);
    theirs.deleter = [](foreign::DLManagedTensorVersioned*) { ++given_back; };
    { dlpack::handle<foreign::DLManagedTensorVersioned> const held{&theirs}; }
    CHECK(given_back == 1);
    theirs.deleter = nullptr;  // allowed: nothing to give back
    { dlpack::handle<foreign::DLManagedTensorVersioned> const held{&theirs}; }
    CHECK(given_back == 1);
  }
}

}  // namespace dlpack_test
