/// @file
/// Tensors of other libraries through DLPack, in and out, on host and device. Nothing is copied.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <type_traits>
#include <utility>

#include "lowrank/core/buffer.hpp"
#include "lowrank/core/scalar.hpp"
#include "lowrank/interop/raw.hpp"

namespace lowrank {

/// The structures of DLPack 1.1 as they lie in memory. A program that includes dlpack.h uses its own ones instead: every
/// function here takes both.
namespace dlpack {

enum device_kind : std::int32_t { cpu = 1, cuda = 2, cuda_host = 3, cuda_managed = 13 };
enum type_code : std::uint8_t { signed_integer = 0, unsigned_integer = 1, floating = 2, brain_floating = 4 };
inline constexpr std::uint64_t read_only = 1;  ///< a bit of `managed_tensor_versioned::flags`

struct version {
  std::uint32_t major{1}, minor{1};
};
struct device {
  std::int32_t device_type{cpu}, device_id{};
};
struct data_type {
  std::uint8_t code{}, bits{};
  std::uint16_t lanes{1};
};
struct tensor {
  void* data{};
  dlpack::device device{};
  std::int32_t ndim{};
  data_type dtype{};
  std::int64_t* shape{};
  std::int64_t* strides{};  ///< in elements; null: row-major and packed
  std::uint64_t byte_offset{};
};
struct managed_tensor {
  tensor dl_tensor{};
  void* manager_ctx{};
  void (*deleter)(managed_tensor*){};
};
struct managed_tensor_versioned {
  dlpack::version version{};
  void* manager_ctx{};
  void (*deleter)(managed_tensor_versioned*){};
  std::uint64_t flags{};
  tensor dl_tensor{};
};

template <class D>
concept plain = requires(D const& d) {
  d.data, d.device.device_type, d.device.device_id, d.ndim, d.dtype.code, d.dtype.bits, d.dtype.lanes;
  d.shape, d.strides, d.byte_offset;
};
template <class D>
concept managed = requires(D& d) {
  requires plain<decltype(d.dl_tensor)>;
  d.manager_ctx, d.deleter(&d);
};
template <class D>
concept versioned = managed<D> && requires(D const& d) {
  d.version.major, d.version.minor, d.flags;
};

/// What the library keeps numbers in, and what DLPack has a name for.
template <class T>
concept element = std::same_as<T, float> || std::same_as<T, double> || std::same_as<T, bf16> || std::same_as<T, fp16> ||
    std::same_as<T, std::int8_t> || std::same_as<T, std::uint8_t> || std::same_as<T, std::int32_t> ||
    std::same_as<T, std::int64_t>;
template <element T>
inline constexpr data_type type_of{std::same_as<T, bf16>                                  ? brain_floating
                                   : std::same_as<T, fp16> || std::is_floating_point_v<T> ? floating
                                   : std::is_signed_v<T>                                  ? signed_integer
                                                                                          : unsigned_integer,
                                   8 * sizeof(T)};

/// Gives a tensor back to who made it.
struct deletion {
  template <managed D>
  void operator()(D* d) const {
    if (d->deleter != nullptr) d->deleter(d);
  }
};
/// A tensor that will be given back: what a consumer holds while it uses a view of it, and what `to_dlpack` makes.
/// `release()` hands the duty on, to a PyCapsule for instance.
template <managed D>
using handle = std::unique_ptr<D, deletion>;

namespace detail {

template <class D>
[[nodiscard]] auto const& tensor_of(D const& d) noexcept {
  if constexpr (managed<D>) return d.dl_tensor;
  else return d;
}

/// Memory of the host, and of one device.
inline void require_reachable(host_space, int kind, int, int) {
  require(kind == cpu || kind == cuda_host, "from_dlpack", "needs memory of the host (1 or 3), got device type ", kind);
}
inline void require_reachable(device_space, int kind, int id, int own) {
  require(kind == cuda || kind == cuda_managed, "from_dlpack",
          "needs memory of a CUDA device (2 or 13), got device type ", kind);
  require(kind == cuda_managed || id == own, "from_dlpack", "the executor runs on device ", own,
          ", the tensor is on device ", id);
}

template <class T, memory_space Space, class D>
[[nodiscard]] matrix_view<T, Space> matrix_of(D const& given, int own_device) {
  constexpr auto caller = "from_dlpack";
  if constexpr (versioned<D>) {
    // A later major version may have moved everything behind the flags.
    require(given.version.major == 1, caller, "needs version 1 of DLPack, got ", given.version.major, ".",
            given.version.minor);
    require(std::is_const_v<T> || (given.flags & read_only) == 0, caller,
            "the tensor is read-only; ask for const elements");
  }
  auto const& t = tensor_of(given);
  constexpr auto wanted = type_of<std::remove_const_t<T>>;
  int const code = static_cast<int>(t.dtype.code), bits = static_cast<int>(t.dtype.bits), lanes = t.dtype.lanes;
  require(code == int{wanted.code} && bits == int{wanted.bits} && lanes == 1, caller, "needs elements of type code ",
          int{wanted.code}, " with ", int{wanted.bits}, " bits in 1 lane, got code ", code, " with ", bits, " bits in ",
          lanes);
  dlpack::detail::require_reachable(Space{}, static_cast<int>(t.device.device_type), t.device.device_id, own_device);
  require<shape_error>(t.ndim == 1 || t.ndim == 2, caller,
                       "needs 1 or 2 dimensions; reshape the tensor before it is handed over, got ", t.ndim);
  require<shape_error>(t.shape != nullptr, caller, "the tensor has no shape");
  index_t const rows = t.ndim == 2 ? t.shape[0] : 1, cols = t.shape[t.ndim - 1];
  // Where there is no second element, producers write any stride.
  index_t const col_stride = t.strides != nullptr && cols > 1 ? t.strides[t.ndim - 1] : 1;
  index_t const row_stride = t.strides != nullptr && t.ndim == 2 && rows > 1 ? t.strides[0] : cols;
  auto const address = reinterpret_cast<std::uintptr_t>(t.data);
  require<shape_error>(t.byte_offset <= std::numeric_limits<std::uintptr_t>::max() - address, caller,
                       "the byte offset leads out of memory, got ", t.byte_offset);
  auto* const data =
      t.data == nullptr ? nullptr : reinterpret_cast<T*>(static_cast<std::byte*>(t.data) + t.byte_offset);
  return raw::strided<Space>(data, rows, cols, row_stride, col_stride);
}

/// A tensor, the numbers it points to, and what keeps its elements alive.
template <class D, class Owner>
struct exported {
  D tensor{};
  std::array<std::int64_t, 2> shape, strides;
  Owner owner;
};

template <class D, class T, memory_space Space, class Owner>
[[nodiscard]] handle<D> hand_out(matrix_view<T, Space> v, Owner&& owner, int own_device) {
  static_assert(versioned<D> || !std::is_const_v<T>,
                "lowrank: only a versioned DLPack tensor can say that it is read-only");
  constexpr auto type = type_of<std::remove_const_t<T>>;
  using whole = exported<D, std::decay_t<Owner>>;
  auto* const out = new whole{{}, {v.rows, v.cols}, {v.row_stride, v.col_stride}, std::forward<Owner>(owner)};
  out->tensor.manager_ctx = out;
  out->tensor.deleter = [](D* self) { delete static_cast<whole*>(self->manager_ctx); };
  if constexpr (versioned<D>) {
    out->tensor.version.major = 1, out->tensor.version.minor = 1;
    out->tensor.flags = std::is_const_v<T> ? read_only : 0;
  }
  auto& t = out->tensor.dl_tensor;
  t.data = const_cast<std::remove_const_t<T>*>(v.data);
  t.device.device_type = static_cast<decltype(t.device.device_type)>(std::same_as<Space, host_space> ? cpu : cuda);
  t.device.device_id = own_device;
  t.ndim = 2;
  t.dtype.code = type.code, t.dtype.bits = type.bits, t.dtype.lanes = 1;
  t.shape = out->shape.data(), t.strides = out->strides.data(), t.byte_offset = 0;
  return handle<D>{&out->tensor};
}

template <class E>
[[nodiscard]] int device_of(E const& exec) noexcept {
  if constexpr (requires { exec.device(); }) return exec.device();
  else return 0;
}

}  // namespace detail
}  // namespace dlpack

/// The elements of a tensor in host memory, as `eigen::view` is to Eigen's matrices: from a DLTensor, a DLManagedTensor or a
/// DLManagedTensorVersioned. One dimension becomes the 1 x n that optimizers take.
/// Requires: whoever made the tensor gets it back (`dlpack::handle`) after the last use of the view.
/// Throws: argument_error for another type of elements, another kind of memory, a read-only tensor where T is not const,
/// and another major version; shape_error for more than 2 dimensions; the rest as raw::strided.
template <class T, class D>
  requires(dlpack::plain<D> || dlpack::managed<D>)
&&dlpack::element<std::remove_const_t<T>> [[nodiscard]] matrix_view<T> from_dlpack(D const& tensor) {
  return dlpack::detail::matrix_of<T, host_space>(tensor, 0);
}
/// The same in the memory of an executor, which must be that of its own device.
/// Requires: on a device, the work that fills the tensor is ahead of the executor's stream.
template <class T, class E, class D>
  requires(dlpack::plain<D> || dlpack::managed<D>)
&&memory_space<typename E::space>&&
    dlpack::element<std::remove_const_t<T>> [[nodiscard]] matrix_view<T, typename E::space>
    from_dlpack(E const& exec, D const& tensor) {
  return dlpack::detail::matrix_of<T, typename E::space>(tensor, dlpack::detail::device_of(exec));
}

/// A view as a tensor for others, read-only where the view is; `owner` (the matrix itself, a shared pointer, nothing that
/// matters) lives until they give it back. For dlpack.h's own structure: to_dlpack<DLManagedTensorVersioned>(...).
template <dlpack::managed D = dlpack::managed_tensor_versioned, class T, class Owner>
  requires dlpack::element<std::remove_const_t<T>>
[[nodiscard]] dlpack::handle<D> to_dlpack(matrix_view<T> v, Owner&& owner) {
  return dlpack::detail::hand_out<D>(v, std::forward<Owner>(owner), 0);
}
/// The same for the memory of an executor.
/// Requires: on a device, who takes the tensor waits for the executor's stream.
template <dlpack::managed D = dlpack::managed_tensor_versioned, class E, class T, class Owner>
  requires dlpack::element<std::remove_const_t<T>>
[[nodiscard]] dlpack::handle<D> to_dlpack(E const& exec, matrix_view<T, typename E::space> v, Owner&& owner) {
  return dlpack::detail::hand_out<D>(v, std::forward<Owner>(owner), dlpack::detail::device_of(exec));
}

}  // namespace lowrank
