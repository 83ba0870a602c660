/// @file
/// Matrices of a model that are kept in int8 codes.
#pragma once

#include <vector>

#include "lowrank/quant/quantized_weight.hpp"
#include "parameters.hpp"

namespace llama {

/// The codes are the weights: optimizers step them, checkpoints hold them, and their bytes are what is reported. Forward and
/// backward here read the fp32 model, which `decode` makes equal to them after every step; a program that is short of memory
/// would decode by panels where they are used.
template <class Executor>
class int8_matrices {
  using stored = lowrank::quantized_weight<>;
  using owner = lowrank::blockwise<lowrank::codec::affine<8>>;

 public:
  /// Encodes, and so changes, the parameters that `chosen(name, shape)` takes.
  template <class Chosen>
  int8_matrices(Executor& exec, parameters<float>& model, Chosen const& chosen, lowrank::weight_rounding rounding)
      : rounding_{rounding} {
    for (index_t i = 0; i < model.count(); ++i) {
      auto const& p = model[i];
      shapes_.push_back(p.shape);
      if (!chosen(p.name, p.shape)) {
        codes_.emplace_back();
        continue;
      }
      codes_.emplace_back(lowrank::block_layout{1, p.shape.size()});
      quantize(exec, model.weight(i).data, codes_.back().view());
      decode(exec, model, i);
    }
  }
  [[nodiscard]] bool has(index_t i) const { return at(i).layout().size() > 0; }
  [[nodiscard]] stored weight(index_t i) {
    auto const index = static_cast<std::size_t>(i);
    auto out = as_weight(codes_[index], shapes_[index]);
    out.rounding = rounding_;
    return out;
  }
  /// The fp32 model's matrix becomes what the codes stand for.
  void decode(Executor& exec, parameters<float>& model, index_t i) const {
    dequantize(exec, at(i).view(), model.weight(i).data);
  }
  /// Bytes of all weights: codes and scales where there are any, else the model's own.
  [[nodiscard]] index_t stored_bytes(parameters<float> const& model) const {
    index_t sum = 0;
    for (index_t i = 0; i < model.count(); ++i)
      sum += has(i) ? at(i).bytes() : model[i].shape.size() * index_t{sizeof(float)};
    return sum;
  }
  friend void visit_state(int8_matrices& m, auto&& f) {
    for (std::size_t i = 0; i < m.codes_.size(); ++i)
      if (m.codes_[i].layout().size() > 0) visit_state(m.codes_[i], lowrank::prefixed(f, std::to_string(i) + "."));
  }

 private:
  [[nodiscard]] owner const& at(index_t i) const { return codes_[static_cast<std::size_t>(i)]; }

  lowrank::weight_rounding rounding_;
  std::vector<lowrank::extents> shapes_;
  std::vector<owner> codes_;
};

}  // namespace llama
