// Everything that is a tile body: rules, moments in codes, codecs, rounding of weights.
#pragma once

#include "device/machine.hpp"
#include "lowrank/core/step_record.hpp"
#include "lowrank/quant/double_quantized.hpp"
#include "lowrank/quant/quantized_weight.hpp"
#include "lowrank/rule/adam.hpp"
#include "lowrank/rule/lion.hpp"
#include "lowrank/rule/low_bit_adam.hpp"
#include "lowrank/rule/sgd.hpp"

namespace lowrank_test {

template <class M>
class tile_cases {
 public:
  using executor = typename M::executor;
  using space = typename M::space;
  using index_t = lowrank::index_t;

  [[nodiscard]] static case_list<M> all() {
    tile_cases out;
    out.add_philox();
    out.add_rules();
    out.add_codecs();
    out.add_weights();
    return std::move(out.list_);
  }

 private:
  enum class pass { apply, update };

  [[nodiscard]] static std::string sized(std::string const& name, index_t count) {
    return name + " of " + std::to_string(count);
  }
  template <class Rule>
  void add_rule(std::string const& name, Rule const& rule, std::initializer_list<index_t> counts, pass which) {
    for (index_t const count : counts)
      list_.push_back({sized(name + (which == pass::apply ? ", whole step" : ", direction"), count),
                       [=](M& m) { return run_rule(m, rule, count, which, 0); }});
  }
  /// Three steps; the second one is to be skipped. `offset` elements before the arrays make their rows unaligned.
  template <class Rule>
  [[nodiscard]] static outcome run_rule(M& m, Rule const& rule, index_t count, pass which, index_t offset) {
    auto& exec = m.exec;
    lowrank::extents const shape{1, count};
    auto state = rule.init(exec, shape);
    auto weight = m.upload(heavy_tailed(count + offset, 1, 0.1F));
    outcome out;
    for (unsigned step = 0; step < 3; ++step) {
      auto gradient = m.upload(heavy_tailed(count + offset, 2 + step));
      lowrank::step_record record{.skip = step == 1 ? 1U : 0U, .grad_scale = 0.5F, .learning_rate = 1e-2F};
      record.decay = 0.1F;
      auto on_machine = m.upload(std::vector<lowrank::step_record>{record});
      auto const r = lowrank::row_major<space>(gradient.data() + offset, shape);
      lowrank::fp32_tiles const w{weight.data() + offset};
      rule.begin(exec, state, on_machine.data());
      if (which == pass::apply) rule.apply(exec, state, r, w, on_machine.data());
      else rule.update(exec, state, r, r, on_machine.data());
      m.keep(out, "gradient " + std::to_string(step), gradient);
    }
    m.keep(out, "weight", weight);
    visit_state(state, [&]<class V>(std::string_view name, V&& value) {
      if constexpr (lowrank::state_memory<std::remove_cvref_t<V>>)
        m.keep(out, "state " + std::string{name}, value.data(), value.size());
    });
    return out;
  }
  /// The known-answer inputs of the paper's code; agree_test knows the answers.
  void add_philox() {
    list_.push_back({"Philox", [](M& m) { return known_answers(m); }});
  }

 public:  // a CUDA compiler takes no kernel from a private function
  [[nodiscard]] static outcome known_answers(M& m) {
    lowrank::buffer<std::uint32_t, space> words{12};
    m.exec.single([to = words.data()] LOWRANK_DEVICE {
      auto const put = [to](int at, lowrank::philox_block const& block) {
        for (int k = 0; k < 4; ++k) to[at + k] = block[static_cast<std::size_t>(k)];
      };
      constexpr std::uint32_t ones = 0xFFFFFFFFU;
      put(0, lowrank::philox4x32_10({0, 0, 0, 0}, {0, 0}));
      put(4, lowrank::philox4x32_10({ones, ones, ones, ones}, {ones, ones}));
      put(8, lowrank::philox4x32_10({0x243F6A88U, 0x85A308D3U, 0x13198A2EU, 0x03707344U}, {0xA4093822U, 0x299F31D0U}));
    });
    outcome out;
    m.keep(out, "words", words);
    return out;
  }

