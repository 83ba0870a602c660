/// @file
/// Memory the library owns: fixed in size, zeroed at birth, never reallocated.
#pragma once

#include <limits>
#include <span>
#include <type_traits>
#include <utility>

#include "lowrank/core/error.hpp"
#include "lowrank/core/view.hpp"

namespace lowrank {

/// Owning array of `size` trivially copyable elements in `Space`, all bits zero at first. Moves; does not copy, because
/// a silent copy of optimizer state is never what was meant.
template <class T, memory_space Space = host_space>
class buffer {
  static_assert(std::is_trivially_copyable_v<T>, "lowrank: buffers hold plain numbers");

 public:
  using value_type = T;
  using space = Space;

  buffer() = default;
  // An object before its memory is zeroed, so that the memory is given back when that fails.
  explicit buffer(index_t size) : buffer{} {
    require<shape_error>(size >= 0 && size <= std::numeric_limits<index_t>::max() / index_t{sizeof(T)}, "buffer",
                         "size must be in [0, 2^63 / ", sizeof(T), "), got ", size);
    if (size == 0) return;
    data_ = static_cast<T*>(memory<Space>::allocate(bytes_of(size)));
    size_ = size;
    memory<Space>::zero(data_, bytes_of(size));
  }
  buffer(buffer&& other) noexcept : data_{std::exchange(other.data_, nullptr)}, size_{std::exchange(other.size_, 0)} {}
  buffer& operator=(buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  buffer(buffer const&) = delete;
  buffer& operator=(buffer const&) = delete;
  ~buffer() {
    if (data_ != nullptr) memory<Space>::release(data_, bytes_of(size_));
  }

  [[nodiscard]] T* data() noexcept { return data_; }
  [[nodiscard]] T const* data() const noexcept { return data_; }
  [[nodiscard]] index_t size() const noexcept { return size_; }
  [[nodiscard]] index_t bytes() const noexcept { return size_ * index_t{sizeof(T)}; }

  /// The elements, on the host only.
  [[nodiscard]] std::span<T> span() noexcept requires std::same_as<Space, host_space> {
    return {data_, static_cast<std::size_t>(size_)};
  }
  [[nodiscard]] std::span<T const> span() const noexcept requires std::same_as<Space, host_space> {
    return {data_, static_cast<std::size_t>(size_)};
  }

 private:
  static std::size_t bytes_of(index_t size) noexcept { return static_cast<std::size_t>(size) * sizeof(T); }

  T* data_{};
  index_t size_{};
};

/// Owning packed row-major matrix.
template <class T, memory_space Space = host_space>
class matrix {
 public:
  using value_type = T;
  using space = Space;

  matrix() = default;
  explicit matrix(extents shape) : storage_{shape.size()}, shape_{shape} {}
  matrix(index_t rows, index_t cols) : matrix{extents{rows, cols}} {}

  [[nodiscard]] extents shape() const noexcept { return shape_; }
  [[nodiscard]] index_t bytes() const noexcept { return storage_.bytes(); }
  [[nodiscard]] T* data() noexcept { return storage_.data(); }
  [[nodiscard]] T const* data() const noexcept { return storage_.data(); }
  [[nodiscard]] matrix_view<T, Space> view() noexcept { return row_major<Space>(storage_.data(), shape_); }
  [[nodiscard]] matrix_view<T const, Space> view() const noexcept { return row_major<Space>(storage_.data(), shape_); }
  [[nodiscard]] T& operator()(index_t i, index_t j) noexcept requires std::same_as<Space, host_space> {
    return storage_.data()[i * shape_.cols + j];
  }
  [[nodiscard]] T const& operator()(index_t i, index_t j) const noexcept requires std::same_as<Space, host_space> {
    return storage_.data()[i * shape_.cols + j];
  }

 private:
  buffer<T, Space> storage_;
  extents shape_{};
};

}  // namespace lowrank
