/// @file
/// How a basis is kept between steps.
#pragma once

#include "lowrank/basis/linear_map.hpp"
#include "lowrank/core/slots.hpp"
#include "lowrank/core/visit.hpp"
#include "lowrank/linalg/elementwise.hpp"
#include "lowrank/quant/blockwise.hpp"

namespace lowrank {

/// Number formats of a stored basis.
namespace format {

template <class T>
struct stored_as {
  using fills = slots::basis_format;
  using element = T;
};
using fp32 = stored_as<float>;
using bf16 = stored_as<lowrank::bf16>;

/// Codes of blocks of consecutive elements, rounded to nearest. P is then orthonormal only to the format's error, on both
/// of its uses alike.
template <block_codec Codec, int Block = 256>
struct quantized {
  using fills = slots::basis_format;
  using codec_type = Codec;
  static constexpr int block = Block;
};
/// 4 bits an element and 4 bytes for 256: what Q-GaLore's paper promises and its code keeps in bytes.
using int4 = quantized<codec::affine<4, codec::range_rule::with_zero>>;
using int8 = quantized<codec::affine<8, codec::range_rule::with_zero>>;

}  // namespace format

namespace detail {

/// One dense m x r matrix in a number format, packed in the weight's orientation. The format is a value, so that one which
/// is chosen at run time fits; those above have nothing to say at run time.
template <class Format, memory_space Space>
class kept_matrix {
  using element = typename Format::element;
  static constexpr bool in_place = std::same_as<element, float>;

 public:
  kept_matrix() = default;
  kept_matrix(index_t rows, index_t capacity, Format = {}) : values_{rows * capacity} {}

  [[nodiscard]] static constexpr index_t bytes(index_t rows, index_t r, Format = {}) noexcept {
    return rows * r * index_t{sizeof(element)};
  }
  /// Scratch that `open` takes.
  [[nodiscard]] static constexpr index_t open_bytes(index_t rows, index_t r, Format = {}) noexcept {
    return in_place ? 0 : scratch_bytes<float>(rows * r);
  }
  template <executor E>
  void assign(E& exec, side s, const_view_of<E> p) {
    convert(exec, p, natural<Space>(s, values_.data(), p.shape()));
  }
  template <executor E>
  [[nodiscard]] const_view_of<E> open(E& exec, side s, extents shape) const {
    if constexpr (in_place) {
      return natural<Space>(s, values_.data(), shape);
    } else {
      auto const wide = take_matrix(exec, shape, s);
      convert(exec, natural<Space>(s, values_.data(), shape), wide);
      return wide;
    }
  }
  template <class F>
  friend void visit_state(kept_matrix& m, F&& f) {
    f("values", m.values_);
  }

 private:
  buffer<element, Space> values_;
};

/// The same in codes.
template <block_codec Codec, int Block, memory_space Space>
class kept_matrix<format::quantized<Codec, Block>, Space> {
  using format_type = format::quantized<Codec, Block>;

 public:
  kept_matrix() = default;
  kept_matrix(index_t rows, index_t capacity, format_type = {}) : codes_{{1, rows * capacity}} {}

  [[nodiscard]] static constexpr index_t bytes(index_t rows, index_t r, format_type = {}) noexcept {
    return blockwise_bytes<Codec, Block>({1, rows * r});
  }
  [[nodiscard]] static constexpr index_t open_bytes(index_t rows, index_t r, format_type = {}) noexcept {
    return scratch_bytes<float>(rows * r);
  }
  template <executor E>
  void assign(E& exec, side s, const_view_of<E> p) {
    auto const packed = natural<Space>(s, p.data, p.shape());
    require<state_error>(packed.row_stride == p.row_stride && packed.col_stride == p.col_stride, "basis_store",
                         "needs a packed candidate");
    quantize(exec, p.data, codes_.view().flat_range(0, p.shape().size()));
  }
  template <executor E>
  [[nodiscard]] const_view_of<E> open(E& exec, side s, extents shape) const {
    auto const wide = take_matrix(exec, shape, s);
    dequantize(exec, codes_.view().flat_range(0, shape.size()), wide.data);
    return wide;
  }
  template <class F>
  friend void visit_state(kept_matrix& m, F&& f) {
    visit_state(m.codes_, f);
  }

 private:
  blockwise<Codec, Block, Space> codes_;
};

}  // namespace detail

/// A map's matrices in one number format. Capacity is fixed at birth; a smaller rank uses a prefix.
/// `assign` copies a candidate in; `open` gives the map, from its own memory or decoded into scratch.
template <class Map, class Format>
struct basis_store;

template <memory_space Space, class Format>
struct basis_store<dense_map<Space>, Format> {
  using map = dense_map<Space>;
  using kept = detail::kept_matrix<Format, Space>;

  struct state {
    kept p;
    template <class F>
    friend void visit_state(state& s, F&& f) {
      visit_state(s.p, f);
    }
  };
  [[nodiscard]] static constexpr index_t bytes(extents g, index_t r, Format const& f = {}) noexcept {
    return kept::bytes(g.rows, r, f);
  }
  [[nodiscard]] static constexpr index_t open_bytes(extents g, index_t r, Format const& f = {}) noexcept {
    return kept::open_bytes(g.rows, r, f);
  }
  [[nodiscard]] static state init(extents g, index_t r, Format const& f = {}) { return {kept{g.rows, r, f}}; }
  template <executor E>
  static void assign(E& exec, state& s, side where, map const& candidate) {
    s.p.assign(exec, where, candidate.p);
  }
  template <executor E>
  [[nodiscard]] static map open(E& exec, state const& s, side where, extents g, index_t r) {
    return {s.p.open(exec, where, {g.rows, r})};
  }
};

template <memory_space Space, class Format>
struct basis_store<pair_map<Space>, Format> {
  using map = pair_map<Space>;
  using kept = detail::kept_matrix<Format, Space>;

  struct state {
    kept u, v;
    template <class F>
    friend void visit_state(state& s, F&& f) {
      visit_state(s.u, prefixed(f, "left."));
      visit_state(s.v, prefixed(f, "right."));
    }
  };
  [[nodiscard]] static constexpr index_t bytes(extents g, index_t r, Format const& f = {}) noexcept {
    return kept::bytes(g.rows, r, f) + kept::bytes(g.cols, r, f);
  }
  [[nodiscard]] static constexpr index_t open_bytes(extents g, index_t r, Format const& f = {}) noexcept {
    return kept::open_bytes(g.rows, r, f) + kept::open_bytes(g.cols, r, f);
  }
  [[nodiscard]] static state init(extents g, index_t r, Format const& f = {}) {
    return {kept{g.rows, r, f}, kept{g.cols, r, f}};
  }
  template <executor E>
  static void assign(E& exec, state& s, side, map const& candidate) {
    s.u.assign(exec, side::left, candidate.u);
    s.v.assign(exec, side::right, candidate.v);
  }
  template <executor E>
  [[nodiscard]] static map open(E& exec, state const& s, side, extents g, index_t r) {
    return {s.u.open(exec, side::left, {g.rows, r}), s.v.open(exec, side::right, {g.cols, r})};
  }
};

}  // namespace lowrank
