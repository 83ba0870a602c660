/// @file
/// MoRA: one square matrix instead of two narrow ones. It has as many numbers as a LoRA pair, and far more rank.
#pragma once

#include <cmath>
#include <ostream>
#include <variant>

#include "lowrank/adapt/adapter.hpp"
#include "lowrank/adapt/detail/square_maps.hpp"
#include "lowrank/adapt/scaling.hpp"
#include "lowrank/linalg/primitives.hpp"

namespace lowrank::adapt {

/// How features become coordinates of the square matrix, and coordinates features; the numbers are those of the published code.
enum class mora_type : std::uint8_t {
  shared = 1,               ///< strided sums in, tiled out; for large ranks
  grouped = 2,              ///< contiguous sums in, repeated out
  grouped_to_tiled = 3,     ///< contiguous sums in, tiled out
  strided_to_repeated = 4,  ///< strided sums in, repeated out
  rotated = 6,              ///< piece by piece, each turned by its own angle; for low ranks
};
inline std::ostream& operator<<(std::ostream& out, mora_type type) { return out << static_cast<int>(type); }

template <class T>
class mora_adapter;

/// ΔW = S M L: L takes the inputs to the coordinates of a square matrix M, S takes its coordinates to the outputs. M is zero at
/// first, so nothing changes; there is no scale.
/// Differs from the published code where that loses inputs or fails: with type 6 and fewer outputs than inputs the pieces that
/// have no output of their own are added to those that have one; sides are at most min(m, n); angles are never rounded to bf16.
/// Reference: Jiang et al., "MoRA: High-Rank Updating for Parameter-Efficient Fine-Tuning", arXiv 2405.12130, section 3.
struct mora {
  static constexpr bool mutates_base = false;

  index_t rank{8};  ///< that of the LoRA with as many numbers
  mora_type type{mora_type::rotated};

  /// Sides of M: about √(rank (m + n)), at most min(m, n), even where pieces are turned.
  [[nodiscard]] index_t side(extents shape) const noexcept {
    double const numbers = static_cast<double>(shape.rows + shape.cols) * static_cast<double>(rank);
    index_t const wished = std::lround(std::sqrt(numbers));
    index_t const possible = std::min({wished, shape.rows, shape.cols});
    return type == mora_type::rotated ? possible / 2 * 2 : possible;
  }
  [[nodiscard]] index_t parameter_count(extents shape) const noexcept { return side(shape) * side(shape); }

  void check(extents shape) const {
    detail::check_rank("mora", rank, shape);
    int const number = static_cast<int>(type);
    require(number >= 1 && number <= 6 && number != 5, "mora", "type must be 1, 2, 3, 4 or 6, got ", type);
    require<shape_error>(side(shape) >= 1, "mora",
                         "type 6 needs sides of at least 2, because it turns pairs of features, got a matrix of ",
                         shape);
  }
  template <class T, class E>
  [[nodiscard]] mora_adapter<T> make(E&, matrix_view<T> w, rng_key const&) const {
    check(w.shape());
    return mora_adapter<T>{*this, w.shape()};
  }
};

/// M with the maps on both of its sides.
/// Cost: forward 2 T s² flops (type 6: ⌈n / s⌉ times that) for T tokens and side s, backward twice as many; nothing is kept,
/// what M sees of the inputs is made again.
template <class T>
class mora_adapter {
 public:
  using value_type = T;
  using settings_type = mora;

  mora_adapter(mora const& settings, extents shape, rng_key const& = {})
      : settings_{(settings.check(shape), settings)},
        shape_{shape},
        square_{settings.side(shape), settings.side(shape)} {
    using detail::sharing;
    index_t const side = square_.shape().rows;
    auto const type = settings.type;
    if (type == mora_type::rotated) {
      maps_ = detail::rotated_maps<T>{shape, side};
      return;
    }
    bool const strided = type == mora_type::shared || type == mora_type::strided_to_repeated;
    bool const tiled = type == mora_type::shared || type == mora_type::grouped_to_tiled;
    maps_ = detail::shared_maps<T>{
        .inputs = {.features = shape.cols, .side = side, .order = strided ? sharing::strided : sharing::contiguous},
        .outputs = {.features = shape.rows, .side = side, .order = tiled ? sharing::strided : sharing::contiguous}};
  }

  [[nodiscard]] mora const& settings() const noexcept { return settings_; }
  [[nodiscard]] extents shape() const noexcept { return shape_; }
  /// Side of the square matrix.
  [[nodiscard]] index_t side() const noexcept { return square_.shape().rows; }
  [[nodiscard]] std::array<tensor<T>, 1> tensors() noexcept { return {tensor<T>{"mora_M", square_.view()}}; }
  [[nodiscard]] std::array<tensor<T const>, 1> tensors() const noexcept {
    return {tensor<T const>{"mora_M", square_.view()}};
  }
  [[nodiscard]] index_t parameter_count() const noexcept { return square_.shape().size(); }
  [[nodiscard]] index_t bytes() const noexcept {
    auto const* const rotated = std::get_if<detail::rotated_maps<T>>(&maps_);
    return square_.bytes() + (rotated == nullptr ? 0 : rotated->bytes());
  }
  [[nodiscard]] index_t kept_size(index_t) const noexcept { return 0; }
  [[nodiscard]] index_t workspace_bytes(index_t tokens) const noexcept {
    return 2 * scratch_bytes<T>(std::min(tokens, block_tokens()) * width());
  }

