// A weight that exists in int8 codes only, over memory of its own.
#pragma once

#include "lowrank/quant/quantized_weight.hpp"
#include "support/matrices.hpp"

namespace lowrank_test {

class int8_weight {
 public:
  using codec = lowrank::codec::affine<8>;

  int8_weight(lowrank::host_executor& exec, matrix_view<float const> values,
              lowrank::weight_rounding rounding = lowrank::weight_rounding::stochastic)
      : shape_{values.shape()}, rounding_{rounding}, codes_{{1, values.size()}} {
    quantize(exec, copy_of(values).data(), codes_.view());
  }
  [[nodiscard]] lowrank::quantized_weight<> view() {
    auto out = as_weight(codes_, shape_);
    out.rounding = rounding_;
    return out;
  }
  [[nodiscard]] matrix<float> values(lowrank::host_executor& exec) const {
    matrix<float> out{shape_};
    dequantize(exec, codes_.view(), out.data());
    return out;
  }
  [[nodiscard]] lowrank::index_t bytes() const noexcept { return codes_.bytes(); }

  friend void visit_state(int8_weight& w, auto&& f) { visit_state(w.codes_, f); }

 private:
  extents shape_;
  lowrank::weight_rounding rounding_;
  lowrank::blockwise<codec> codes_;
};

}  // namespace lowrank_test
