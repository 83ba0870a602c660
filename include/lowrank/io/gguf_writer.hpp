/// @file
/// GGUF files, written as a stream.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/io/detail/posix_file.hpp"
#include "lowrank/io/gguf_metadata.hpp"
#include "lowrank/io/gguf_tensor.hpp"

namespace lowrank {

/// What a writer is told about a tensor before it gets the bytes. `shape` has the slowest dimension first.
struct gguf_spec {
  std::string name;
  ggml_type type{ggml_type::f32};
  std::vector<index_t> shape;
};

/// Writes a GGUF file as a stream: keys and tensors are declared first, then the tensors' bytes follow in the order in
/// which they were declared. The file appears at `commit`, complete and on the disk; until then, or without it, an older
/// file stays as it was.
/// Throws: argument_error or shape_error for tensors that make no valid file, io_error when the disk refuses.
/// Reference: docs/gguf.md of ggml-org/ggml, version 3.
class gguf_writer {
 public:
  gguf_writer(std::filesystem::path path, std::vector<gguf_spec> specs, gguf_metadata const& metadata = gguf_metadata{})
      : tensors_{laid_out(std::move(specs))}, header_{header_of(tensors_, metadata)}, file_{std::move(path), caller} {
    file_.append(std::as_bytes(std::span{header_}));
  }

  /// The declared tensors, in the order of the file.
  [[nodiscard]] std::span<gguf_tensor const> tensors() const noexcept { return tensors_; }

  /// The next bytes of tensor `name`: all of them, or part after part.
  void append(std::string_view name, std::span<std::byte const> bytes) {
    skip_complete();
    if (bytes.empty()) return;
    require<state_error>(current_ < tensors_.size() && tensors_[current_].name == name, caller, "tensor ",
                         detail::quoted{name}, " is not the next one, which is ", detail::quoted{next()});
    index_t const left = tensors_[current_].bytes() - written_;
    require<shape_error>(static_cast<index_t>(bytes.size()) <= left, caller, "tensor ", detail::quoted{name}, " has ",
                         left, " bytes left to write, got ", bytes.size());
    file_.append(bytes);
    written_ += static_cast<index_t>(bytes.size());
    skip_complete();
  }
  /// Makes the file appear. Throws: state_error when bytes are missing.
  void commit() {
    skip_complete();
    require<state_error>(current_ == tensors_.size(), caller, "bytes of tensor ", detail::quoted{next()},
                         " are missing");
    file_.commit();
  }

 private:
  static constexpr std::string_view caller = "gguf_writer";
  static constexpr index_t alignment = 32;                            // what readers assume where no key says otherwise
  static constexpr std::size_t name_limit = 63, dimension_limit = 4;  // ggml's

  static constexpr index_t padding_after(index_t bytes) noexcept { return (alignment - bytes % alignment) % alignment; }

  static std::vector<gguf_tensor> laid_out(std::vector<gguf_spec> specs) {
    constexpr index_t size_limit = index_t{1} << 60;
    std::vector<gguf_tensor> out;
    std::vector<std::string> names;
    index_t begin = 0;
    for (auto& spec : specs) {
      require(spec.name.size() <= name_limit, caller, "the name of a tensor must have at most ", name_limit,
              " bytes, got ", detail::quoted{spec.name});
      auto const bytes = detail::packed_bytes(spec.type, spec.shape);
      require<shape_error>(bytes.has_value() && *bytes < size_limit - begin && spec.shape.size() <= dimension_limit,
                           caller, "tensor ", detail::quoted{spec.name}, ": shape ", detail::shape_text{spec.shape},
                           " of ", spec.type, " must make a whole number of blocks below 2^60 bytes in at most ",
                           dimension_limit, " dimensions");
      names.push_back(spec.name);
      out.push_back({std::move(spec.name), spec.type, std::move(spec.shape), begin, begin + *bytes});
      begin += *bytes + padding_after(*bytes);
    }
    std::ranges::sort(names);
    auto const twin = std::ranges::adjacent_find(names);
    require(twin == names.end(), caller, "two tensors are called ",
            detail::quoted{twin == names.end() ? std::string_view{} : *twin});
    return out;
  }

  template <class T>
  static void put(std::string& out, T value) {
    if constexpr (std::is_same_v<T, bool>) {
      put(out, static_cast<std::uint8_t>(value ? 1 : 0));
    } else {
      auto const bytes = std::bit_cast<std::array<char, sizeof(T)>>(value);
      out.append(bytes.data(), bytes.size());
    }
  }
  static void put(std::string& out, std::string const& text) {
    put(out, std::uint64_t{text.size()});
    out += text;
  }
  static void put(std::string& out, gguf_array const& array) {
    put(out, static_cast<std::uint32_t>(array.index()));
    std::visit(
        [&]<class Elements>(Elements const& elements) {
          if constexpr (!std::is_same_v<Elements, std::monostate>) {
            put(out, std::uint64_t{elements.size()});
            for (auto&& element : elements) put(out, static_cast<typename Elements::value_type const&>(element));
          }
        },
        array);
  }
  static std::string header_of(std::vector<gguf_tensor> const& tensors, gguf_metadata const& metadata) {
    require(!metadata.contains("general.alignment"), caller, "general.alignment is ", alignment,
            " and cannot be chosen");
    std::string out = "GGUF";
    put(out, std::uint32_t{3});
    put(out, std::uint64_t{tensors.size()});
    put(out, std::uint64_t{metadata.values().size()});
    for (auto const& [key, value] : metadata.values()) {
      put(out, key);
      put(out, static_cast<std::uint32_t>(value.index()));
      std::visit([&](auto const& x) { put(out, x); }, value);
    }
    for (auto const& t : tensors) {
      put(out, t.name);
      put(out, static_cast<std::uint32_t>(t.shape.size()));
      for (auto extent = t.shape.rbegin(); extent != t.shape.rend(); ++extent)
        put(out, static_cast<std::uint64_t>(*extent));
      put(out, static_cast<std::uint32_t>(t.type));
      put(out, static_cast<std::uint64_t>(t.begin));
    }
    out.append(static_cast<std::size_t>(padding_after(static_cast<index_t>(out.size()))), '\0');
    return out;
  }
  [[nodiscard]] std::string_view next() const noexcept {
    return current_ < tensors_.size() ? std::string_view{tensors_[current_].name} : "none";
  }
  /// Readers take the padding behind the last tensor for granted too.
  void skip_complete() {
    static constexpr std::array<std::byte, alignment> zeros{};
    while (current_ < tensors_.size() && written_ == tensors_[current_].bytes()) {
      file_.append(std::span{zeros}.first(static_cast<std::size_t>(padding_after(written_))));
      ++current_;
      written_ = 0;
    }
  }

  std::vector<gguf_tensor> tensors_;
  std::string header_;
  detail::atomic_file file_;
  std::size_t current_{};
  index_t written_{};
};

}  // namespace lowrank
