/// @file
/// A weight that is not trained, in as few bits as its owner likes: what adapters are put beside.
#pragma once

#include <numeric>
#include <optional>
#include <string_view>
#include <variant>

#include "lowrank/linalg/primitives.hpp"
#include "lowrank/quant/double_quantized.hpp"

namespace lowrank::adapt {

/// How a frozen matrix is kept.
enum class frozen_format : std::uint8_t {
  fp32,
  bf16,
  int8,  ///< symmetric, each row in blocks of 256 that share an fp32 scale: 8.125 bits a weight
  nf4,   ///< blocks of 64 in the order of memory, their scales quantized again: 4.127 bits a weight (QLoRA)
};

[[nodiscard]] constexpr std::string_view name(frozen_format format) noexcept {
  switch (format) {
    case frozen_format::fp32:
      return "fp32";
    case frozen_format::bf16:
      return "bf16";
    case frozen_format::int8:
      return "int8";
    case frozen_format::nf4:
      return "nf4";
  }
  return "unknown";
}
/// The format of that name.
[[nodiscard]] constexpr std::optional<frozen_format> frozen_format_named(std::string_view wanted) noexcept {
  for (auto const format : {frozen_format::fp32, frozen_format::bf16, frozen_format::int8, frozen_format::nf4})
    if (name(format) == wanted) return format;
  return std::nullopt;
}

/// Owns W m x n in one of the formats. Products open panels of whole rows into the executor's scratch, so beyond its codes no
/// copy of the matrix exists; gradients flow through it to the inputs only.
/// Reference: Dettmers et al., "QLoRA", arXiv 2305.14314, equations 5 and 6.
class frozen_matrix {
 public:
  using int8_codes = blockwise<codec::symmetric<8>, 256>;
  using nf4_codes = double_quantized<codec::book4<>, 64>;

  frozen_matrix() = default;
  /// W, rounded once to the format.
  /// Cost: reads W; allocates its bytes, and scratch for the scales of NF4 or a copy of a W that is not packed.
  /// Throws: argument_error for NaN, infinity, or numbers beyond 2^126 in coded formats.
  template <std::derived_from<host_executor> E>
  frozen_matrix(E& exec, matrix_view<float const> w, frozen_format format) : shape_{w.shape()} {
    double energy = 0;
    squared_norm(exec, w, &energy);
    require(is_finite(energy), caller, "needs finite weights, got NaN or infinity in a matrix of ", shape_);
    switch (format) {
      case frozen_format::fp32:
        convert(exec, w, kept_.emplace<matrix<float>>(shape_).view());
        return;
      case frozen_format::bf16:
        convert(exec, w, kept_.emplace<matrix<bf16>>(shape_).view());
        return;
      case frozen_format::int8:
        kept_.emplace<int8_codes>(block_layout{shape_.rows, shape_.cols});
        break;
      case frozen_format::nf4:
        kept_.emplace<nf4_codes>(shape_.size());
        exec.reserve(nf4_codes::workspace_bytes(shape_.size()));
        break;
    }
    matrix<float> packed;
    if (!w.is_row_major()) copy(exec, w, (packed = matrix<float>{shape_}).view());
    encode(exec, packed.data() != nullptr ? packed.data() : w.data);
  }
  /// Takes over a matrix that is there already.
  explicit frozen_matrix(matrix<float>&& w) : shape_{w.shape()}, kept_{std::move(w)} {}
  explicit frozen_matrix(matrix<bf16>&& w) : shape_{w.shape()}, kept_{std::move(w)} {}
  /// Throws: shape_error unless there is a code for every element.
  frozen_matrix(nf4_codes&& codes, extents shape) : shape_{shape}, kept_{std::move(codes)} {
    auto const count = std::get<nf4_codes>(kept_).size();
    require<shape_error>(count == shape.size(), caller, "needs ", shape.size(), " codes for ", shape, ", got ", count);
  }

  [[nodiscard]] extents shape() const noexcept { return shape_; }
  [[nodiscard]] frozen_format format() const noexcept { return static_cast<frozen_format>(kept_.index()); }
  /// What it holds.
  [[nodiscard]] index_t bytes() const noexcept { return bytes(shape_, format()); }
  [[nodiscard]] static constexpr index_t bytes(extents shape, frozen_format format) noexcept {
    switch (format) {
      case frozen_format::fp32:
        return shape.size() * index_t{sizeof(float)};
      case frozen_format::bf16:
        return shape.size() * index_t{sizeof(bf16)};
      case frozen_format::int8:
        return blockwise_bytes<codec::symmetric<8>, 256>({shape.rows, shape.cols});
      case frozen_format::nf4:
        return nf4_codes::bytes(shape.size());
    }
    return 0;
  }
  /// Scratch that `open` of a panel, `apply` and `apply_transposed` take.
  [[nodiscard]] index_t workspace_bytes() const noexcept { return workspace_bytes(shape_, format()); }
  [[nodiscard]] static constexpr index_t workspace_bytes(extents shape, frozen_format format) noexcept {
    if (format == frozen_format::fp32) return 0;
    index_t const elements = panel_rows(shape, format) * shape.cols;
    return scratch_bytes<float>(elements) +
           (format == frozen_format::nf4 ? nf4_codes::part_workspace_bytes(elements) : 0);
  }
  /// Panels begin at multiples of this many rows.
  [[nodiscard]] index_t row_quantum() const noexcept { return row_quantum(shape_, format()); }
  /// Rows of the panels of the products.
  [[nodiscard]] index_t panel_rows() const noexcept { return panel_rows(shape_, format()); }

