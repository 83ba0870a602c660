/// @file
/// The header of a GGUF file, from bytes. Everything about it is refused that the format does not say.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/io/detail/posix_file.hpp"
#include "lowrank/io/gguf_metadata.hpp"
#include "lowrank/io/gguf_tensor.hpp"

namespace lowrank::detail {

/// A vocabulary of a quarter million words takes a tenth of it.
inline constexpr index_t gguf_header_limit = 100'000'000;
inline constexpr std::uint32_t gguf_dimension_limit = 4;  // ggml's
inline constexpr std::uint32_t gguf_alignment_limit = 1U << 20;

/// The header's bytes one after the other. What the file counts is compared with the bytes that are left before anything
/// of that size is allocated.
class gguf_source {
 public:
  gguf_source(input_file const& file, std::string_view caller)
      : file_{file}, caller_{caller}, end_{std::min(file.size(), gguf_header_limit)} {}

  [[nodiscard]] index_t position() const noexcept { return position_; }

  void read(std::span<std::byte> out) {
    require_left(out.size());
    while (!out.empty()) {
      if (used_ == filled_) fill();
      auto const part = std::min(out.size(), filled_ - used_);
      std::copy_n(buffer_.data() + used_, part, out.data());
      used_ += part;
      position_ += static_cast<index_t>(part);
      out = out.subspan(part);
    }
  }
  template <class T>
  [[nodiscard]] T number() {
    std::array<std::byte, sizeof(T)> bytes{};
    read(bytes);
    return std::bit_cast<T>(bytes);
  }
  /// A count of things that take at least `bytes_each` bytes each.
  [[nodiscard]] std::size_t count(std::string_view of_what, std::uint64_t bytes_each) {
    auto const value = number<std::uint64_t>();
    require<io_error>(value <= left() / bytes_each, caller_, "the header says it has ", value, " ", of_what,
                      ", but only ", left(), " bytes may follow");
    return static_cast<std::size_t>(value);
  }
  [[nodiscard]] std::string text() {
    std::string out(count("bytes of text", 1), ' ');
    read(std::as_writable_bytes(std::span{out}));
    return out;
  }

 private:
  [[nodiscard]] std::uint64_t left() const noexcept { return static_cast<std::uint64_t>(end_ - position_); }
  void require_left(std::size_t bytes) const {
    require<io_error>(bytes <= left() || end_ < file_.size(), caller_, "the file ends inside of its header, at byte ",
                      end_);
    require<io_error>(bytes <= left(), caller_, "the header must not exceed ", gguf_header_limit, " bytes");
  }
  void fill() {
    filled_ = std::min<std::size_t>(buffer_.size(), static_cast<std::size_t>(left()));
    file_.read(position_, std::span{buffer_}.first(filled_));
    used_ = 0;
  }

  input_file const& file_;
  std::string_view caller_;
  index_t position_{}, end_;
  std::array<std::byte, 1 << 16> buffer_;
  std::size_t used_{}, filled_{};
};

struct gguf_header {
  gguf_metadata metadata;
  std::vector<gguf_tensor> tensors;  ///< in the order of the file
  index_t data_begin{};              ///< byte of the file where the data starts
};

/// Reads and verifies a header, once.
class gguf_parser {
 public:
  gguf_parser(input_file const& file, std::string const& caller)
      : source_{file, caller}, caller_{caller}, file_bytes_{file.size()}, header_{gguf_metadata{caller}, {}, 0} {}

  [[nodiscard]] gguf_header parse() {
    constexpr std::array<char, 4> magic{'G', 'G', 'U', 'F'};
    require<io_error>(source_.number<std::array<char, 4>>() == magic, caller_, "the file must start with \"GGUF\"");
    auto const version = source_.number<std::uint32_t>();
    require<io_error>(version != 3U << 24, caller_, "the file is big-endian");
    require<io_error>(version == 3, caller_, "the format's version must be 3, got ", version);
    // A tensor takes at least name, dimensions, type and offset; a key name, type and one byte.
    auto const tensors = source_.count("tensors", 8 + 4 + 4 + 8), keys = source_.count("keys", 8 + 4 + 1);
    for (std::size_t i = 0; i < keys; ++i) read_key();
    for (std::size_t i = 0; i < tensors; ++i) read_tensor();
    place_data();
    return std::move(header_);
  }

 private:
  static constexpr std::size_t array_type = 9;

