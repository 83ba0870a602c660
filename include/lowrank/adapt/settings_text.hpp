/// @file
/// Settings of adapters as text for a file, and back: "rank=8, type=6".
#pragma once

#include <array>
#include <charconv>
#include <string>
#include <string_view>
#include <type_traits>

#include "lowrank/adapt/deep_lora.hpp"
#include "lowrank/adapt/lora.hpp"
#include "lowrank/adapt/lora_xs.hpp"
#include "lowrank/adapt/mora.hpp"
#include "lowrank/adapt/nola.hpp"
#include "lowrank/optim/options.hpp"

namespace lowrank::adapt {

/// How settings of type S are named in files: `method`, and `visit(v, s)`, which calls v(name, field) for each of them. Another
/// method joins with a specialisation.
template <class S>
struct settings_fields;

template <>
struct settings_fields<lora> {
  static constexpr std::string_view method = "lora";
  template <class S, class V>
  static void visit(V&& v, S& s) {
    v("rank", s.rank);
    v("alpha", s.alpha);
    v("scale", s.scale);
    v("start", s.start);
    v("dropout", s.dropout);
    v("rate_ratio", s.rate_ratio);
  }
};
template <>
struct settings_fields<lora_xs> {
  static constexpr std::string_view method = "lora_xs";
  template <class S, class V>
  static void visit(V&& v, S& s) {
    v("rank", s.rank);
    v("alpha", s.alpha);
    v("scale", s.scale);
    v("deviation", s.deviation);
    v("oversampling", s.search.oversampling);
    v("power_iterations", s.search.power_iterations);
  }
};
template <>
struct settings_fields<mora> {
  static constexpr std::string_view method = "mora";
  template <class S, class V>
  static void visit(V&& v, S& s) {
    v("rank", s.rank);
    v("type", s.type);
  }
};
template <>
struct settings_fields<nola> {
  static constexpr std::string_view method = "nola";
  template <class S, class V>
  static void visit(V&& v, S& s) {
    v("rank", s.rank);
    v("right_count", s.right_count);
    v("left_count", s.left_count);
    v("alpha", s.alpha);
    v("variant", s.variant);
  }
};
template <>
struct settings_fields<deep_lora> {
  static constexpr std::string_view method = "deep_lora";
  template <class S, class V>
  static void visit(V&& v, S& s) {
    v("rank", s.rank);
    v("depth", s.depth);
    v("init_scale", s.init_scale);
    v("gamma", s.gamma);
    v("alpha", s.alpha);
    v("form", s.form);
  }
};

/// Settings that files know.
template <class S>
concept named_settings = requires {
  { settings_fields<S>::method } -> std::convertible_to<std::string_view>;
};

/// All fields, numbers with all their digits, choices by their numbers.
template <named_settings S>
[[nodiscard]] std::string settings_text(S const& settings) {
  std::string out;
  settings_fields<S>::visit(
      [&out]<class Field>(std::string_view name, Field const& field) {
        std::array<char, 32> digits{};
        auto const write = [&](auto number) {
          return std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
        };
        char* end = nullptr;
        if constexpr (std::is_floating_point_v<Field>) end = write(field);
        else end = write(static_cast<index_t>(field));
        out += (out.empty() ? "" : ", ") + std::string{name} + "=" + std::string{digits.data(), end};
      },
      settings);
  return out;
}

/// The inverse; fields that are missing have their defaults.
/// Throws: argument_error for a field that there is not, or what is no number. Whether the values can be meant, `check` says.
template <named_settings S>
[[nodiscard]] S settings_from(std::string_view text) {
  option_list options{text};
  S out;
  settings_fields<S>::visit(
      [&options]<class Field>(std::string_view name, Field& field) {
        if constexpr (std::is_floating_point_v<Field>) {
          field = static_cast<Field>(options.take(name, static_cast<double>(field)));
        } else {
          index_t const number = options.take(name, static_cast<index_t>(field));
          field = static_cast<Field>(number);
          // A choice of 257 must not become choice 1 on its way through a narrow type.
          require(static_cast<index_t>(field) == number, "settings_from", "option \"", name, "\" cannot be ", number);
        }
      },
      out);
  options.require_empty(settings_fields<S>::method);
  return out;
}

}  // namespace lowrank::adapt
