// Moments in codes: decoded, moved on by the formula, encoded again, block by block.
#include <doctest/doctest.h>

#include <vector>

#include "lowrank/rule/adam.hpp"
#include "lowrank/rule/quantized_moment.hpp"
#include "support/codecs.hpp"
#include "support/optimizers.hpp"

namespace quantized_moment_test {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("quantized moments");

template <class Moment>
using adam_with = rule::elementwise<rule::adam_formula, Moment>;
template <class Kind>
using coded_adam = adam_with<rule::quantized_moment<Kind>>;

using host = host_space;
constexpr index_t unsaved = sizeof(rule::adam_formula::scalars);  // of the current step
#define LOWRANK_TEST_KINDS                                                                    \
  rule::moments::bitsandbytes, rule::moments::bitsandbytes_cuda, rule::moments::torchao_8bit, \
      rule::moments::torchao_4bit, rule::moments::torchao_fp8

/// One step of a rule on gradient g: the direction.
template <class Rule>
matrix<float> stepped(host_executor& exec, Rule const& rule, typename Rule::template state<host>& state,
                      matrix<float> const& g, step_record record = {.learning_rate = 0.1F}) {
  matrix<float> n{g.shape()};
  rule.begin(exec, state, &record);
  rule.update(exec, state, read(g), n.view(), &record);
  return n;
}

TEST_CASE_TEMPLATE("a tensor too small for codes is fp32, bit for bit", Kind, LOWRANK_TEST_KINDS) {
  host_executor exec{{.threads = 2}};
  for (extents const shape : {extents{1, 1}, extents{63, 65}, extents{7, 100}}) {
    REQUIRE_FALSE(Kind::quantizes(shape.size()));
    coded_adam<Kind> const rule{};
    rule::adam const plain{};
    auto state = rule.init(exec, shape);
    auto reference = plain.init(exec, shape);
    CHECK(rule.bytes(shape) == plain.bytes(shape));
    CHECK(state_bytes(state) + unsaved == rule.bytes(shape));
    for (index_t k = 0; k < 4; ++k)
      CHECK(same_bits(stepped(exec, rule, state, gradient_of_step(shape, k)),
                      stepped(exec, plain, reference, gradient_of_step(shape, k))));
  }
}

TEST_CASE("who is too small: fewer than 4096 elements, and for torchao what is not whole blocks") {
  CHECK_FALSE(rule::moments::bitsandbytes::quantizes(4095));
  CHECK(rule::moments::bitsandbytes::quantizes(4096));
  CHECK(rule::moments::bitsandbytes::quantizes(4097));
  CHECK_FALSE(rule::moments::torchao_8bit::quantizes(4000));
  CHECK_FALSE(rule::moments::torchao_8bit::quantizes(4097));
  CHECK(rule::moments::torchao_8bit::quantizes(4096 + 256));
  CHECK_FALSE(rule::moments::torchao_8bit::quantizes(4096 + 128));
  CHECK(rule::moments::torchao_4bit::quantizes(4096 + 128));
}

/// The same steps, one number after another.
template <class Kind>
struct plain_moments {
  rule::adam_formula formula;
  std::array<typename Kind::codec_type, 2> codec{Kind::of(moment_order::first), Kind::of(moment_order::second)};
  std::array<std::vector<float>, 2> decoded;  ///< what the next step starts from
  std::array<std::vector<int>, 2> codes;
  std::int64_t steps{};

