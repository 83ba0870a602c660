/// @file
/// What makes a safetensors file a checkpoint: its metadata, its versions, its checksum.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <span>
#include <string>
#include <string_view>

#include "lowrank/core/error.hpp"
#include "lowrank/io/detail/checksum.hpp"
#include "lowrank/io/detail/safetensors_header.hpp"

namespace lowrank::detail {

inline constexpr std::string_view checkpoint_format = "lowrank-checkpoint";
inline constexpr std::array<std::string_view, 3> reserved_metadata{"checksum", "format", "format_version"};

/// Every version there has been. Rows are added, never removed: old files stay readable.
struct checkpoint_version {
  int number;
  std::string_view change;
};
inline constexpr std::array checkpoint_versions{
    checkpoint_version{1, "scalars are tensors without dimensions, buffers vectors, matrices matrices; XXH64"},
};
inline constexpr int newest_checkpoint = checkpoint_versions.back().number;

/// The version a file says it has. Throws: io_error unless it is one of the table.
[[nodiscard]] inline int checkpoint_version_of(file_metadata const& metadata, std::string_view caller) {
  auto const text = [&](std::string_view key) {
    auto const found = metadata.find(key);
    return found != metadata.end() ? std::string_view{found->second} : std::string_view{};
  };
  require<io_error>(text("format") == checkpoint_format, caller, "the file must be a checkpoint of format \"",
                    checkpoint_format, "\", its metadata says ", quoted{text("format")});
  auto const version = text("format_version");
  long long number = -1;
  auto const [end, problem] = std::from_chars(version.data(), version.data() + version.size(), number);
  bool const is_number = problem == std::errc{} && end == version.data() + version.size() && number >= 0;
  require<io_error>(is_number, caller, "format_version must be a number, got ", quoted{version});
  require<io_error>(number <= newest_checkpoint, caller, "the file has format version ", number,
                    ", this library reads up to ", newest_checkpoint, "; a newer lowrank wrote it and can read it");
  auto const row = std::ranges::find(checkpoint_versions, static_cast<int>(number), &checkpoint_version::number);
  require<io_error>(row != checkpoint_versions.end(), caller, "format version ", number, " does not exist");
  return row->number;
}

/// The checksum of a checkpoint begins with everything but the bytes of its tensors, each string and list after its
/// length. It does not depend on how the header is spelled, so a file that another program copied tensor by tensor
/// still holds.
[[nodiscard]] inline xxh64 checksum_of_header(file_metadata const& metadata, std::span<tensor_info const> tensors) {
  xxh64 sum;
  auto const add_number = [&sum](std::uint64_t number) { sum.add(std::as_bytes(std::span{&number, 1})); };
  auto const add_text = [&](std::string_view text) {
    add_number(text.size());
    sum.add(std::as_bytes(std::span{text}));
  };
  add_number(metadata.size() - metadata.count("checksum"));
  for (auto const& [key, value] : metadata) {
    if (key == "checksum") continue;
    add_text(key);
    add_text(value);
  }
  add_number(tensors.size());
  for (auto const& tensor : tensors) {
    add_text(tensor.name);
    add_text(name(tensor.type));
    add_number(tensor.shape.size());
    for (index_t const extent : tensor.shape) add_number(static_cast<std::uint64_t>(extent));
  }
  return sum;
}

/// "xxh64:" and sixteen digits, always as long.
[[nodiscard]] inline std::string checksum_text(std::uint64_t value) {
  std::string text = "xxh64:0000000000000000";
  for (auto digit = text.rbegin(); value != 0; ++digit, value >>= 4) *digit = "0123456789abcdef"[value & 15U];
  return text;
}

}  // namespace lowrank::detail