 private:
  /// A whole step on bf16 elements.
  template <class Rule>
  [[nodiscard]] static outcome run_narrow(M& m, Rule const& rule, index_t count, lowrank::weight_rounding rounding) {
    std::vector<lowrank::bf16> begin;
    for (float const x : heavy_tailed(count, 1, 0.1F)) begin.push_back(lowrank::to_bf16(x));
    auto weight = m.upload(begin);
    auto state = rule.init(m.exec, {1, count});
    auto record = m.upload(std::vector<lowrank::step_record>{{.learning_rate = 1e-2F, .decay = 0.1F, .replays = 5}});
    auto const gradient = m.upload(heavy_tailed(count, 2));
    lowrank::bf16_weight<space> const view{lowrank::row_major<space>(weight.data(), {1, count}), rounding};
    rule.begin(m.exec, state, record.data());
    rule.apply(m.exec, state, lowrank::row_major<space>(gradient.data(), {1, count}),
               view.tiles({.seed = 9, .step = 2, .tensor = 4}), record.data());
    outcome out;
    m.keep(out, "weight", reinterpret_cast<std::uint16_t const*>(weight.data()), count);
    return out;
  }
  void add_rules() {
    namespace rule = lowrank::rule;
    auto const sizes = {index_t{1}, index_t{31}, index_t{128}, index_t{1000}, index_t{4099}};
    for (auto const which : {pass::apply, pass::update}) {
      add_rule("adamw", rule::adam{}, sizes, which);
      add_rule("adamw of galore_torch", rule::adam{lowrank::rule::adam_formula::galore()}, sizes, which);
      add_rule("sgd", rule::sgd{}, {1000}, which);
      add_rule("lion", rule::lion{}, {1000}, which);
      add_rule("8-bit adam", rule::adam_8bit{}, {4095, 4096, 9001}, which);
      add_rule("8-bit adam of the CUDA kernels", rule::adam_8bit_cuda{}, {9001}, which);
      add_rule("8-bit adam of torchao", rule::adam_8bit_torchao{}, {8192}, which);
      add_rule("4-bit adam", rule::adam_4bit{}, {4096, 8192}, which);
      add_rule("fp8 adam", rule::adam_fp8{}, {8192}, which);
    }
    add_rule("adam with coupled decay", rule::adam{rule::adam_formula::torch_adam()}, {1000}, pass::apply);
    for (auto const rounding : {lowrank::weight_rounding::nearest, lowrank::weight_rounding::stochastic})
      for (index_t const count : {1, 255, 1000, 4099})
        list_.push_back({sized(std::string{"adamw on bf16, "} +
                                   (rounding == lowrank::weight_rounding::nearest ? "nearest" : "stochastic"),
                               count),
                         [=](M& m) { return run_narrow(m, lowrank::rule::adam{}, count, rounding); }});
    list_.push_back({"8-bit adam on bf16", [](M& m) {
                       return run_narrow(m, lowrank::rule::adam_8bit{}, 9001, lowrank::weight_rounding::stochastic);
                     }});
    list_.push_back({"adamw on rows that no vector fits",
                     [](M& m) { return run_rule(m, lowrank::rule::adam{}, 1000, pass::apply, 1); }});
    list_.push_back({"8-bit adam on rows that no vector fits",
                     [](M& m) { return run_rule(m, lowrank::rule::adam_8bit{}, 9001, pass::apply, 3); }});
  }

  template <int Block, class Codec>
  void add_codec(std::string const& name, Codec codec) {
    lowrank::block_layout const flat{1, 10 * Block + Block / 2 + 3}, lines{7, 2 * Block + 5};
    for (auto const layout : {flat, lines}) {
      auto const title = sized(name + ", blocks of " + std::to_string(Block), layout.size()) + " in " +
                         std::to_string(layout.lines) + " lines";
      list_.push_back({title, [=](M& m) { return run_codec<Block>(m, codec, layout); }});
    }
  }
  template <int Block, class Codec>
  [[nodiscard]] static outcome run_codec(M& m, Codec codec, lowrank::block_layout layout) {
    outcome out;
    auto values = heavy_tailed(layout.size(), 11);
    values[5] = 0, values[6] = -0.0F, values[7] = 1e-38F;
    if (values.size() > 300) values[300] = std::numeric_limits<float>::infinity();  // its block is left alone
    auto const from = m.upload(values);
    lowrank::blockwise<Codec, Block, space> codes{layout, codec};
    auto flag = m.upload(std::vector<std::int32_t>{0});
    auto const keep = [&](std::string const& how) {
      visit_state(codes, [&](std::string_view name, auto& memory) {
        m.keep(out, how + " " + std::string{name}, memory.data(), memory.size());
      });
      lowrank::buffer<float, space> back{layout.size()};
      lowrank::dequantize(m.exec, codes.view(), back.data());
      m.keep(out, how + " values", back);
      m.keep(out, how + " flag", flag);
    };
    lowrank::quantize(m.exec, from.data(), codes.view(), flag.data());
    keep("nearest");
    if constexpr (Codec::dithers) {
      lowrank::rng_key const key{.seed = 7, .step = 3, .tensor = 5};
      lowrank::quantize_stochastic(m.exec, from.data(), codes.view(), key, 64, flag.data());
      keep("stochastic");
    }
    return out;
  }
  void add_codecs() {
    namespace codec = lowrank::codec;
    using lowrank::signedness;
    add_codec<256>("affine int8", codec::affine<8>{});
    add_codec<32>("affine int8", codec::affine<8>{});
    add_codec<1024>("affine int4", codec::affine<4>{});
    add_codec<32>("affine int4", codec::affine<4>{});
    add_codec<256>("affine int4 with zero", codec::affine<4, codec::range_rule::with_zero>{});
    add_codec<256>("affine int8 as measured", codec::affine<8, codec::range_rule::as_measured>{});
    add_codec<128>("symmetric int8", codec::symmetric<8>{});
    add_codec<64>("symmetric int4", codec::symmetric<4>{});
    add_codec<256>("signed dynamic8", codec::dynamic8<>{signedness::with_sign});
    add_codec<4096>("unsigned dynamic8", codec::dynamic8<>{signedness::nonnegative});
    add_codec<256>("dynamic8, ties up", codec::dynamic8<lowrank::tie_rule::up>{signedness::with_sign});
    add_codec<64>("NF4", codec::book4<>{});
    add_codec<32>("NF4", codec::book4<>{});
    add_codec<128>("dynamic4", codec::book4<lowrank::tie_rule::up>{codec::book4_name::dynamic});
    add_codec<128>("sixteenths", codec::book4<lowrank::tie_rule::up>{codec::book4_name::sixteenths});
    add_codec<256>("e4m3", codec::fp8<>{});
    add_codec<256>("e5m2", codec::fp8<codec::fp8_kind::e5m2>{});
  }

