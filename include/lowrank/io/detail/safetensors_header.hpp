/// @file
/// The header of a safetensors file, from and to text. Everything about it is refused that the format does not say.
#pragma once

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/io/tensor_info.hpp"

namespace lowrank {

/// The strings under `__metadata__`.
using file_metadata = std::map<std::string, std::string, std::less<>>;

namespace detail {

inline constexpr index_t header_limit = 100'000'000;
inline constexpr std::size_t dimension_limit = 64;
inline constexpr std::string_view metadata_key = "__metadata__";

/// Listens to the JSON parser and knows at every point what may come, so nothing deeper, longer or stranger than a
/// header is ever built in memory.
class header_listener {
 public:
  header_listener(std::string_view caller, index_t data_bytes) : caller_{caller}, data_bytes_{data_bytes} {}

  std::vector<tensor_info> tensors;
  file_metadata metadata;

  bool start_object(std::size_t) {
    if (place_ == place::outside) place_ = place::top;
    else if (place_ == place::top && key_ == metadata_key) place_ = place::metadata;
    else if (place_ == place::top) {
      place_ = place::tensor;
      entry_ = {};
      entry_.name = key_;
      seen_ = {};
    } else refuse_value("an object");
    return true;
  }
  bool key(std::string& text) {
    if (place_ == place::tensor) {
      auto const found = std::ranges::find(fields, text);
      refuse_unless(found != fields.end(), " has the unknown field ", quoted{text});
      field_ = static_cast<std::size_t>(found - fields.begin());
      refuse_unless(!seen_[field_], " has two fields ", quoted{text});
      seen_[field_] = true;
    } else if (place_ == place::top && text == metadata_key) {
      require<io_error>(!std::exchange(has_metadata_, true), caller_, "the header has two entries \"__metadata__\"");
      key_ = std::move(text);
    } else if (place_ == place::top) {
      key_ = std::move(text);
    } else {
      metadata_name_ = std::move(text);
    }
    return true;
  }
  bool string(std::string& text) {
    if (place_ == place::metadata) {
      bool const added = metadata.emplace(metadata_name_, std::move(text)).second;
      require<io_error>(added, caller_, "__metadata__ has two entries ", quoted{metadata_name_});
    } else if (place_ == place::tensor && field_ == 0) {
      auto const type = dtype_named(text);
      refuse_unless(type.has_value(), " has the unknown dtype ", quoted{text});
      entry_.type = *type;
    } else refuse_value("a string");
    return true;
  }
  bool number_unsigned(std::uint64_t number) {
    if (place_ != place::shape && place_ != place::offsets) refuse_value("a number");
    auto& numbers = place_ == place::shape ? entry_.shape : offsets_;
    refuse_unless(number <= static_cast<std::uint64_t>(std::numeric_limits<index_t>::max()), ": ", number, " in ",
                  fields[field_], " is too large");
    refuse_unless(numbers.size() < (place_ == place::shape ? dimension_limit : 2), ": ", fields[field_],
                  " has too many numbers");
    numbers.push_back(static_cast<index_t>(number));
    return true;
  }
  bool number_integer(std::int64_t number) {
    if (place_ != place::shape && place_ != place::offsets) refuse_value("a number");
    refuse_unless(false, ": ", fields[field_], " must not be negative, got ", number);
    return false;
  }
  bool start_array(std::size_t) {
    if (place_ != place::tensor || field_ == 0) refuse_value("an array");
    place_ = field_ == 1 ? place::shape : place::offsets;
    offsets_.resize(field_ == 1 ? offsets_.size() : 0);
    return true;
  }
  bool end_array() {
    if (place_ == place::offsets) {
      refuse_unless(offsets_.size() == 2, ": data_offsets must be two numbers, got ", offsets_.size());
      entry_.begin = offsets_[0];
      entry_.end = offsets_[1];
    }
    place_ = place::tensor;
    return true;
  }
  bool end_object() {
    if (place_ == place::tensor) finish_tensor();
    place_ = place_ == place::top ? place::outside : place::top;
    return true;
  }
  bool number_float(double, std::string const& text) { return refuse_value(text); }
  bool null() { return refuse_value("null"); }
  bool boolean(bool) { return refuse_value("a boolean"); }
  template <class Binary>
  bool binary(Binary&) {
    return refuse_value("binary data");
  }
  template <class Problem>
  bool parse_error(std::size_t position, std::string const&, Problem const&) {
    // The parser's own message repeats the text, which may be long and is a stranger's.
    throw io_error{join("lowrank::", caller_, ": the header is not valid UTF-8 JSON at byte ", position)};
  }

  /// Checks that need all entries: names are unique, and the tensors fill the data without gap or overlap.
  void finish() {
    std::ranges::sort(tensors, {}, &tensor_info::name);
    auto const twin = std::ranges::adjacent_find(tensors, {}, &tensor_info::name);
    require<io_error>(twin == tensors.end(), caller_, "two tensors are called ",
                      quoted{twin == tensors.end() ? std::string_view{} : twin->name});
    std::ranges::stable_sort(tensors, {}, [](tensor_info const& t) { return std::pair{t.begin, t.end}; });
    index_t end = 0;
    for (auto const& t : tensors) {
      require<io_error>(t.begin >= end, caller_, "tensor ", quoted{t.name}, " begins at byte ", t.begin,
                        " and overlaps the one before, which ends at ", end);
      require<io_error>(t.begin == end, caller_, "bytes ", end, " to ", t.begin, " before tensor ", quoted{t.name},
                        " belong to no tensor");
      end = t.end;
    }
    require<io_error>(end == data_bytes_, caller_, "the file goes on after its last tensor: ", data_bytes_ - end,
                      " bytes belong to no tensor");
  }

