/// @file
/// Moments in eight or four bits: a number format for any rule, not a rule of its own.
#pragma once

#include "lowrank/quant/blockwise.hpp"
#include "lowrank/rule/rule.hpp"

namespace lowrank::rule {

/// How published 8-bit and 4-bit optimizers keep their moments. `of(order)` is the codec of a first or a second moment;
/// tensors that are not `quantizes(count)` keep fp32.
namespace moments {

/// bitsandbytes: dynamic maps, blocks of 256, nearest with ties down; fewer than 4096 elements stay fp32.
template <codec::tiny_negative Tiny = codec::tiny_negative::rounds>
struct bitsandbytes_with {
  using codec_type = codec::dynamic8<tie_rule::down, codec::scale_floor::none, Tiny>;
  static constexpr int block = 256;
  [[nodiscard]] static constexpr codec_type of(moment_order order) noexcept {
    return {order == moment_order::first ? signedness::with_sign : signedness::nonnegative};
  }
  [[nodiscard]] static constexpr bool quantizes(index_t count) noexcept { return count >= 4096; }
};
using bitsandbytes = bitsandbytes_with<>;
/// Its CUDA kernels, which never let a small negative first moment become zero.
using bitsandbytes_cuda = bitsandbytes_with<codec::tiny_negative::stays_negative>;

/// torchao: whole blocks only, scales of at least 1e-12, ties up.
template <class Codec, int Block>
struct torchao {
  using codec_type = Codec;
  static constexpr int block = Block;
  [[nodiscard]] static constexpr codec_type of([[maybe_unused]] moment_order order) noexcept {
    bool const with_sign = order == moment_order::first;
    if constexpr (requires(Codec c) { c.sign; }) return {with_sign ? signedness::with_sign : signedness::nonnegative};
    else if constexpr (requires(Codec c) { c.name; })
      return {with_sign ? codec::book4_name::dynamic : codec::book4_name::sixteenths};
    else return {};
  }
  [[nodiscard]] static constexpr bool quantizes(index_t count) noexcept { return count >= 4096 && count % Block == 0; }
};
using torchao_8bit = torchao<codec::dynamic8<tie_rule::up, codec::scale_floor::at_1e_12>, 256>;
using torchao_4bit = torchao<codec::book4<tie_rule::up, codec::scale_floor::at_1e_12>, 128>;
using torchao_fp8 = torchao<codec::fp8<>, 256>;

}  // namespace moments

/// A moment in codes; the step computes with what it decodes to and with what it was before it was encoded again. What
/// would become NaN or infinite keeps its old codes.
template <class Kind>
struct quantized_moment {
  static constexpr bool blockwise = true;
  static constexpr int block = Kind::block;
  using codec_type = typename Kind::codec_type;

  template <memory_space S>
  struct state {
    buffer<float, S> values;  ///< where the tensor is too small for codes
    lowrank::blockwise<codec_type, block, S> codes;

    friend void visit_state(state& s, auto&& f) {
      f("values", s.values);
      visit_state(s.codes, f);
    }
  };
  [[nodiscard]] static constexpr index_t bytes(index_t count) noexcept {
    return Kind::quantizes(count) ? blockwise_bytes<codec_type, block>({1, count}) : count * index_t{sizeof(float)};
  }
  template <memory_space S>
  [[nodiscard]] static state<S> make(index_t count, moment_order order) {
    if (Kind::quantizes(count)) return {{}, lowrank::blockwise<codec_type, block, S>{{1, count}, Kind::of(order)}};
    return {buffer<float, S>{count}, {}};
  }
  template <executor E>
  static void zero(E& exec, state<typename E::space>& s) {
    clear(exec, s.values);
    s.codes.zero(exec);
  }

  /// Of a moment in codes; one that is not is opened as `fp32_moment`.
  template <memory_space S>
  struct handle {
    blockwise_view<codec_type, block, S> codes;

    template <class Tile>
    [[nodiscard]] LOWRANK_HD auto load(Tile tile, moment_order order, index_t first, index_t valid) const noexcept {
      return known(order).load(tile, 0, first, valid);
    }
    template <class Tile>
    LOWRANK_HD void save(Tile tile, moment_order order, typename Tile::fragment const& f, index_t first,
                         index_t valid) const noexcept {
      known(order).save(tile, f, 0, first, valid);
    }

   private:
    /// The codes with the codec they have anyway, but known to the compiler where `order` is.
    [[nodiscard]] LOWRANK_HD auto known(moment_order order) const noexcept {
      auto out = codes;
      out.codec = Kind::of(order);
      return out;
    }
  };
  template <memory_space S>
  [[nodiscard]] static handle<S> open(state<S>& s) noexcept {
    return {s.codes.view()};
  }
  template <memory_space S>
  [[nodiscard]] static buffer<float, S>* values_of(state<S>& s) noexcept {
    return s.values.size() > 0 ? &s.values : nullptr;
  }
  /// The moment as a facing matrix: decoded into scratch, or its own memory where it is fp32.
  template <executor E>
  [[nodiscard]] static view_of<E> read(E& exec, state<typename E::space>& s, side where, extents shape) {
    if (s.values.size() > 0) return natural<typename E::space>(where, s.values.data(), shape);
    auto const wide = take_matrix(exec, shape, where);
    dequantize(exec, s.codes.view().flat_range(0, shape.size()), wide.data);
    return wide;
  }
  /// The moment becomes m.  Requires: m packed as `natural(where)`.
  template <executor E>
  static void write(E& exec, state<typename E::space>& s, side where, const_view_of<E> m) {
    if (s.values.size() > 0) {
      auto const own = natural<typename E::space>(where, s.values.data(), m.shape());
      if (own.data != m.data) copy(exec, m, own);
    } else {
      quantize(exec, m.data, s.codes.view().flat_range(0, m.shape().size()));
    }
  }
  [[nodiscard]] static constexpr index_t read_bytes(extents shape) noexcept {
    return Kind::quantizes(shape.size()) ? scratch_bytes<float>(shape.size()) : 0;
  }
};

}  // namespace lowrank::rule
