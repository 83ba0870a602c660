/// @file
/// The weights of a model that is trained in codes: matrices of the layers in INT8, embedding and head in bf16, norms in fp32.
#pragma once

#include "../parameters.hpp"
#include "lowrank/quant/quantized_weight.hpp"

namespace llama {

/// The matrices of the layers: 8-bit codes, a scale and a zero point in bf16 for each 256.
using weight_codec = lowrank::codec::affine<8>;
inline constexpr int weight_block = 256;
using weight_codes = lowrank::blockwise<weight_codec, weight_block>;
using coded_weight = lowrank::quantized_weight<weight_codec, weight_block>;

/// Matrices of a layer, as opposed to norms, embedding and head.
[[nodiscard]] inline bool is_coded(parameter const& p) noexcept { return p.layer >= 0 && !p.is_norm(); }

/// Every parameter of `parameter_list` in the format it is trained in. All memory is touched at birth.
class coded_model {
 public:
  explicit coded_model(llama::config const& c) : config_{c}, list_{parameter_list(c)} {
    lowrank::require(c.head == output_head::own, "llama::coded_model", "needs a head of its own");
    for (auto const& p : list_) {
      codes_.emplace_back(is_coded(p) ? lowrank::block_layout{1, p.shape.size()} : lowrank::block_layout{});
      gains_.emplace_back(p.is_norm() ? p.shape.size() : 0);
      narrow_.emplace_back(p.what == role::embedding || p.what == role::head ? p.shape : lowrank::extents{});
    }
  }

  [[nodiscard]] llama::config const& config() const noexcept { return config_; }
  [[nodiscard]] std::span<parameter const> list() const noexcept { return list_; }
  [[nodiscard]] index_t count() const noexcept { return static_cast<index_t>(list_.size()); }
  [[nodiscard]] parameter const& operator[](index_t index) const noexcept { return list_[at(index)]; }
  [[nodiscard]] index_t index_of(role what, index_t layer = 0) const noexcept {
    return llama::index_of(config_, what, layer);
  }

  /// Of a matrix of a layer.
  [[nodiscard]] coded_weight matrix(index_t index) noexcept {
    return as_weight(codes_[at(index)], list_[at(index)].shape);
  }
  [[nodiscard]] coded_weight matrix(role what, index_t layer) noexcept { return matrix(index_of(what, layer)); }
  /// Of a norm: 1 x width.
  [[nodiscard]] view<float> gain(index_t index) noexcept {
    return lowrank::row_major(gains_[at(index)].data(), list_[at(index)].shape);
  }
  [[nodiscard]] view<float> gain(role what, index_t layer = 0) noexcept { return gain(index_of(what, layer)); }
  /// Embedding or head.
  [[nodiscard]] lowrank::bf16_weight<> narrow(role what) noexcept { return {narrow_[at(index_of(what))].view()}; }

  [[nodiscard]] weight_codes const& codes(index_t index) const noexcept { return codes_[at(index)]; }

 private:
  [[nodiscard]] static std::size_t at(index_t index) noexcept { return static_cast<std::size_t>(index); }

  llama::config config_;
  std::vector<parameter> list_;
  std::vector<weight_codes> codes_;
  std::vector<lowrank::buffer<float>> gains_;
  std::vector<lowrank::matrix<lowrank::bf16>> narrow_;
};

/// Gains 1, everything else uniform with that deviation, block by block straight into place: no matrix is ever there in
/// fp32. The same numbers for any number of threads.
template <class Executor>
void draw(Executor& exec, coded_model& model, std::uint64_t seed, double deviation = 0.02) {
  auto const width = static_cast<float>(deviation * std::sqrt(12.0));
  for (index_t index = 0; index < model.count(); ++index) {
    auto const& p = model[index];
    lowrank::rng_key const key{
        .seed = seed, .tensor = static_cast<std::uint32_t>(index), .purpose = lowrank::rng_purpose::initialisation};
    auto const numbers = [key, width](auto tile, index_t first) {
      using real = typename decltype(tile)::real;
      auto f = tile.uniform_16(key, static_cast<std::uint64_t>(first));
      real const middle{0.5F - 0x1p-17F}, scale{width};
      tile.each([&](auto k) { f[k] = (f[k] - middle) * scale; });
      return f;
    };
    if (p.is_norm()) {
      fill(exec, model.gain(index), 1.0F);
    } else if (is_coded(p)) {
      lowrank::launch_blocks<weight_block>(
          exec, p.shape.size(), [&, codes = model.matrix(index).codes](auto tile, index_t first, index_t valid) {
            codes.save(tile, numbers(tile, first), 0, first, valid);
          });
    } else {
      lowrank::launch_tiles(exec, p.shape.size(),
                            [&, to = model.narrow(p.what).values.data](auto tile, index_t first, index_t valid) {
                              tile.store(to + first, numbers(tile, first), valid);
                            });
    }
  }
}

}  // namespace llama