 private:
  enum class place { outside, top, metadata, tensor, shape, offsets };
  static constexpr std::array<std::string_view, 3> fields{"dtype", "shape", "data_offsets"};

  template <class... Parts>
  void refuse_unless(bool holds, Parts const&... parts) const {
    require<io_error>(holds, caller_, "tensor ", quoted{entry_.name}, parts...);
  }
  bool refuse_value(std::string_view what) const {
    switch (place_) {
      case place::outside:
        throw_because("the header must be one JSON object, got ", quoted{what});
      case place::top:
        throw_because("entry ", quoted{key_}, " must be an object, got ", quoted{what});
      case place::metadata:
        throw_because("__metadata__ entry ", quoted{metadata_name_}, " must be a string, got ", quoted{what});
      default:
        throw_because("tensor ", quoted{entry_.name}, ": ", fields[field_], " must not hold ", quoted{what});
    }
  }
  template <class... Parts>
  [[noreturn]] void throw_because(Parts const&... parts) const {
    throw io_error{join("lowrank::", caller_, ": ", parts...)};
  }
  void finish_tensor() {
    for (std::size_t i = 0; i < fields.size(); ++i) refuse_unless(seen_[i], " has no ", fields[i]);
    refuse_unless(entry_.begin <= entry_.end, ": data_offsets end before they begin: ", entry_.begin, ", ", entry_.end);
    refuse_unless(entry_.end <= data_bytes_, ": data_offsets end at byte ", entry_.end, ", the data has ", data_bytes_);
    auto const bytes = packed_bytes(entry_.type, entry_.shape);
    refuse_unless(bytes.has_value(), ": shape ", shape_text{entry_.shape}, " of ", entry_.type,
                  " does not make a whole number of bytes below 2^60");
    refuse_unless(*bytes == entry_.bytes(), ": shape ", shape_text{entry_.shape}, " of ", entry_.type, " takes ",
                  *bytes, " bytes, data_offsets span ", entry_.bytes());
    tensors.push_back(std::move(entry_));
  }

  std::string caller_;
  index_t data_bytes_;
  place place_{};
  bool has_metadata_{};
  std::array<bool, 3> seen_{};
  std::size_t field_{};
  std::string key_, metadata_name_;
  tensor_info entry_;
  std::vector<index_t> offsets_;
};

struct safetensors_header {
  std::vector<tensor_info> tensors;  ///< in the order of their bytes
  file_metadata metadata;
};

/// Parses and verifies a header whose tensors are to fill `data_bytes` bytes.
[[nodiscard]] inline safetensors_header parse_header(std::string_view text, index_t data_bytes,
                                                     std::string_view caller) {
  require<io_error>(text.starts_with('{'), caller, "the header must start with '{'");
  // The JSON parser takes a zero byte for the end of its input.
  require<io_error>(text.find('\0') == std::string_view::npos, caller, "the header is not valid UTF-8 JSON at byte ",
                    text.find('\0'));
  header_listener listener{caller, data_bytes};
  nlohmann::json::sax_parse(text.begin(), text.end(), &listener);
  listener.finish();
  return {std::move(listener.tensors), std::move(listener.metadata)};
}

[[nodiscard]] inline std::string json_text(std::string const& text, std::string_view caller) {
  try {
    return nlohmann::json(text).dump();
  } catch (nlohmann::json::exception const&) {
    throw argument_error{join("lowrank::", caller, ": names and metadata must be UTF-8, got ", quoted{text})};
  }
}

/// The text of a header, padded with spaces to a multiple of eight bytes.
[[nodiscard]] inline std::string format_header(std::vector<tensor_info> const& tensors, file_metadata const& metadata,
                                               std::string_view caller) {
  std::string text = "{";
  auto const comma = [&text] { text += text.back() == '{' ? "" : ","; };
  if (!metadata.empty()) {
    text += join('"', metadata_key, "\":{");
    for (auto const& [key, value] : metadata) {
      comma();
      text += json_text(key, caller) + ':' + json_text(value, caller);
    }
    text += '}';
  }
  for (auto const& t : tensors) {
    comma();
    text += json_text(t.name, caller) + join(":{\"dtype\":\"", t.type, "\",\"shape\":[");
    for (std::size_t i = 0; i < t.shape.size(); ++i) text += (i == 0 ? "" : ",") + std::to_string(t.shape[i]);
    text += "],\"data_offsets\":[" + std::to_string(t.begin) + ',' + std::to_string(t.end) + "]}";
  }
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  require(static_cast<index_t>(text.size()) <= header_limit, caller, "the header must not exceed ", header_limit,
          " bytes, got ", text.size());
  return text;
}

}  // namespace detail

}  // namespace lowrank