  void add_weights() {
    using lowrank::weight_rounding;
    for (auto const rounding : {weight_rounding::nearest, weight_rounding::stochastic})
      for (bool const flipped : {false, true})
        list_.push_back({std::string{"bf16 weight, "} +
                             (rounding == weight_rounding::nearest ? "nearest" : "stochastic") +
                             (flipped ? ", by columns" : ""),
                         [=](M& m) { return run_bf16(m, rounding, flipped); }});
    list_.push_back({"fp16 weight with a master", [](M& m) {
                       lowrank::extents const shape{13, 37};
                       auto master = m.upload(heavy_tailed(shape.size(), 21));
                       auto record = m.upload(std::vector<lowrank::step_record>(1));
                       lowrank::buffer<lowrank::fp16, space> values{shape.size()};
                       lowrank::master_weight<lowrank::fp16, space> const weight{
                           lowrank::row_major<space>(values.data(), shape),
                           lowrank::row_major<space>(master.data(), shape)};
                       weight.close(m.exec, 3, 11, weight.open(m.exec, 3, 11), {}, record.data());
                       outcome out;
                       m.keep(out, "values", reinterpret_cast<std::uint16_t const*>(values.data()), values.size());
                       return out;
                     }});
    list_.push_back({"int8 weight", [](M& m) {
                       lowrank::extents const shape{16, 100};
                       auto const from = m.upload(heavy_tailed(shape.size(), 22));
                       auto record = m.upload(std::vector<lowrank::step_record>{{.replays = 2}});
                       lowrank::blockwise<lowrank::codec::affine<8>, 256, space> codes{{1, shape.size()}};
                       lowrank::quantize(m.exec, from.data(), codes.view());
                       auto const weight = lowrank::as_weight(codes, shape);
                       m.exec.reserve(1 << 20);
                       lowrank::rng_key const key{.seed = 3, .step = 1, .tensor = 2};
                       for (index_t begin = 0; begin < shape.rows; begin += weight.row_quantum()) {
                         lowrank::scratch_scope const scope{m.exec};
                         index_t const end = std::min(shape.rows, begin + weight.row_quantum());
                         weight.close(m.exec, begin, end, weight.open(m.exec, begin, end), key, record.data());
                       }
                       outcome out;
                       visit_state(codes, [&](std::string_view name, auto& memory) {
                         m.keep(out, std::string{name}, memory.data(), memory.size());
                       });
                       return out;
                     }});
  }
  [[nodiscard]] static outcome run_bf16(M& m, lowrank::weight_rounding rounding, bool flipped) {
    lowrank::extents const shape{13, 37};
    auto const from = m.upload(heavy_tailed(shape.size(), 20));
    auto record = m.upload(std::vector<lowrank::step_record>{{.replays = 4}});
    lowrank::buffer<lowrank::bf16, space> values{shape.size()};
    auto const rows = flipped ? lowrank::row_major<space>(values.data(), shape.t()).t()
                              : lowrank::row_major<space>(values.data(), shape);
    lowrank::bf16_weight<space> const weight{rows, rounding};
    auto const panel = lowrank::row_major<space>(const_cast<float*>(from.data()), shape);
    lowrank::rng_key const key{.seed = 3, .step = 1, .tensor = 2};
    weight.close(m.exec, 0, shape.rows, panel, key, record.data());
    outcome out;
    m.keep(out, "values", reinterpret_cast<std::uint16_t const*>(values.data()), values.size());
    return out;
  }

  case_list<M> list_;
};

}  // namespace lowrank_test
