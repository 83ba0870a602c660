/// @file
/// safetensors files: read on demand, written in one go, strangers not trusted.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lowrank/core/buffer.hpp"
#include "lowrank/io/detail/posix_file.hpp"
#include "lowrank/io/detail/safetensors_header.hpp"
#include "lowrank/io/tensor_info.hpp"

namespace lowrank {

/// An open safetensors file. Opening reads and verifies the header and nothing else; tensors are read when asked for,
/// into memory of the caller, so the file may be larger than memory.
/// Throws: io_error when the file cannot be read or breaks the format anywhere, before anything is allocated by its
/// word.
/// Reference: the format section of the safetensors README (huggingface/safetensors).
class safetensors_reader {
 public:
  explicit safetensors_reader(std::filesystem::path path) : file_{std::move(path), "safetensors_reader"} {
    std::array<std::uint8_t, 8> field{};
    require<io_error>(file_.size() >= 8, caller(), "the file must have at least 8 bytes, got ", file_.size());
    file_.read(0, std::as_writable_bytes(std::span{field}));
    auto const length = std::bit_cast<std::uint64_t>(field);
    require<io_error>(length <= std::uint64_t{detail::header_limit}, caller(), "the header must not exceed ",
                      detail::header_limit, " bytes, the file says ", length);
    require<io_error>(static_cast<index_t>(length) <= file_.size() - 8, caller(), "the file says its header has ",
                      length, " bytes, but only ", file_.size() - 8, " follow");
    std::string text(length, ' ');
    file_.read(8, std::as_writable_bytes(std::span{text}));
    data_begin_ = 8 + static_cast<index_t>(length);
    header_ = detail::parse_header(text, file_.size() - data_begin_, caller());
    by_name_.resize(header_.tensors.size());
    for (std::size_t i = 0; i < by_name_.size(); ++i) by_name_[i] = i;
    std::ranges::sort(by_name_, {}, [this](std::size_t i) -> std::string const& { return header_.tensors[i].name; });
  }

  [[nodiscard]] std::filesystem::path const& path() const noexcept { return file_.path(); }
  [[nodiscard]] file_metadata const& metadata() const noexcept { return header_.metadata; }
  /// All tensors, in the order of their bytes.
  [[nodiscard]] std::span<tensor_info const> tensors() const noexcept { return header_.tensors; }
  /// The tensor of that name, or null.
  [[nodiscard]] tensor_info const* find(std::string_view name) const noexcept {
    auto const name_of = [this](std::size_t i) -> std::string_view { return header_.tensors[i].name; };
    auto const place = std::ranges::lower_bound(by_name_, name, {}, name_of);
    return place != by_name_.end() && name_of(*place) == name ? &header_.tensors[*place] : nullptr;
  }
  /// The tensor of that name. Throws: io_error when there is none.
  [[nodiscard]] tensor_info const& at(std::string_view name) const {
    auto const* const info = find(name);
    require<io_error>(info != nullptr, caller(), "there is no tensor ", detail::quoted{name});
    return *info;
  }

  /// All bytes of a tensor. Requires: `out` has exactly its size.
  void read_into(std::string_view name, std::span<std::byte> out) const {
    auto const& info = at(name);
    require<shape_error>(static_cast<index_t>(out.size()) == info.bytes(), caller(), "tensor ", detail::quoted{name},
                         " has ", info.bytes(), " bytes, the memory to read it into has ", out.size());
    file_.read(data_begin_ + info.begin, out);
  }
  /// Bytes [offset, offset + out.size()) of a tensor.
  void read_part(std::string_view name, index_t offset, std::span<std::byte> out) const {
    auto const& info = at(name);
    auto const size = static_cast<index_t>(out.size());
    require<shape_error>(offset >= 0 && size <= info.bytes() && offset <= info.bytes() - size, caller(), "tensor ",
                         detail::quoted{name}, " has ", info.bytes(), " bytes, asked for ", size, " from ", offset);
    file_.read(data_begin_ + info.begin + offset, out);
  }
  /// All elements of a tensor whose type is T.
  template <storable T, std::size_t Size>
  void read(std::string_view name, std::span<T, Size> out) const {
    auto const& info = at(name);
    require<io_error>(info.type == dtype_of<T>, caller(), "tensor ", detail::quoted{name}, " must be ", dtype_of<T>,
                      ", got ", info.type);
    read_into(name, std::as_writable_bytes(out));
  }

