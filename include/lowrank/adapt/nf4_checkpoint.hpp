/// @file
/// NF4 weights with double quantization as bitsandbytes and transformers keep them in checkpoints, code by code.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lowrank/adapt/frozen_matrix.hpp"
#include "lowrank/io/json_file.hpp"
#include "lowrank/io/safetensors.hpp"

namespace lowrank::adapt {

/// One tensor of a checkpoint with its bytes.
struct stored_tensor {
  tensor_spec spec;
  std::vector<std::byte> bytes;

  [[nodiscard]] tensor_source source() const { return {spec, bytes}; }
};

namespace detail {

inline constexpr std::string_view nf4_state_suffix = ".quant_state.bitsandbytes__nf4";
inline constexpr index_t nf4_scales_together = frozen_matrix::nf4_codes::scales_type::view_type::block;

[[nodiscard]] inline std::span<float const> nf4_map() { return codec::book4<>{}.book().value; }
[[nodiscard]] inline std::span<float const> nf4_scale_map() { return {codec::dynamic8<>{}.values(), 256}; }

/// f(tensor's name, its memory) for the codes, their codes of scales, and the scales of those.
template <class F>
void visit_nf4(frozen_matrix::nf4_codes& codes, std::string const& weight, F&& f) {
  visit_state(codes, [&]<class Part>(std::string_view part, Part& memory) {
    if constexpr (std::same_as<Part, buffer<std::uint8_t>>)
      f(part == "codes" ? weight : weight + ".absmax", memory.span());
    else if (part == "scale.scales") f(weight + ".nested_absmax", memory.span());
  });
}
/// The number that was taken from all scales.
[[nodiscard]] inline float& nf4_offset(frozen_matrix::nf4_codes& codes) {
  float* out = nullptr;
  visit_state(codes, [&]<class Part>(std::string_view part, Part& memory) {
    if constexpr (std::same_as<Part, buffer<float>>)
      if (part == "scale.mean") out = memory.data();
  });
  return *out;
}

}  // namespace detail

/// The six tensors of an NF4 matrix in a checkpoint. `weight`: "model.layers.0.self_attn.q_proj.weight". `computes`: the type that
/// bitsandbytes shall open it to.
/// Throws: argument_error unless w is in NF4, and for a type that is none of F32, F16 and BF16.
/// Reference: QuantState.as_dict(packed=True) of bitsandbytes 0.50.2.
[[nodiscard]] inline std::vector<stored_tensor> to_bitsandbytes(std::string const& weight, frozen_matrix const& w,
                                                                dtype computes = dtype::bf16) {
  constexpr std::string_view caller = "to_bitsandbytes";
  auto const* const stored = w.stored<frozen_matrix::nf4_codes>();
  require(stored != nullptr, caller, lowrank::detail::quoted{weight}, " must be in nf4, got ", name(w.format()));
  require(computes == dtype::f32 || computes == dtype::f16 || computes == dtype::bf16, caller,
          "computes must be F32, F16 or BF16, got ", computes);
  auto& codes = const_cast<frozen_matrix::nf4_codes&>(*stored);  // states are visited to be changed; here they are not
  std::vector<stored_tensor> out;
  auto const add = [&out]<class T>(std::string name, dtype type, std::vector<index_t> shape, std::span<T> values) {
    auto const bytes = std::as_bytes(values);
    out.push_back({{std::move(name), type, std::move(shape)}, {bytes.begin(), bytes.end()}});
  };
  detail::visit_nf4(codes, weight, [&]<class T>(std::string const& name, std::span<T> values) {
    auto const size = static_cast<index_t>(values.size());
    add(name, dtype_of<T>, name == weight ? std::vector<index_t>{size, 1} : std::vector<index_t>{size}, values);
  });
  add(weight + ".quant_map", dtype::f32, {16}, detail::nf4_map());
  add(weight + ".nested_quant_map", dtype::f32, {256}, detail::nf4_scale_map());
  json_value state = json_value::object();
  state["quant_type"] = "nf4";
  state["blocksize"] = frozen_matrix::nf4_codes::block;
  state["dtype"] = computes == dtype::f32 ? "float32" : computes == dtype::f16 ? "float16" : "bfloat16";
  state["shape"] = {w.shape().rows, w.shape().cols};
  state["nested_blocksize"] = detail::nf4_scales_together;
  state["nested_dtype"] = "float32";
  state["nested_offset"] = static_cast<double>(detail::nf4_offset(codes));
  auto const text = state.dump();
  add(weight + std::string{detail::nf4_state_suffix}, dtype::u8, {static_cast<index_t>(text.size())}, std::span{text});
  return out;
}

/// The matrix that six tensors of a checkpoint hold, its codes as they are.
/// Throws: io_error, shape_error naming the tensor, where one is missing, disagrees with the others, or is of another format: fp4,
/// other blocks, other maps, or scales that are not quantized again.
[[nodiscard]] inline frozen_matrix from_bitsandbytes(safetensors_reader const& file, std::string const& weight) {
  std::string const caller = "from_bitsandbytes: " + file.path().string();
  auto const named = lowrank::detail::quoted{weight};
  std::string const state_name = weight + std::string{detail::nf4_state_suffix};
  auto const& state_info = file.at(state_name);
  constexpr index_t state_limit = 1 << 16;
  require<io_error>(state_info.type == dtype::u8 && state_info.bytes() <= state_limit, caller, "tensor ",
                    lowrank::detail::quoted{state_name}, " must be U8 of at most ", state_limit, " bytes");
  std::string text(static_cast<std::size_t>(state_info.bytes()), ' ');
  file.read_into(state_name, std::as_writable_bytes(std::span{text}));
  auto const state = parse_json(text, caller + ": " + state_name);
  require<io_error>(state.is_object(), caller, named, ": its state must be an object");
  auto const member = [&](char const* field) { return state.value(field, json_value{}); };
  auto const expect = [&](char const* field, json_value const& wanted) {
    require<io_error>(member(field) == wanted, caller, named, ": ", field, " must be ", wanted.dump(), ", got ",
                      member(field).dump());
  };
  expect("quant_type", "nf4");
  expect("blocksize", frozen_matrix::nf4_codes::block);
  require<io_error>(!member("nested_blocksize").is_null(), caller, named, ": its scales must be quantized again");
  expect("nested_blocksize", detail::nf4_scales_together);
  expect("nested_dtype", "float32");
  auto const shape = member("shape"), offset = member("nested_offset");
  constexpr index_t side_limit = index_t{1} << 31;
  auto const side = [&](std::size_t i) { return shape[i].is_number_integer() ? shape[i].get<index_t>() : index_t{-1}; };
  require<io_error>(shape.is_array() && shape.size() == 2 && side(0) >= 1 && side(1) >= 1 && side(0) < side_limit &&
                        side(1) < side_limit,
                    caller, named, ": shape must be two positive numbers, got ", shape.dump());
  require<io_error>(offset.is_number() && is_finite(offset.get<float>()), caller, named,
                    ": nested_offset must be finite, got ", offset.dump());

  extents const matrix_shape{side(0), side(1)};
  auto const check = [&](std::string const& name, dtype type, index_t count) {
    auto const& info = file.at(name);
    require<shape_error>(info.type == type && info.bytes() / (bits(type) / 8) == count, caller, "tensor ",
                         lowrank::detail::quoted{name}, " must have ", count, " numbers of ", type, " for a matrix of ",
                         matrix_shape, ", got ", lowrank::detail::shape_text{info.shape}, " of ", info.type);
  };
  auto const map = [&](std::string const& name, std::span<float const> ours) {
    check(name, dtype::f32, static_cast<index_t>(ours.size()));
    std::vector<float> values(ours.size());
    file.read(name, std::span{values});
    require<io_error>(std::memcmp(values.data(), ours.data(), ours.size_bytes()) == 0, caller, "tensor ",
                      lowrank::detail::quoted{name}, " is another map than that of its format");
  };
  map(weight + ".quant_map", detail::nf4_map());
  map(weight + ".nested_quant_map", detail::nf4_scale_map());
  // Before memory of that size is asked for.
  check(weight, dtype::u8, (matrix_shape.size() + 1) / 2);
  frozen_matrix::nf4_codes codes{matrix_shape.size()};
  detail::visit_nf4(codes, weight, [&]<class T>(std::string const& name, std::span<T> values) {
    check(name, dtype_of<T>, static_cast<index_t>(values.size()));
    file.read(name, values);
    if constexpr (std::same_as<T, float>)
      for (float const x : values)
        require<io_error>(is_finite(x) && x >= 0, caller, "tensor ", lowrank::detail::quoted{name},
                          " must be finite and not negative, got ", x);
  });
  detail::nf4_offset(codes) = offset.get<float>();
  return {std::move(codes), matrix_shape};
}

}  // namespace lowrank::adapt