  explicit plain_moments(index_t count) {
    for (std::size_t k = 0; k < 2; ++k)
      decoded[k].resize(static_cast<std::size_t>(count)), codes[k].resize(static_cast<std::size_t>(count));
  }
  std::vector<float> step(matrix<float> const& g) {
    auto const scalars = formula.at(++steps, 0.1F);
    std::vector<float> n;
    for (std::size_t i = 0; i < decoded[0].size(); ++i) {
      std::array<float, 2> m{decoded[0][i], decoded[1][i]};
      n.push_back(rule::adam_formula::direction(g.data()[i], m, scalars));
      decoded[0][i] = m[0];
      decoded[1][i] = m[1];
    }
    constexpr auto block = static_cast<std::size_t>(Kind::block);
    for (std::size_t k = 0; k < 2; ++k)
      for (std::size_t first = 0; first < n.size(); first += block) {
        std::size_t const end = std::min(n.size(), first + block);
        auto const shared = shared_by(codec[k], {decoded[k].begin() + static_cast<std::ptrdiff_t>(first),
                                                 decoded[k].begin() + static_cast<std::ptrdiff_t>(end)});
        for (std::size_t i = first; i < end; ++i) {
          codes[k][i] = code_of(codec[k], decoded[k][i], shared);
          decoded[k][i] = value_of(codec[k], codes[k][i], shared);
        }
      }
    return n;
  }
};

TEST_CASE_TEMPLATE("a step is: decode, the formula, the direction from what is not rounded, encode", Kind,
                   LOWRANK_TEST_KINDS) {
  host_executor exec{{.threads = 2}};
  for (extents const shape : {extents{64, 80}, extents{67, 64}}) {
    if (!Kind::quantizes(shape.size())) continue;
    coded_adam<Kind> const rule{};
    auto state = rule.init(exec, shape);
    plain_moments<Kind> plain{shape.size()};
    for (index_t k = 0; k < 4; ++k) {
      auto const g = gradient_of_step(shape, k);
      auto const n = stepped(exec, rule, state, g);
      auto const expected = plain.step(g);
      int wrong = 0;
      for (std::size_t i = 0; i < expected.size(); ++i) wrong += n.data()[i] != expected[i];
      CHECK(wrong == 0);
      int other = 0;
      for (std::size_t m = 0; m < 2; ++m) {
        auto const view = state.moment[m].codes.view();
        for (std::size_t i = 0; i < expected.size(); ++i) {
          bool const half = Kind::codec_type::bits == 4;
          int const byte = view.codes[half ? i / 2 : i];
          other += (!half ? byte : i % 2 == 0 ? byte >> 4 : byte & 0xF) != plain.codes[m][i];
        }
      }
      CHECK(other == 0);
    }
  }
}

TEST_CASE("bytes: a byte a number and a scale for 256 of them") {
  extents const shape{100, 128};
  using eight = rule::quantized_moment<rule::moments::bitsandbytes>;
  using four = rule::quantized_moment<rule::moments::torchao_4bit>;
  CHECK(eight::bytes(shape.size()) == 12800 + 50 * 4);
  CHECK(four::bytes(shape.size()) == 6400 + 100 * 4);
  host_executor exec{{.threads = 1}};
  for (extents const s : {shape, extents{64, 65}, extents{3, 5}}) {
    adam_with<eight> const rule{};
    auto const state = rule.init(exec, s);
    CHECK(state_bytes(state) + unsaved == rule.bytes(s));
  }
}

TEST_CASE("a tiny negative first moment: bitsandbytes rounds it to zero, its CUDA kernels do not") {
  host_executor exec{{.threads = 1}};
  auto const code = [&]<class Kind>(Kind) {
    coded_adam<Kind> const rule{};
    matrix<float> g{64, 64};
    g(0, 0) = 1;
    g(0, 1) = -1e-9F;
    g(0, 2) = 1e-9F;
    auto state = rule.init(exec, g.shape());
    stepped(exec, rule, state, g);
    auto const* const codes = state.moment[0].codes.view().codes;
    CHECK(int{codes[0]} == 255);
    CHECK(int{codes[2]} == 127);
    CHECK(int{codes[3]} == 127);
    return int{codes[1]};
  };
  CHECK(code(rule::moments::bitsandbytes{}) == 127);
  CHECK(code(rule::moments::bitsandbytes_cuda{}) == 126);
}

TEST_CASE_TEMPLATE("skipped steps leave codes alone, a reset makes them zeros", Kind, LOWRANK_TEST_KINDS) {
  host_executor exec{{.threads = 2}};
  extents const shape{64, 72};
  coded_adam<Kind> const rule{};
  auto state = rule.init(exec, shape);
  auto const born = saved(state);
  stepped(exec, rule, state, gradient_of_step(shape, 0));
  auto const before = saved(state);
  auto const n = stepped(exec, rule, state, gradient_of_step(shape, 1), {.skip = 1, .learning_rate = 0.1F});
  CHECK(saved(state) == before);
  CHECK(squared_norm_of(n.view()) == 0);
  rule.reset(exec, state);
  CHECK(saved(state) == born);
}

TEST_CASE_TEMPLATE("read gives what the codes stand for, as the weight lies; write rounds once", Kind,
                   LOWRANK_TEST_KINDS) {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
  using moment = rule::quantized_moment<Kind>;
  extents const shape{64, 80};
  for (side const where : {side::left, side::right}) {
    auto state = moment::template make<host>(shape.size(), moment_order::first);
    auto const m = random_matrix(where == side::left ? shape : shape.t(), 4);
    auto const facing_m = where == side::left ? read(m) : read(m).t();
    scratch_scope const scope{exec};
    moment::write(exec, state, where, facing_m);
    auto const before = exec.arena().available();
    auto const back = moment::read(exec, state, where, shape);
    CHECK(before - exec.arena().available() == moment::read_bytes(shape));
    CHECK(back.shape() == shape);
    // fp8 and 4 bits are coarse; what is a code already stays it.
    CHECK(largest_difference(back, facing_m) < (Kind::codec_type::bits == 4 ? 0.6 : 0.15));
    auto const once = saved(state);
    moment::write(exec, state, where, const_view_of<host_executor>(back));
    auto const twice = moment::read(exec, state, where, shape);
    // The negative extreme of a block shrinks at every encoding where the book has no -1.
    if constexpr (std::is_same_v<Kind, rule::moments::torchao_fp8>) CHECK(saved(state) == once);
    else CHECK(largest_difference(back, twice) < (Kind::codec_type::bits == 4 ? 0.6 : 0.08));
  }
}

TEST_SUITE_END();

}  // namespace

}  // namespace quantized_moment_test