  template <class T>
  [[nodiscard]] T element(std::string_view key) {
    if constexpr (std::is_same_v<T, std::string>) return source_.text();
    else if constexpr (std::is_same_v<T, bool>) {
      auto const value = source_.number<std::uint8_t>();
      require<io_error>(value <= 1, caller_, "key ", quoted{key}, " must hold truth values of 0 or 1, got ",
                        int{value});
      return value != 0;
    } else return source_.number<T>();
  }
  template <class T>
  [[nodiscard]] std::vector<T> elements(std::string_view key) {
    auto const size = source_.count("elements of an array", std::is_same_v<T, std::string> ? 8 : sizeof(T));
    std::vector<T> out;
    out.reserve(size);
    for (std::size_t i = 0; i < size; ++i) out.push_back(element<T>(key));
    return out;
  }
  /// A value of the file's type `number`, for which `Variant` has an alternative.
  template <class Variant, class Read, std::size_t... Type>
  [[nodiscard]] Variant alternative(std::uint32_t number, std::string_view key, Read const& read,
                                    std::index_sequence<Type...>) {
    Variant out;
    bool const known =
        ((number == Type && (out.template emplace<Type>(read(std::integral_constant<std::size_t, Type>{})), true)) ||
         ...);
    require<io_error>(known, caller_, "key ", quoted{key}, " has a value of the unknown type ", number);
    return out;
  }
  [[nodiscard]] gguf_array array(std::string_view key) {
    auto const type = source_.number<std::uint32_t>();
    require<io_error>(type != array_type, caller_, "key ", quoted{key}, " holds an array of arrays");
    auto const read = [&]<std::size_t Type>(std::integral_constant<std::size_t, Type>) {
      if constexpr (Type == array_type) return std::monostate{};
      else return elements<typename std::variant_alternative_t<Type, gguf_array>::value_type>(key);
    };
    return alternative<gguf_array>(type, key, read, std::make_index_sequence<std::variant_size_v<gguf_array>>{});
  }
  void read_key() {
    auto key = source_.text();
    auto const type = source_.number<std::uint32_t>();
    auto const read = [&]<std::size_t Type>(std::integral_constant<std::size_t, Type>) {
      if constexpr (Type == array_type) return array(key);
      else return element<std::variant_alternative_t<Type, gguf_value>>(key);
    };
    auto value = alternative<gguf_value>(type, key, read, std::make_index_sequence<std::variant_size_v<gguf_value>>{});
    header_.metadata.add(std::move(key), std::move(value));
  }
  void read_tensor() {
    gguf_tensor t;
    t.name = source_.text();
    auto const refuse_unless = [&](bool holds, auto const&... parts) {
      require<io_error>(holds, caller_, "tensor ", quoted{t.name}, parts...);
    };
    auto const dimensions = source_.number<std::uint32_t>();
    refuse_unless(dimensions <= gguf_dimension_limit, " must have at most ", gguf_dimension_limit, " dimensions, got ",
                  dimensions);
    for (std::uint32_t i = 0; i < dimensions; ++i) {
      auto const extent = source_.number<std::uint64_t>();
      refuse_unless(std::in_range<index_t>(extent), ": ", extent, " in its shape is too large");
      t.shape.insert(t.shape.begin(), static_cast<index_t>(extent));
    }
    auto const number = source_.number<std::uint32_t>();
    auto const type = ggml_type_numbered(number);
    refuse_unless(type.has_value(), " has the unknown type ", number);
    t.type = *type;
    auto const offset = source_.number<std::uint64_t>();
    refuse_unless(std::in_range<index_t>(offset), " begins at byte ", offset, ", which is too large");
    auto const bytes = packed_bytes(t.type, t.shape);
    refuse_unless(bytes.has_value(), ": shape ", shape_text{t.shape}, " of ", t.type,
                  " does not make a whole number of blocks below 2^63 bytes");
    t.begin = static_cast<index_t>(offset);
    refuse_unless(!__builtin_add_overflow(t.begin, *bytes, &t.end), " begins at byte ", offset, ", which is too large");
    header_.tensors.push_back(std::move(t));
  }
  /// Checks that need the whole header: where the data starts, and that the tensors lie apart and inside of it.
  void place_data() {
    constexpr std::string_view key = "general.alignment";
    index_t const alignment = header_.metadata.find<std::uint32_t>(key).value_or(32);
    require<io_error>(alignment >= 1 && alignment <= gguf_alignment_limit &&
                          std::has_single_bit(static_cast<std::uint64_t>(alignment)),
                      caller_, "general.alignment must be a power of two up to ", gguf_alignment_limit, ", got ",
                      alignment);
    header_.data_begin = (source_.position() + alignment - 1) / alignment * alignment;
    index_t const data_bytes = std::max<index_t>(0, file_bytes_ - header_.data_begin);
    std::vector<gguf_tensor const*> sorted;
    sorted.reserve(header_.tensors.size());
    for (auto const& t : header_.tensors) {
      require<io_error>(t.begin % alignment == 0, caller_, "tensor ", quoted{t.name}, " begins at byte ", t.begin,
                        ", which is no multiple of the alignment ", alignment);
      require<io_error>(t.end <= data_bytes, caller_, "tensor ", quoted{t.name}, " ends at byte ", t.end,
                        ", the data has ", data_bytes);
      sorted.push_back(&t);
    }
    std::ranges::sort(sorted, {}, &gguf_tensor::name);
    auto const twin = std::ranges::adjacent_find(sorted, {}, &gguf_tensor::name);
    require<io_error>(twin == sorted.end(), caller_, "two tensors are called ",
                      quoted{twin == sorted.end() ? std::string_view{} : (*twin)->name});
    std::ranges::sort(sorted, {}, [](gguf_tensor const* t) { return std::pair{t->begin, t->end}; });
    index_t end = 0;
    for (auto const* const t : sorted) {
      require<io_error>(t->begin >= end, caller_, "tensor ", quoted{t->name}, " begins at byte ", t->begin,
                        " and overlaps the one before, which ends at ", end);
      end = t->end;
    }
  }

  gguf_source source_;
  std::string caller_;
  index_t file_bytes_;
  gguf_header header_;
};

}  // namespace lowrank::detail
