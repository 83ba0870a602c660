// Every kernel over tiles that the library ships, so that what ptxas makes of it can be looked at. Nothing here runs.
#include "lowrank/lowrank.cuh"

#include "lowrank/quant/double_quantized.hpp"
#include "lowrank/rule/adafactor.hpp"
#include "lowrank/rule/lion.hpp"
#include "lowrank/rule/low_bit_adam.hpp"
#include "lowrank/rule/sgd.hpp"

namespace {

using namespace lowrank;  // NOLINT(google-build-using-namespace)
using device_matrix = matrix_view<float, device_space>;

template <class Rule>
void instantiate_rule(cuda_executor& exec, device_matrix r, device_matrix w, matrix_view<bf16, device_space> narrow,
                      step_record* record) {
  Rule const rule{};
  auto state = rule.init(exec, r.shape());
  rule.begin(exec, state, record);
  rule.update(exec, state, r, w, record);
  if constexpr (requires(matrix_view<float const, device_space> g) {
                  rule.apply(exec, state, g, fp32_weight<device_space>{w}.tiles({}), record);
                }) {
    matrix_view<float const, device_space> const g = r;
    rule.apply(exec, state, g, fp32_weight<device_space>{w}.tiles({}), record);
    rule.apply(exec, state, g, bf16_weight<device_space>{narrow}.tiles({}), record);
    rule.apply(exec, state, g, master_weight<bf16, device_space>{narrow, w}.tiles({}), record);
    matrix_view<bf16 const, device_space> const half = narrow;
    rule.apply(exec, state, half, bf16_weight<device_space>{narrow}.tiles({}), record);
  }
  rule.reset(exec, state);
}
template <class Codec, int Block>
void instantiate_codec(cuda_executor& exec, device_matrix values, std::int32_t* flag, step_record const* record) {
  blockwise<Codec, Block, device_space> codes{{values.rows, values.cols}};
  dequantize(exec, codes.view(), values.data);
  quantize(exec, values.data, codes.view(), flag, record);
  if constexpr (Codec::dithers) quantize_stochastic(exec, values.data, codes.view(), {}, 0, flag, record);
}
template <class Weight>
void instantiate_weight(cuda_executor& exec, Weight const& weight, step_record const* record) {
  weight.close(exec, 0, 1, weight.open(exec, 0, 1), {}, record);
}

}  // namespace

void instantiate_rules(lowrank::cuda_executor& exec, device_matrix r, device_matrix w,
                       matrix_view<bf16, device_space> narrow, step_record* record) {
  instantiate_rule<rule::adam>(exec, r, w, narrow, record);
  instantiate_rule<rule::adam_8bit>(exec, r, w, narrow, record);
  instantiate_rule<rule::adam_8bit_cuda>(exec, r, w, narrow, record);
  instantiate_rule<rule::adam_8bit_torchao>(exec, r, w, narrow, record);
  instantiate_rule<rule::adam_4bit>(exec, r, w, narrow, record);
  instantiate_rule<rule::adam_fp8>(exec, r, w, narrow, record);
  instantiate_rule<rule::lion>(exec, r, w, narrow, record);
  instantiate_rule<rule::sgd>(exec, r, w, narrow, record);
  instantiate_rule<rule::plain_sgd>(exec, r, w, narrow, record);
  instantiate_rule<rule::adafactor>(exec, r, w, narrow, record);
}

void instantiate_codecs(lowrank::cuda_executor& exec, device_matrix values, std::int32_t* flag,
                        step_record const* record) {
  instantiate_codec<codec::affine<8>, 256>(exec, values, flag, record);
  instantiate_codec<codec::affine<4>, 256>(exec, values, flag, record);
  instantiate_codec<codec::symmetric<8>, 256>(exec, values, flag, record);
  instantiate_codec<codec::symmetric<4>, 256>(exec, values, flag, record);
  instantiate_codec<codec::dynamic8<>, 256>(exec, values, flag, record);
  instantiate_codec<codec::book4<>, 64>(exec, values, flag, record);
  instantiate_codec<codec::book4<tie_rule::up>, 128>(exec, values, flag, record);
  instantiate_codec<codec::fp8<>, 256>(exec, values, flag, record);
  instantiate_codec<codec::fp8<codec::fp8_kind::e5m2>, 256>(exec, values, flag, record);
}

void instantiate_weights(lowrank::cuda_executor& exec, device_matrix values, matrix_view<bf16, device_space> narrow,
                         matrix_view<fp16, device_space> half, step_record const* record) {
  instantiate_weight(exec, bf16_weight<device_space>{narrow}, record);
  instantiate_weight(exec, master_weight<bf16, device_space>{narrow, values}, record);
  instantiate_weight(exec, master_weight<fp16, device_space>{half, values}, record);
}