  /// Rows and columns of a tensor with at most two dimensions: a vector is one row, a scalar 1x1.
  [[nodiscard]] extents matrix_shape(std::string_view name) const {
    auto const& shape = at(name).shape;
    require<shape_error>(shape.size() <= 2, caller(), "tensor ", detail::quoted{name},
                         " must have at most 2 dimensions, got ", detail::shape_text{shape});
    return {shape.size() == 2 ? shape[0] : 1, shape.empty() ? 1 : shape.back()};
  }
  /// A tensor of F32, F64, F16 or BF16 as fp32, nearest even. Reads row by row: needs no memory of the tensor's size.
  void read_matrix(std::string_view name, matrix_view<float> out) const {
    auto const& info = at(name);
    require<shape_error>(matrix_shape(name) == out.shape(), caller(), "tensor ", detail::quoted{name}, " is ",
                         matrix_shape(name), ", the matrix to read it into ", out.shape());
    switch (info.type) {
      case dtype::f32:
        return convert<float>(info, out);
      case dtype::f64:
        return convert<double>(info, out);
      case dtype::f16:
        return convert<fp16>(info, out);
      case dtype::bf16:
        return convert<bf16>(info, out);
      default:
        throw io_error{detail::join("lowrank::", caller(), ": tensor ", detail::quoted{name},
                                    " must be F32, F64, F16 or BF16, got ", info.type)};
    }
  }
  [[nodiscard]] matrix<float> read_matrix(std::string_view name) const {
    matrix<float> out{matrix_shape(name)};
    read_matrix(name, out.view());
    return out;
  }

 private:
  [[nodiscard]] std::string caller() const { return "safetensors_reader: " + file_.path().string(); }

  template <class T>
  void convert(tensor_info const& info, matrix_view<float> out) const {
    std::array<T, 4096> chunk;
    index_t const total = out.size();
    for (index_t done = 0; done < total;) {
      index_t const count = std::min<index_t>(chunk.size(), total - done);
      auto const part = std::span{chunk}.first(static_cast<std::size_t>(count));
      file_.read(data_begin_ + info.begin + done * index_t{sizeof(T)}, std::as_writable_bytes(part));
      for (T const x : part) {
        if constexpr (std::is_same_v<T, double>) out(done / out.cols, done % out.cols) = static_cast<float>(x);
        else out(done / out.cols, done % out.cols) = to_float(x);
        ++done;
      }
    }
  }

  detail::input_file file_;
  index_t data_begin_{};
  detail::safetensors_header header_;
  std::vector<std::size_t> by_name_;
};

/// What a writer is told about a tensor before it gets the bytes.
struct tensor_spec {
  std::string name;
  dtype type{dtype::f32};
  std::vector<index_t> shape;
};

/// Writes a safetensors file as a stream: all tensors are declared first, then their bytes follow in the order of
/// `tensors()`. The file appears at `commit`, complete and on the disk; until then, or without it, an older file stays
/// as it was.
/// Throws: argument_error or shape_error for tensors that make no valid file, io_error when the disk refuses.
class safetensors_writer {
 public:
  safetensors_writer(std::filesystem::path path, std::vector<tensor_spec> specs, file_metadata metadata = {})
      : tensors_{laid_out(std::move(specs))},
        header_{detail::format_header(tensors_, metadata, "safetensors_writer")},
        file_{std::move(path), "safetensors_writer"} {
    auto const length = std::bit_cast<std::array<std::byte, 8>>(std::uint64_t{header_.size()});
    file_.append(length);
    file_.append(std::as_bytes(std::span{header_}));
  }

  /// The declared tensors in the order of the file: strictest alignment first, then by name.
  [[nodiscard]] std::span<tensor_info const> tensors() const noexcept { return tensors_; }

