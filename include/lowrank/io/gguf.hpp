/// @file
/// GGUF files, ggml's format of models: read on demand, strangers not trusted.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lowrank/core/buffer.hpp"
#include "lowrank/io/detail/gguf_blocks.hpp"
#include "lowrank/io/detail/gguf_header.hpp"

namespace lowrank {

/// What happens when a tensor holds a NaN or an infinity, as a damaged scale makes of 32 elements at once.
enum class nonfinite : std::uint8_t { pass, refuse };

/// An open GGUF file. Opening reads and verifies the header and nothing else; tensors are read when asked for, row by
/// row, so the file may be larger than memory.
/// Throws: io_error when the file cannot be read or breaks the format anywhere, before anything is allocated by its
/// word.
/// Reference: docs/gguf.md of ggml-org/ggml, version 3.
class gguf_reader {
 public:
  explicit gguf_reader(std::filesystem::path path) : file_{std::move(path), "gguf_reader"} {
    header_ = detail::gguf_parser{file_, caller()}.parse();
    by_name_.resize(header_.tensors.size());
    for (std::size_t i = 0; i < by_name_.size(); ++i) by_name_[i] = i;
    std::ranges::sort(by_name_, {}, [this](std::size_t i) -> std::string const& { return header_.tensors[i].name; });
  }

  [[nodiscard]] std::filesystem::path const& path() const noexcept { return file_.path(); }
  [[nodiscard]] gguf_metadata const& metadata() const noexcept { return header_.metadata; }
  /// All tensors, in the order of the header.
  [[nodiscard]] std::span<gguf_tensor const> tensors() const noexcept { return header_.tensors; }
  /// Where the tensors' bytes start in the file.
  [[nodiscard]] index_t data_begin() const noexcept { return header_.data_begin; }
  /// The tensor of that name, or null.
  [[nodiscard]] gguf_tensor const* find(std::string_view name) const noexcept {
    auto const name_of = [this](std::size_t i) -> std::string_view { return header_.tensors[i].name; };
    auto const place = std::ranges::lower_bound(by_name_, name, {}, name_of);
    return place != by_name_.end() && name_of(*place) == name ? &header_.tensors[*place] : nullptr;
  }
  /// The tensor of that name. Throws: io_error when there is none.
  [[nodiscard]] gguf_tensor const& at(std::string_view name) const {
    auto const* const tensor = find(name);
    require<io_error>(tensor != nullptr, caller(), "there is no tensor ", detail::quoted{name});
    return *tensor;
  }

  /// All bytes of a tensor. Requires: `out` has exactly its size.
  void read_into(std::string_view name, std::span<std::byte> out) const {
    auto const& tensor = at(name);
    require<shape_error>(static_cast<index_t>(out.size()) == tensor.bytes(), caller(), "tensor ", detail::quoted{name},
                         " has ", tensor.bytes(), " bytes, the memory to read it into has ", out.size());
    file_.read(header_.data_begin + tensor.begin, out);
  }
  /// Rows and columns of a tensor with at most two dimensions: a vector is one row, a scalar 1x1.
  [[nodiscard]] extents matrix_shape(std::string_view name) const {
    auto const& shape = at(name).shape;
    require<shape_error>(shape.size() <= 2, caller(), "tensor ", detail::quoted{name},
                         " must have at most 2 dimensions, got ", detail::shape_text{shape});
    return {shape.size() == 2 ? shape[0] : 1, shape.empty() ? 1 : shape.back()};
  }
  /// A tensor of F32, F16, BF16, Q8_0, Q4_0 or Q4_1 as fp32. Needs no memory of the tensor's size.
  /// Throws: io_error for another type, and with nonfinite::refuse for a NaN or an infinity; shape_error.
  void read_matrix(std::string_view name, matrix_view<float> out, nonfinite what = nonfinite::pass) const {
    auto const& tensor = at(name);
    require<shape_error>(matrix_shape(name) == out.shape(), caller(), "tensor ", detail::quoted{name}, " is ",
                         matrix_shape(name), ", the matrix to read it into ", out.shape());
    switch (tensor.type) {
      case ggml_type::f32:
        return decode<detail::ggml_plain<float>>(tensor, out, what);
      case ggml_type::f16:
        return decode<detail::ggml_plain<fp16>>(tensor, out, what);
      case ggml_type::bf16:
        return decode<detail::ggml_plain<bf16>>(tensor, out, what);
      case ggml_type::q8_0:
        return decode<detail::ggml_q8_0>(tensor, out, what);
      case ggml_type::q4_0:
        return decode<detail::ggml_q4_0>(tensor, out, what);
      case ggml_type::q4_1:
        return decode<detail::ggml_q4_1>(tensor, out, what);
      default:
        throw io_error{detail::join("lowrank::", caller(), ": tensor ", detail::quoted{name},
                                    " must be F32, F16, BF16, Q8_0, Q4_0 or Q4_1, got ", tensor.type)};
    }
  }
  [[nodiscard]] matrix<float> read_matrix(std::string_view name, nonfinite what = nonfinite::pass) const {
    matrix<float> out{matrix_shape(name)};
    read_matrix(name, out.view(), what);
    return out;
  }

 private:
  [[nodiscard]] std::string caller() const { return "gguf_reader: " + file_.path().string(); }

  [[noreturn]] void refuse_number(std::string_view name, float x, index_t row, index_t col) const {
    throw io_error{detail::join("lowrank::", caller(), ": tensor ", detail::quoted{name}, " must be finite, got ", x,
                                " in row ", row, ", column ", col)};
  }
  /// Blocks never cross the end of a row.
  template <class Block>
  void decode(gguf_tensor const& tensor, matrix_view<float> out, nonfinite what) const {
    constexpr index_t at_once = (index_t{1} << 16) / Block::bytes;
    std::vector<unsigned char> chunk(static_cast<std::size_t>(at_once * Block::bytes));
    std::array<float, static_cast<std::size_t>(Block::values)> values;
    index_t const blocks = tensor.bytes() / Block::bytes;
    index_t row = 0, col = 0;
    for (index_t done = 0; done < blocks;) {
      index_t const count = std::min(at_once, blocks - done);
      auto const part = std::span{chunk}.first(static_cast<std::size_t>(count * Block::bytes));
      file_.read(header_.data_begin + tensor.begin + done * Block::bytes, std::as_writable_bytes(part));
      for (index_t b = 0; b < count; ++b) {
        Block::decode(part.data() + b * Block::bytes, values.data());
        for (index_t i = 0; i < Block::values; ++i) {
          float const x = values[static_cast<std::size_t>(i)];
          if (what == nonfinite::refuse && !is_finite(x)) refuse_number(tensor.name, x, row, col + i);
          out(row, col + i) = x;
        }
        col += Block::values;
        if (col == out.cols) {
          col = 0;
          ++row;
        }
      }
      done += count;
    }
  }

  detail::input_file file_;
  detail::gguf_header header_;
  std::vector<std::size_t> by_name_;
};

}  // namespace lowrank
