/// @file
/// Files of JSON: read whole, with strangers' tricks refused; written all or not at all.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/io/detail/posix_file.hpp"
#include "lowrank/io/tensor_info.hpp"

namespace lowrank {

/// A value of JSON. Members of an object keep the order of the text: some files list rules of which the first that fits
/// counts.
using json_value = nlohmann::ordered_json;

/// The value that a text holds.
/// Throws: io_error where it is no JSON in UTF-8, is nested deeper than 64 levels or has an object with two members of one name, of
/// which readers disagree about the one that counts.
[[nodiscard]] inline json_value parse_json(std::string_view text, std::string_view caller) {
  constexpr int depth_limit = 64;
  // The JSON parser takes a zero byte for the end of its input.
  require<io_error>(text.find('\0') == std::string_view::npos, caller, "the text is not valid UTF-8 JSON at byte ",
                    text.find('\0'));
  std::vector<std::set<std::string>> members;
  auto const listen = [&](int depth, json_value::parse_event_t event, json_value& parsed) {
    using kind = json_value::parse_event_t;
    require<io_error>(depth < depth_limit, caller, "the text must not be nested deeper than ", depth_limit, " levels");
    if (event == kind::object_start) members.emplace_back();
    if (event == kind::object_end) members.pop_back();
    if (event == kind::key) {
      auto const& name = parsed.get_ref<std::string const&>();
      require<io_error>(members.back().insert(name).second, caller, "an object has two members ", detail::quoted{name});
    }
    return true;
  };
  try {
    return json_value::parse(text.begin(), text.end(), listen);
  } catch (json_value::parse_error const& e) {
    throw io_error{detail::join("lowrank::", caller, ": the text is not valid UTF-8 JSON at byte ", e.byte)};
  } catch (json_value::exception const&) {
    throw io_error{detail::join("lowrank::", caller, ": the text holds a number that cannot be represented")};
  }
}
/// The value that a file holds. Throws: as parse_json; io_error when it cannot be read or is larger than 16 MiB.
[[nodiscard]] inline json_value read_json(std::filesystem::path const& path) {
  constexpr index_t size_limit = index_t{1} << 24;
  std::string const caller = "read_json: " + path.string();
  detail::input_file const file{path, caller};
  require<io_error>(file.size() <= size_limit, caller, "the file must not exceed ", size_limit, " bytes, got ",
                    file.size());
  std::string text(static_cast<std::size_t>(file.size()), ' ');
  file.read(0, std::as_writable_bytes(std::span{text}));
  return parse_json(text, caller);
}

/// A file of JSON, indented by two, that is on the disk but appears at `commit` only: so that several files can be made
/// ready before the first of them changes.
/// Throws: argument_error for text that is no UTF-8, io_error when the disk refuses.
class json_writer {
 public:
  json_writer(std::filesystem::path path, json_value const& value)
      : text_{text_of(value)}, file_{std::move(path), "json_writer"} {
    file_.append(std::as_bytes(std::span{text_}));
  }
  void commit() { file_.commit(); }

 private:
  static std::string text_of(json_value const& value) {
    try {
      return value.dump(2) + '\n';
    } catch (json_value::exception const&) { throw argument_error{"lowrank::json_writer: texts must be UTF-8"}; }
  }

  std::string text_;
  detail::atomic_file file_;
};

}  // namespace lowrank
