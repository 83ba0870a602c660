/// @file
/// Dropout whose mask nobody keeps: it is a function of the pass, drawn again where it is needed.
#pragma once

#include <algorithm>
#include <cmath>

#include "lowrank/adapt/adapter.hpp"
#include "lowrank/tile/philox_lanes.hpp"

namespace lowrank::adapt {

/// Sets elements of a tokens x features matrix to zero with a probability, in steps of 2^-16, and scales the others so that the
/// mean stays what it was. Element (t, j) of step s takes `random_16` of the stream (seed, s, tensor, dropout) at t times the
/// features, rounded up to eight, plus j: the same on any number of threads.
/// Reference: Srivastava et al., "Dropout" (2014), section 10 (scaled in training).
class dropout_mask {
 public:
  constexpr dropout_mask() = default;
  dropout_mask(float probability, rng_key key) noexcept
      : key_{key}, below_{static_cast<std::uint32_t>(std::lround(probability * 65536.0F))} {
    key_.purpose = rng_purpose::dropout;
    if (below_ > 65535U) below_ = 65535U;
  }

  /// Whether a pass has zeros at all.
  [[nodiscard]] constexpr bool acts(pass_info info) const noexcept { return below_ > 0 && info.mode == pass::training; }
  /// Of the elements that are left.
  template <class T>
  [[nodiscard]] constexpr T scale() const noexcept {
    return T{65536} / static_cast<T>(65536U - below_);
  }
  /// The factor of one element: 0 or scale().
  template <class T>
  [[nodiscard]] constexpr T factor(std::uint32_t step, extents whole, index_t t, index_t j) const noexcept {
    auto const element = static_cast<std::uint64_t>(t * padded(whole) + j);
    return random_16(at(step), element) < below_ ? T{0} : scale<T>();
  }

  /// OUT = mask IN for rows [begin, end) of a matrix whose shape is `whole`; `in` and `out` are those rows.
  template <std::derived_from<host_executor> E, class T>
  void apply(E& exec, std::uint32_t step, extents whole, index_t begin, std::type_identity_t<matrix_view<T const>> in,
             matrix_view<T> out) const {
    each<T>(exec, step, whole, begin, in.rows, [=](index_t t, index_t j, T factor) { out(t, j) = factor * in(t, j); });
  }
  /// OUT += mask IN.
  template <std::derived_from<host_executor> E, class T>
  void add(E& exec, std::uint32_t step, extents whole, index_t begin, std::type_identity_t<matrix_view<T const>> in,
           matrix_view<T> out) const {
    each<T>(exec, step, whole, begin, in.rows, [=](index_t t, index_t j, T factor) { out(t, j) += factor * in(t, j); });
  }

 private:
  [[nodiscard]] static constexpr index_t padded(extents whole) noexcept { return (whole.cols + 7) / 8 * 8; }
  [[nodiscard]] constexpr rng_key at(std::uint32_t step) const noexcept { return key_.later(step); }

  template <class T, class E, class F>
  void each(E& exec, std::uint32_t step, extents whole, index_t begin, index_t rows, F const& f) const {
    constexpr index_t stretch = 256;  // elements that one call draws: two a word, four words a block
    auto const key = at(step);
    T const kept = scale<T>();
    exec.parallel(rows, [&](index_t t) {
      std::array<std::uint32_t, stretch / 2> words;
      auto const row = static_cast<std::uint64_t>((begin + t) * padded(whole));
      for (index_t from = 0; from < whole.cols; from += stretch) {
        random_words<stretch / 8>(key, (row + static_cast<std::uint64_t>(from)) / 8, words);
        for (index_t i = 0; i < std::min(stretch, whole.cols - from); ++i) {
          auto const bits = words[static_cast<std::size_t>(i / 2)] >> (i % 2 * 16) & 0xFFFFU;
          f(t, from + i, bits < below_ ? T{0} : kept);
        }
      }
    });
  }
  rng_key key_{};
  std::uint32_t below_{};
};

}  // namespace lowrank::adapt