  /// What it is kept in: matrix<float>, matrix<bf16>, int8_codes or nf4_codes; null for another format than its own.
  template <class Kept>
  [[nodiscard]] Kept const* stored() const noexcept {
    return std::get_if<Kept>(&kept_);
  }

  /// Rows [begin, end) in fp32: of an fp32 matrix its own memory, otherwise scratch of the caller's scope.
  /// Requires: `begin` a multiple of row_quantum().  Throws: shape_error.
  template <std::derived_from<host_executor> E>
  [[nodiscard]] matrix_view<float const> open(E& exec, index_t begin, index_t end) const {
    require<shape_error>(
        0 <= begin && begin <= end && end <= shape_.rows && (begin % row_quantum() == 0 || begin == end), caller,
        "needs rows of ", shape_, " from a multiple of ", row_quantum(), ", got [", begin, ", ", end, ")");
    if (auto const* const w = std::get_if<matrix<float>>(&kept_)) return w->view().row_range(begin, end);
    auto const panel = take_matrix(exec, {end - begin, shape_.cols});
    decode(exec, begin, end, panel);
    return panel;
  }
  /// body(panel, begin, end) for panels of whole rows in fp32, in their order; a panel lives while its body runs.
  template <std::derived_from<host_executor> E, class Body>
  void for_each_panel(E& exec, Body const& body) const {
    index_t const height = format() == frozen_format::fp32 ? shape_.rows : panel_rows();
    for (index_t begin = 0; begin < shape_.rows; begin += height) {
      scratch_scope const scope{exec};
      index_t const end = std::min(shape_.rows, begin + height);
      body(open(exec, begin, end), begin, end);
    }
  }
  /// All of it in fp32.
  /// Shapes: W m x n, any strides.  Throws: shape_error.
  template <std::derived_from<host_executor> E>
  void dense(E& exec, matrix_view<float> w) const {
    require<shape_error>(w.shape() == shape_, caller, "needs a matrix of ", shape_, ", got ", w.shape());
    for_each_panel(exec, [&](matrix_view<float const> panel, index_t begin, index_t end) {
      copy(exec, panel, w.row_range(begin, end));
    });
  }
  /// Y = X Wᵀ.
  /// Shapes: X T x n, Y T x m.  Cost: 2 T m n flops, and one pass over the codes; workspace_bytes.  Throws: shape_error.
  template <std::derived_from<host_executor> E>
  void apply(E& exec, matrix_view<float const> x, matrix_view<float> y) const {
    require<shape_error>(x.cols == shape_.cols && y.shape() == extents{x.rows, shape_.rows}, caller, "of ", shape_,
                         " needs X and Y as wide as it is, got ", x.shape(), " and ", y.shape());
    for_each_panel(exec, [&](matrix_view<float const> panel, index_t begin, index_t end) {
      multiply(exec, 1.0F, x, panel.t(), 0.0F, y.col_range(begin, end));
    });
  }
  /// dX = dY W + keep dX.
  /// Shapes: dY T x m, dX T x n.  Cost: as `apply`.  Throws: shape_error.
  template <std::derived_from<host_executor> E>
  void apply_transposed(E& exec, matrix_view<float const> dy, float keep, matrix_view<float> dx) const {
    require<shape_error>(dy.cols == shape_.rows && dx.shape() == extents{dy.rows, shape_.cols}, caller, "of ", shape_,
                         " needs dY and dX as wide as it is, got ", dy.shape(), " and ", dx.shape());
    for_each_panel(exec, [&](matrix_view<float const> panel, index_t begin, index_t end) {
      multiply(exec, 1.0F, dy.col_range(begin, end), panel, begin == 0 ? keep : 1.0F, dx);
    });
  }

 private:
  static constexpr auto* caller = "frozen_matrix";

  [[nodiscard]] static constexpr index_t row_quantum(extents shape, frozen_format format) noexcept {
    constexpr index_t block = nf4_codes::block;
    return format == frozen_format::nf4 && shape.cols > 0 ? block / std::gcd(shape.cols, block) : 1;
  }
  /// Whole quanta, about 4 MiB: large enough for products, small beside a model.
  [[nodiscard]] static constexpr index_t panel_rows(extents shape, frozen_format format) noexcept {
    constexpr index_t elements = 1 << 20;
    index_t const quantum = row_quantum(shape, format), rows = elements / std::max<index_t>(shape.cols, 1);
    return std::min(shape.rows, std::max(rows / quantum, index_t{1}) * quantum);
  }
  template <class E>
  void encode(E& exec, float const* values) {
    std::int32_t nonfinite = 0;
    if (auto* const w = std::get_if<int8_codes>(&kept_)) quantize(exec, values, w->view(), &nonfinite);
    else if (auto* const codes = std::get_if<nf4_codes>(&kept_)) quantize(exec, values, *codes, &nonfinite);
    require(nonfinite == 0, caller, "needs weights below 2^126 for ", name(format()), ", got larger ones");
  }
  template <class E>
  void decode(E& exec, index_t begin, index_t end, matrix_view<float> panel) const {
    if (auto const* const w = std::get_if<matrix<bf16>>(&kept_)) convert(exec, w->view().row_range(begin, end), panel);
    else if (auto const* const lines = std::get_if<int8_codes>(&kept_))
      dequantize(exec, lines->view().line_range(begin, end), panel.data);
    else dequantize(exec, std::get<nf4_codes>(kept_), begin * shape_.cols, end * shape_.cols, panel.data);
  }

  extents shape_{};
  std::variant<matrix<float>, matrix<bf16>, int8_codes, nf4_codes> kept_;
};

}  // namespace lowrank::adapt
