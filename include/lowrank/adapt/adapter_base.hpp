/// @file
/// What the file of an adapter is compared with: the matrices of the base that it is to be used with.
#pragma once

#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "lowrank/core/error.hpp"
#include "lowrank/core/rng.hpp"
#include "lowrank/core/scalar.hpp"
#include "lowrank/core/view.hpp"
#include "lowrank/io/tensor_info.hpp"

namespace lowrank::adapt {

/// Sixteen sums of the elements with random signs, over the Frobenius norm: two matrices that have nothing in common lie
/// apart by about 1.4, one matrix in two formats by the error of the worse of them (nf4: 0.1). The length does not count.
struct base_fingerprint {
  static constexpr std::size_t count = 16;
  static constexpr float largest_distance = 0.5F;

  std::array<float, count> sums{};

  [[nodiscard]] static base_fingerprint of(matrix_view<float const> w) {
    constexpr rng_key key{.seed = 0x6261736573756D73U, .step = 0, .tensor = 0, .purpose = rng_purpose::sketch};
    std::array<double, count> sums{};
    double energy = 0;
    for (index_t i = 0; i < w.rows; ++i)
      for (index_t j = 0; j < w.cols; ++j) {
        double const x = static_cast<double>(w(i, j));
        auto const signs = random_16(key, static_cast<std::uint64_t>(i * w.cols + j));
        for (std::size_t k = 0; k < count; ++k) sums[k] += (signs >> k & 1U) != 0 ? x : -x;
        energy += x * x;
      }
    base_fingerprint out;
    for (std::size_t k = 0; k < count && energy > 0; ++k) out.sums[k] = static_cast<float>(sums[k] / std::sqrt(energy));
    return out;
  }
  /// The root of the mean squared difference.
  [[nodiscard]] float distance(base_fingerprint const& other) const noexcept {
    float total = 0;
    for (std::size_t k = 0; k < count; ++k) total += (sums[k] - other.sums[k]) * (sums[k] - other.sums[k]);
    return std::sqrt(total / static_cast<float>(count));
  }

  /// Sixteen numbers with commas between.
  [[nodiscard]] std::string text() const {
    std::string out;
    for (float const x : sums) {
      std::array<char, 32> digits{};
      auto const end = std::to_chars(digits.data(), digits.data() + digits.size(), x).ptr;
      out += (out.empty() ? "" : ",") + std::string{digits.data(), end};
    }
    return out;
  }
  /// Its inverse, or nothing for another text.
  [[nodiscard]] static std::optional<base_fingerprint> from(std::string_view text) noexcept {
    base_fingerprint out;
    char const* at = text.data();
    char const* const end = at + text.size();
    for (std::size_t k = 0; k < count; ++k) {
      if (k > 0 && (at == end || *at++ != ',')) return std::nullopt;
      auto const [next, error] = std::from_chars(at, end, out.sums[k]);
      if (error != std::errc{} || !is_finite(out.sums[k])) return std::nullopt;
      at = next;
    }
    return at == end ? std::optional{out} : std::nullopt;
  }
};

/// One matrix of the base: out x in, and what it looks like where that is known.
struct base_matrix {
  extents shape;
  std::optional<base_fingerprint> fingerprint{};
};

/// The base: its matrices by the names of their modules ("model.layers.0.self_attn.q_proj"), and its own name, which is compared
/// where it is given.
struct adapter_base {
  std::map<std::string, base_matrix, std::less<>> modules;
  std::string name{};
};

namespace detail {

inline constexpr std::string_view fingerprint_key = "lowrank.base.";

/// Refuses a file that names modules which the base does not have (all of them are listed).
template <class Names>
void require_known_modules(adapter_base const& base, Names const& names, std::string_view caller) {
  std::string unknown;
  for (auto const& name : names)
    if (!base.modules.contains(name)) unknown += (unknown.empty() ? "" : ", ") + std::string{name};
  require<io_error>(unknown.empty(), caller, "the base has no modules ", unknown);
}
/// Refuses a module whose matrix is not the one of the base. `tensor`: whom to blame.
inline void require_matrix_of_base(adapter_base const& base, std::string_view module, extents shape,
                                   std::optional<base_fingerprint> const& fingerprint, std::string_view tensor,
                                   std::string_view caller) {
  auto const& matrix = base.modules.find(module)->second;
  require<shape_error>(matrix.shape == shape, caller, "tensor ", lowrank::detail::quoted{tensor},
                       " is for a matrix of ", shape, ", the base has ", matrix.shape);
  if (!fingerprint || !matrix.fingerprint) return;
  float const distance = fingerprint->distance(*matrix.fingerprint);
  require<io_error>(distance <= base_fingerprint::largest_distance, caller, "tensor ", lowrank::detail::quoted{tensor},
                    " was made for another base: their fingerprints lie apart by ", distance);
}
/// The fingerprint that a file's metadata holds for a module, if any. Throws: io_error when it is damaged.
[[nodiscard]] inline std::optional<base_fingerprint> fingerprint_in(
    std::map<std::string, std::string, std::less<>> const& metadata, std::string_view module, std::string_view caller) {
  auto const said = metadata.find(std::string{fingerprint_key} + std::string{module});
  if (said == metadata.end()) return std::nullopt;
  auto const out = base_fingerprint::from(said->second);
  require<io_error>(out.has_value(), caller, "the fingerprint of the base of ", lowrank::detail::quoted{module},
                    " is damaged");
  return out;
}

}  // namespace detail

}  // namespace lowrank::adapt
