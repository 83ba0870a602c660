/// @file
/// What a GGUF file says about itself: keys with typed values.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "lowrank/core/error.hpp"
#include "lowrank/io/tensor_info.hpp"

namespace lowrank {

/// An array in a GGUF file. Alternative i holds elements of the file's type i; arrays of arrays (9) are refused.
using gguf_array = std::variant<std::vector<std::uint8_t>, std::vector<std::int8_t>, std::vector<std::uint16_t>,
                                std::vector<std::int16_t>, std::vector<std::uint32_t>, std::vector<std::int32_t>,
                                std::vector<float>, std::vector<bool>, std::vector<std::string>, std::monostate,
                                std::vector<std::uint64_t>, std::vector<std::int64_t>, std::vector<double>>;

/// A value in a GGUF file. Alternative i is the file's type i.
using gguf_value = std::variant<std::uint8_t, std::int8_t, std::uint16_t, std::int16_t, std::uint32_t, std::int32_t,
                                float, bool, std::string, gguf_array, std::uint64_t, std::int64_t, double>;

/// The keys of a GGUF file and their values.
class gguf_metadata {
 public:
  /// What `at<T>` gives: numbers and truth values by value, texts and arrays where they are.
  template <class T>
  using result = std::conditional_t<std::is_arithmetic_v<T>, T, T const&>;

  explicit gguf_metadata(std::string caller = "gguf_metadata") : caller_{std::move(caller)} {}

  /// The value of `key`. Integers of any width are taken where the value fits T, and so are both floating-point types.
  /// T: an arithmetic type, std::string, or std::vector of exactly the file's element type.
  /// Throws: io_error when there is no such key, or its value is something else.
  template <class T>
  [[nodiscard]] result<T> at(std::string_view key) const {
    auto const place = values_.find(key);
    require<io_error>(place != values_.end(), caller_, "there is no key ", detail::quoted{key});
    return as<T>(*place);
  }
  /// The same, or nothing when there is no such key. Throws: io_error when its value is something else.
  template <class T>
    requires std::is_arithmetic_v<T>
  [[nodiscard]] std::optional<T> find(std::string_view key) const {
    auto const place = values_.find(key);
    return place == values_.end() ? std::nullopt : std::optional<T>{as<T>(*place)};
  }
  [[nodiscard]] bool contains(std::string_view key) const { return values_.find(key) != values_.end(); }
  /// All of them, by key.
  [[nodiscard]] std::map<std::string, gguf_value, std::less<>> const& values() const noexcept { return values_; }

  /// Adds a value. Throws: io_error when the key is there already.
  void add(std::string key, gguf_value value) {
    auto const [place, added] = values_.try_emplace(std::move(key), std::move(value));
    require<io_error>(added, caller_, "there are two keys ", detail::quoted{place->first});
  }

 private:
  using entry = std::pair<std::string const, gguf_value>;

  template <class T>
  [[nodiscard]] result<T> as(entry const& e) const {
    if constexpr (std::is_arithmetic_v<T>) {
      auto const number = std::visit([](auto const& value) { return converted<T>(value); }, e.second);
      require<io_error>(number.has_value(), caller_, "key ", detail::quoted{e.first}, " must hold ",
                        std::is_same_v<T, bool>       ? "a truth value"
                        : std::is_floating_point_v<T> ? "a floating-point number"
                                                      : "an integer of the range asked for");
      return *number;
    } else if constexpr (std::is_same_v<T, std::string>) {
      auto const* const text = std::get_if<std::string>(&e.second);
      require<io_error>(text != nullptr, caller_, "key ", detail::quoted{e.first}, " must hold a text");
      return *text;
    } else {
      auto const* const array = std::get_if<gguf_array>(&e.second);
      auto const* const elements = array == nullptr ? nullptr : std::get_if<T>(array);
      require<io_error>(elements != nullptr, caller_, "key ", detail::quoted{e.first},
                        " must hold an array of the element type asked for");
      return *elements;
    }
  }

  template <class T, class From>
  [[nodiscard]] static std::optional<T> converted(From const& value) {
    if constexpr (std::is_same_v<T, bool> || std::is_same_v<From, bool>) {
      if constexpr (std::is_same_v<T, From>) return value;
    } else if constexpr (std::is_integral_v<T> && std::is_integral_v<From>) {
      if (std::in_range<T>(value)) return static_cast<T>(value);
    } else if constexpr (std::is_floating_point_v<T> && std::is_floating_point_v<From>) {
      return static_cast<T>(value);
    }
    return std::nullopt;
  }

  std::string caller_;
  std::map<std::string, gguf_value, std::less<>> values_;
};

}  // namespace lowrank