  template <std::derived_from<host_executor> E>
  void forward(E& exec, matrix_view<T const> x, std::span<T> kept, matrix_view<T> y, pass_info = {}) const {
    detail::check_forward("mora", shape_, x, kept.size(), 0, y);
    std::visit(
        [&](auto const& maps) {
          for_blocks(exec, x.rows, [&](index_t begin, index_t end, matrix_view<T> u, matrix_view<T> z) {
            load(exec, maps, x.row_range(begin, end), u);
            multiply(exec, T{1}, pieces(u), square().t(), T{0}, pieces(z));
            exec.parallel(end - begin, [&](index_t t) {
              detail::with_row(y, begin + t, [&](auto const& row) { maps.add_store(z.data + t * z.cols, row); });
            });
          });
        },
        maps_);
  }

  template <std::derived_from<host_executor> E>
  void backward(E& exec, matrix_view<T const> x, std::span<T const> kept, matrix_view<T const> dy,
                std::span<matrix_view<T> const> gradients, matrix_view<T> dx, pass_info = {}) const {
    detail::check_backward("mora", shape_, tensors(), x, kept.size(), 0, dy, gradients, dx);
    auto const d_square = detail::wanted(gradients, 0);
    if (!d_square.empty()) fill(exec, d_square, T{0});
    std::visit(
        [&](auto const& maps) {
          for_blocks(exec, x.rows, [&](index_t begin, index_t end, matrix_view<T> u, matrix_view<T> z) {
            exec.parallel(end - begin, [&](index_t t) {
              detail::with_row(dy, begin + t,
                               [&](auto const& row) { maps.store_transposed(row, z.data + t * z.cols); });
            });
            if (!d_square.empty()) {
              load(exec, maps, x.row_range(begin, end), u);
              multiply(exec, T{1}, pieces(z).t(), pieces(u), T{1}, d_square);
            }
            if (dx.empty()) return;
            multiply(exec, T{1}, pieces(z), square(), T{0}, pieces(u));
            exec.parallel(end - begin, [&](index_t t) {
              detail::with_row(dx, begin + t,
                               [&](auto const& row) { maps.add_load_transposed(u.data + t * u.cols, row); });
            });
          });
        },
        maps_);
  }

  /// W += scale ΔW, row by row: which rows of M an output is the sum of, taken back to the inputs.
  template <std::derived_from<host_executor> E>
  void add_to(E& exec, T scale, matrix_view<T> w) const {
    require<shape_error>(w.shape() == shape_, "mora", "needs a matrix of ", shape_, ", got ", w.shape());
    index_t const s = side();
    std::visit(
        [&](auto const& maps) {
          constexpr index_t rows = 16;
          exec.parallel((shape_.rows + rows - 1) / rows, [&](index_t task) {
            std::vector<T> coordinates(static_cast<std::size_t>(width()));
            for (index_t i = task * rows; i < std::min(shape_.rows, (task + 1) * rows); ++i) {
              std::fill(coordinates.begin(), coordinates.end(), T{});
              maps.each_source(i, [&](index_t group, index_t coordinate) {
                for (index_t j = 0; j < s; ++j)
                  coordinates[static_cast<std::size_t>(group * s + j)] += scale * square_(coordinate, j);
              });
              detail::with_row(w, i, [&](auto const& row) { maps.add_load_transposed(coordinates.data(), row); });
            }
          });
        },
        maps_);
  }

 private:
  [[nodiscard]] matrix_view<T const> square() const noexcept { return square_.view(); }
  /// Numbers of a token between the maps.
  [[nodiscard]] index_t width() const noexcept {
    return std::visit([](auto const& maps) { return maps.groups() * maps.side(); }, maps_);
  }
  /// Tokens that are under way at once: as many as fill a cache, whatever the length of the batch.
  [[nodiscard]] index_t block_tokens() const noexcept { return std::max<index_t>((1 << 17) / width(), 16); }
  /// Pieces of all tokens as rows of one matrix.
  [[nodiscard]] matrix_view<T> pieces(matrix_view<T> rows) const noexcept {
    return row_major(rows.data, {rows.size() / side(), side()});
  }
  template <class E, class Body>
  void for_blocks(E& exec, index_t tokens, Body const& body) const {
    scratch_scope const scope{exec};
    index_t const most = std::min(tokens, block_tokens());
    auto const u = take_matrix<T>(exec, {most, width()}), z = take_matrix<T>(exec, {most, width()});
    for (index_t begin = 0; begin < tokens; begin += most) {
      index_t const end = std::min(tokens, begin + most);
      body(begin, end, u.row_range(0, end - begin), z.row_range(0, end - begin));
    }
  }
  template <class E, class Maps>
  static void load(E& exec, Maps const& maps, matrix_view<T const> x, matrix_view<T> u) {
    exec.parallel(x.rows, [&](index_t t) {
      detail::with_row(x, t, [&](auto const& row) { maps.load(row, u.data + t * u.cols); });
    });
  }

  mora settings_;
  extents shape_;
  matrix<T> square_;
  std::variant<detail::shared_maps<T>, detail::rotated_maps<T>> maps_;
};
static_assert(adapter<mora_adapter<float>>);

}  // namespace lowrank::adapt
