/// @file
/// A formula for one element and a number format for its moments make a rule.
#pragma once

#include "lowrank/core/gradient.hpp"
#include "lowrank/rule/rule.hpp"

namespace lowrank::rule {

/// A formula is one pure function and a few numbers:
///   `moment_count`; `decay`; `check()`; `struct scalars`, with `scalars at(steps, learning_rate)` and `float rate(...)`;
///   `static auto direction(auto g, auto& m, scalars const& s)`: N for one gradient, m[k] its moments, updated in place.
/// May have, so that transports can move its moments: `static constexpr std::array moment_orders` and
/// `double moment_beta(std::size_t k) const`.
/// `g` and `m[k]` are `pack`s of floats on the host, floats on a device: use + - * / and the functions of tile/pack.hpp.
template <class F>
concept element_formula = requires(F const f, pack g, std::array<pack, static_cast<std::size_t>(F::moment_count)> m,
                                   typename F::scalars s) {
  { f.decay } -> std::convertible_to<decay_order>;
  f.check();
  { f.at(std::int64_t{}, 0.0F) } -> std::same_as<typename F::scalars>;
  { f.rate(std::int64_t{}, 0.0F) } -> std::convertible_to<float>;
  { F::direction(g, m, s) } -> std::convertible_to<pack>;
};

/// Rule from a formula. Cost per element: reads g and the moments, writes n and the moments, once. Workspace 0.
template <element_formula Formula, class Moment = fp32_moment>
struct elementwise : Formula {
  static constexpr auto moments = static_cast<std::size_t>(Formula::moment_count);
  using moment_format = Moment;
  static constexpr bool moments_are_listed = requires(Formula const f) {
    Formula::moment_orders[0];
    f.moment_beta(std::size_t{});
  };

  template <memory_space S>
  struct state {
    std::array<typename Moment::template state<S>, moments> moment;
    buffer<std::int64_t, S> steps{1};                 ///< steps applied since the last reset
    buffer<typename Formula::scalars, S> scalars{1};  ///< of the current step; not part of what is saved

    friend void visit_state(state& s, auto&& f) {
      f("steps", s.steps);
      for (std::size_t k = 0; k < moments; ++k) {
        auto const name = "moment" + std::to_string(k + 1);
        if constexpr (state_memory<typename Moment::template state<S>>) f(name, s.moment[k]);
        else visit_state(s.moment[k], prefixed(f, name + "."));
      }
    }
  };

  [[nodiscard]] static constexpr bool needs_weight_rms() noexcept { return false; }
  [[nodiscard]] static constexpr index_t bytes(extents shape) noexcept {
    return index_t{Formula::moment_count} * Moment::bytes(shape.size()) +
           index_t{sizeof(std::int64_t) + sizeof(typename Formula::scalars)};
  }
  [[nodiscard]] static constexpr index_t workspace_bytes(extents) noexcept { return 0; }

  template <executor E>
  [[nodiscard]] state<typename E::space> init(E&, extents shape) const {
    state<typename E::space> out;
    for (std::size_t k = 0; k < moments; ++k)
      out.moment[k] = Moment::template make<typename E::space>(shape.size(), order_of(k));
    return out;
  }
  template <executor E>
  void begin(E& exec, state<typename E::space>& s, step_record* record) const {
    exec.single([formula = static_cast<Formula const&>(*this), t = s.steps.data(), c = s.scalars.data(),
                 record] LOWRANK_DEVICE {
      if (record->skip != 0) return;  // what the record was born with changes no weight
      ++*t;
      *c = formula.at(*t, record->learning_rate);
      record->rate = formula.rate(*t, record->learning_rate);
      if (formula.decay != decay_order::coupled) record->keep = 1.0F - record->learning_rate * record->decay;
      if (formula.decay == decay_order::after) record->down = -record->keep;
    });
  }
  template <executor E>
  void update(E& exec, state<typename E::space>& s, const_view_of<E> r, view_of<E> n, step_record const* record) const {
    with_handles(s, [&](auto const& open) { update_opened(exec, s, open, r, n, record); });
  }
  /// The whole step of a packed full-rank weight in one pass: W <- keep W + down X, X = rate N. `weight` gives and takes
  /// tiles of W (quant/weight.hpp), the gradient is in fp32 or 16 bits.
  /// Cost: for fp32 and two moments 28 bytes an element.
  template <executor E, class G, class Tiles>
    requires is_dense_gradient<matrix_view<G>> || is_narrow_gradient<matrix_view<G>>
  void apply(E& exec, state<typename E::space>& s, matrix_view<G, typename E::space> r, Tiles weight,
             step_record const* record) const {
    with_handles(s, [&](auto const& open) { apply_opened(exec, s, open, r, weight, record); });
  }
  template <executor E>
  void reset(E& exec, state<typename E::space>& s) const {
    exec.single([t = s.steps.data()] LOWRANK_DEVICE { *t = 0; });
    for (auto& m : s.moment) Moment::zero(exec, m);
  }