  /// The next bytes of tensor `name`: all of them, or part after part.
  void append(std::string_view name, std::span<std::byte const> bytes) {
    skip_complete();
    if (bytes.empty()) return;
    require<state_error>(
        current_ < tensors_.size() && tensors_[current_].name == name, "safetensors_writer", "tensor ",
        detail::quoted{name}, " is not the next one, which is ",
        detail::quoted{current_ < tensors_.size() ? std::string_view{tensors_[current_].name} : "none"});
    index_t const left = tensors_[current_].bytes() - written_;
    require<shape_error>(static_cast<index_t>(bytes.size()) <= left, "safetensors_writer", "tensor ",
                         detail::quoted{name}, " has ", left, " bytes left to write, got ", bytes.size());
    file_.append(bytes);
    written_ += static_cast<index_t>(bytes.size());
  }
  /// Replaces the metadata by another that makes a header of the same length: for what is known only at the end.
  void replace_metadata(file_metadata const& metadata) {
    auto const header = detail::format_header(tensors_, metadata, "safetensors_writer");
    require(header.size() == header_.size(), "safetensors_writer",
            "replaced metadata must not change the header's length ", header_.size(), ", got ", header.size());
    file_.patch(8, std::as_bytes(std::span{header}));
  }
  /// Makes the file appear. Throws: state_error when bytes are missing.
  void commit() {
    skip_complete();
    require<state_error>(current_ == tensors_.size(), "safetensors_writer", "bytes of tensor ",
                         detail::quoted{current_ < tensors_.size() ? std::string_view{tensors_[current_].name} : ""},
                         " are missing");
    file_.commit();
  }

 private:
  static std::vector<tensor_info> laid_out(std::vector<tensor_spec> specs) {
    std::ranges::sort(specs, [](tensor_spec const& a, tensor_spec const& b) {
      return a.type != b.type ? a.type > b.type : a.name < b.name;
    });
    std::vector<tensor_info> tensors;
    tensors.reserve(specs.size());
    index_t begin = 0;
    for (auto& spec : specs) {
      require(spec.name != detail::metadata_key, "safetensors_writer", "a tensor must not be called ", spec.name);
      auto const bytes = detail::packed_bytes(spec.type, spec.shape);
      index_t end = 0;
      require<shape_error>(bytes.has_value() && !__builtin_add_overflow(begin, *bytes, &end), "safetensors_writer",
                           "tensor ", detail::quoted{spec.name}, ": shape ", detail::shape_text{spec.shape}, " of ",
                           spec.type, " does not make a whole number of bytes below 2^60");
      tensors.push_back({std::move(spec.name), spec.type, std::move(spec.shape), begin, end});
      begin = end;
    }
    std::vector<std::string_view> names;
    names.reserve(tensors.size());
    for (auto const& t : tensors) names.push_back(t.name);
    std::ranges::sort(names);
    auto const twin = std::ranges::adjacent_find(names);
    require(twin == names.end(), "safetensors_writer", "two tensors are called ",
            detail::quoted{twin == names.end() ? std::string_view{} : *twin});
    return tensors;
  }
  void skip_complete() noexcept {
    while (current_ < tensors_.size() && written_ == tensors_[current_].bytes()) {
      ++current_;
      written_ = 0;
    }
  }

  std::vector<tensor_info> tensors_;
  std::string header_;
  detail::atomic_file file_;
  std::size_t current_{};
  index_t written_{};
};

/// A tensor whose packed bytes lie in memory.
struct tensor_source {
  tensor_spec spec;
  std::span<std::byte const> bytes;
};

/// Writes all of `sources` to a file at once.
inline void write_safetensors(std::filesystem::path const& path, std::span<tensor_source const> sources,
                              file_metadata const& metadata = {}) {
  std::vector<tensor_spec> specs;
  std::map<std::string_view, std::span<std::byte const>> bytes;
  for (auto const& source : sources) {
    specs.push_back(source.spec);
    bytes[source.spec.name] = source.bytes;
  }
  safetensors_writer writer{path, std::move(specs), metadata};
  for (auto const& t : writer.tensors()) writer.append(t.name, bytes[t.name]);
  writer.commit();
}

}  // namespace lowrank
