/// @file
/// Adam with moments in eight or four bits, as published libraries keep them.
#pragma once

#include "lowrank/rule/adam.hpp"
#include "lowrank/rule/quantized_moment.hpp"

namespace lowrank::rule {

/// The formula of `adam` over moments in codes. How the codes are made is the type; where decay acts and what epsilon is
/// added to are values, as ever.
template <class Kind>
using low_bit_adam = elementwise<adam_formula, quantized_moment<Kind>>;

using adam_8bit = low_bit_adam<moments::bitsandbytes>;
using adam_8bit_cuda = low_bit_adam<moments::bitsandbytes_cuda>;
using adam_8bit_torchao = low_bit_adam<moments::torchao_8bit>;
using adam_4bit = low_bit_adam<moments::torchao_4bit>;
using adam_fp8 = low_bit_adam<moments::torchao_fp8>;
static_assert(update_rule<adam_8bit, host_executor> && update_rule<adam_4bit, host_executor>);

}  // namespace lowrank::rule