 public:  // Not for callers: a CUDA compiler takes no kernel from a private function
  template <executor E, class Handles>
  static void update_opened(E& exec, state<typename E::space>& s, Handles const& open, const_view_of<E> r, view_of<E> n,
                            step_record const* record) {
    launch<false>(
        exec, r.size(),
        [=, c = s.scalars.data(), from = r.data, to = n.data] LOWRANK_DEVICE(auto tile, index_t first, index_t valid) {
          using real = typename decltype(tile)::real;
          if (record->skip != 0) return tile.store(to + first, typename decltype(tile)::fragment{}, valid);
          auto g = tile.load(from + first, valid);
          real const in{record->grad_scale};
          tile.each([&](auto k) { g[k] = in * g[k]; });
          turn(tile, g, open, *c, record->direction_scale, first, valid);
          tile.store(to + first, g, valid);
        });
  }
  template <executor E, class Handles, class G, class Tiles>
  void apply_opened(E& exec, state<typename E::space>& s, Handles const& open, matrix_view<G, typename E::space> r,
                    Tiles weight, step_record const* record) const {
    bool const coupled = this->decay == decay_order::coupled;
    launch<Tiles::narrow>(
        exec, r.size(),
        [ =, c = s.scalars.data(), from = r.data ] LOWRANK_DEVICE(auto tile, index_t first, index_t valid)
            __attribute__((always_inline)) {
              if (record->skip != 0) return;
              using real = typename decltype(tile)::real;
              auto g = tile.load(from + first, valid);
              auto w = weight.load(tile, first, valid);
              real const in{record->grad_scale}, pull{record->decay};
              tile.each([&](auto k) { g[k] = in * g[k]; });
              if (coupled) tile.each([&](auto k) { g[k] = fused_multiply_add(pull, w[k], g[k]); });
              turn(tile, g, open, *c, record->direction_scale, first, valid);
              real const keep{record->keep}, down{record->down};
              tile.each([&](auto k) { w[k] = fused_multiply_add(down, g[k], keep * w[k]); });
              weight.store(tile, w, first, valid, *record);
            });
  }

 private:
  [[nodiscard]] static constexpr moment_order order_of(std::size_t k) noexcept {
    static_assert(moments_are_listed || !Moment::blockwise,
                  "lowrank: a formula whose moments are quantized lists their orders");
    if constexpr (moments_are_listed) return Formula::moment_orders[k];
    else return moment_order::first;
  }
  /// Narrow weights want more elements together: an access of a lane then is as long as for wide ones.
  template <bool Narrow, executor E, class Body>
  static void launch(E& exec, index_t count, Body const& body) {
    if constexpr (Moment::blockwise) launch_blocks<Moment::block>(exec, count, body);
    else if constexpr (Narrow) launch_tiles(exec, count, body);
    else launch_elements(exec, count, body);
  }
  /// f(handles of the moments): in codes, or all in fp32 where the tensor is too small for codes. They never mix, and a
  /// kernel that asked for each tile would pay for it.
  template <memory_space S, class F>
  static void with_handles(state<S>& s, F const& f) {
    if constexpr (Moment::blockwise)
      if (Moment::values_of(s.moment[0]) != nullptr)
        return f(opened(s, [](auto& m) { return fp32_moment::open(*Moment::values_of(m)); }));
    f(opened(s, [](auto& m) { return Moment::open(m); }));
  }
  template <memory_space S, class Open>
  static auto opened(state<S>& s, Open const& open) {
    return std::apply(
        [&](auto&... m) {
          return std::array<decltype(open(std::declval<typename Moment::template state<S>&>())), moments>{open(m)...};
        },
        s.moment);
  }
  /// g <- scale * N(g), moments moved on.
  template <class Tile, class Handles>
  static LOWRANK_INLINE void turn(Tile tile, typename Tile::fragment& g, Handles const& open,
                                  typename Formula::scalars const& c, float scale, index_t first, index_t valid) {
    using real = typename Tile::real;
    // Moments by numbers that the compiler knows: where they are registers, they have no addresses.
    auto const each_moment = [](auto const& f) {
      [&]<std::size_t... K>(std::index_sequence<K...>) { (f(std::integral_constant<std::size_t, K>{}), ...); }
      (std::make_index_sequence<moments>{});
    };
    std::array<typename Tile::fragment, moments> m;
    each_moment([&](auto k) { m[k] = open[k].load(tile, order_of(k), first, valid); });
    real const out{scale};
    // Inlined by force, as is this function: by call, what is in registers would go through memory for each of them.
    tile.each([&](auto k) __attribute__((always_inline)) {
      std::array<real, moments> here;
      each_moment([&](auto i) { here[i] = m[i][k]; });
      g[k] = out * Formula::direction(g[k], here, c);
      each_moment([&](auto i) { m[i][k] = here[i]; });
    });
    each_moment([&](auto k) { open[k].save(tile, order_of(k), m[k], first, valid); });
  }
};

}  // namespace lowrank::rule
