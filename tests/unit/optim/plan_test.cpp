// The planner: its sums, what it refuses, and every byte it plans against what is really allocated and used.
#include <doctest/doctest.h>

#include "lowrank/lowrank.hpp"
#include "lowrank/optim/parameter_set.hpp"
#include "lowrank/optim/plan.hpp"
#include "support/allocation_counter.hpp"
#include "support/optimizers.hpp"

namespace plan_test {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("plan");

TEST_CASE("lines of one name are one line; sums are by kind; of an overlay only the largest counts") {
  memory_plan plan;
  plan.add(memory_kind::workspace, "scratch", 100, "block");
  plan.add(memory_kind::weights, "codes", 1000);
  plan.add(memory_kind::weights, "codes", 24);
  plan.add(memory_kind::state, "moments", 7);
  plan.add(memory_kind::basis, "basis", 9);
  plan.widen(memory_kind::gradients, "one", 50);
  plan.widen(memory_kind::gradients, "one", 70);
  plan.widen(memory_kind::gradients, "one", 60);
  plan.add(memory_kind::activations, "logits", 300, "block");
  plan.add(memory_kind::activations, "others", 300, "block");
  CHECK(plan.lines().size() == 7);
  CHECK(plan.lines().front().what == "codes");
  CHECK(plan.lines().back().what == "scratch");
  CHECK(plan.bytes(memory_kind::weights, "codes") == 1024);
  CHECK(plan.bytes(memory_kind::gradients, "one") == 70);
  CHECK(plan.bytes(memory_kind::state, "absent") == 0);
  CHECK(plan.total(memory_kind::activations) == 600);
  CHECK(plan.resident() == 1024 + 7 + 9);
  CHECK(plan.peak() == 1024 + 7 + 9 + 70 + 300);
  CHECK(memory_plan{}.peak() == 0);
}

TEST_CASE("as text: every line, resident and peak, in bytes and GiB") {
  memory_plan plan;
  plan.add(memory_kind::weights, "codes", index_t{3} << 29);
  plan.add(memory_kind::activations, "logits", 12345678, "block");
  std::ostringstream out;
  out << plan;
  auto const text = out.str();
  CHECK(text.find("1610612736") != std::string::npos);
  CHECK(text.find("1.500 GiB") != std::string::npos);
  CHECK(text.find("logits [block]") != std::string::npos);
  CHECK(text.find("1622958414") != std::string::npos);
  CHECK(std::count(text.begin(), text.end(), '\n') == 4);
}

TEST_CASE("what does not fit is refused with what is missing") {
  memory_plan plan;
  plan.add(memory_kind::weights, "codes", index_t{3} << 30);
  require_fits(plan, index_t{3} << 30);
  auto const refused = [&](index_t available) {
    return refusal<state_error>([&] { require_fits(plan, available, "memory-7b"); });
  };
  CHECK(
      refused((index_t{3} << 30) - 1) ==
      "lowrank::memory-7b: needs 3.000 GiB (3221225472 bytes), available are 3.000 GiB (3221225471): 0.000 GiB (1) are "
      "missing");
  CHECK(refused(index_t{1} << 30).find("2.000 GiB (2147483648) are missing") != std::string::npos);
  CHECK(refused(-1).find("3.000 GiB (3221225472) are missing") != std::string::npos);
}

std::vector<plan_group> fp32_adamw() { return {planned<fp32_weight<>>("all", adamw{}, every_parameter)}; }

TEST_CASE("sums and shapes beyond 64 bits are refused") {
  constexpr index_t most = std::numeric_limits<index_t>::max();
  memory_plan plan;
  plan.add(memory_kind::weights, "codes", most - 1);
  CHECK(refusal<shape_error>([&] { plan.add(memory_kind::state, "moments", 2); }) ==
        "lowrank::plan: moments (9223372036854775806 + 2) does not fit 64 bits");
  plan.add(memory_kind::state, "moments", 1);
  CHECK(plan.peak() == most);
  CHECK(refusal<shape_error>([&] { plan.add(memory_kind::state, "moments", -1); }).find("negative") !=
        std::string::npos);
  CHECK(checked::product(index_t{1} << 31, index_t{1} << 31, "it") == index_t{1} << 62);
  CHECK(refusal<shape_error>([] {
          std::ignore = checked::product(index_t{1} << 32, index_t{1} << 31, "it");
        }).find("does not fit 64 bits") != std::string::npos);

  auto const groups = fp32_adamw();
  auto const refused = [&](extents shape, index_t tokens) {
    std::vector<planned_parameter> const parameters{{"w", shape}};
    return refusal<shape_error>([&] { std::ignore = plan_of(parameters, groups, {.tokens = tokens}); });
  };
  CHECK(refused({index_t{1} << 32, index_t{1} << 32}, 0).find("\"w\" is 4294967296x4294967296") != std::string::npos);
  CHECK(refused({most, 1}, 0).find("64 bits") != std::string::npos);
  CHECK(refused({-1, 4}, 0).find("negative") != std::string::npos);
  CHECK(refused({4, 4}, -1).find("negative") != std::string::npos);
  CHECK(refused({4, 4}, most / 2).find("tokens") != std::string::npos);
  // The largest that is taken still has exact sums.
  std::vector<planned_parameter> const large{{"w", {index_t{1} << 25, index_t{1} << 25}}};
  auto const total = plan_of(large, groups);
  CHECK(total.bytes(memory_kind::weights, "all: fp32") == index_t{1} << 52);
  CHECK(total.bytes(memory_kind::gradients, "all: dense") == index_t{1} << 52);
}

TEST_CASE("a parameter goes to the first group that takes it, or is refused") {
  auto const is_vector = [](std::string_view, extents shape) { return shape.rows == 1; };
  std::vector<plan_group> groups{planned<bf16_weight<>>("vectors", sgd{}, is_vector)};
  std::vector<planned_parameter> const parameters{{"gain", {1, 6}}, {"weight", {4, 6}}};
  CHECK(refusal<argument_error>([&] { std::ignore = plan_of(parameters, groups); }) ==
        "lowrank::plan: no group matches \"weight\" (4x6)");
  groups.push_back(fp32_adamw()[0]);
  auto const plan = plan_of(parameters, groups);
  CHECK(plan.bytes(memory_kind::weights, "vectors: bf16") == 12);
  CHECK(plan.bytes(memory_kind::weights, "all: fp32") == 96);
  CHECK(refusal<argument_error>([] {
          std::ignore = planned<fp32_weight<>>("all", galore_adamw{.rank = 0}, every_parameter);
        }).find("rank") != std::string::npos);
}

TEST_CASE("gradients: all, the largest, none; factored ones take nothing") {
  auto const is_linear = [](std::string_view name, extents) { return name != "embedding"; };
  std::vector<plan_group> const groups{planned<fp32_weight<>>("linear", galore_adamw{.rank = 4}, is_linear),
                                       fp32_adamw()[0]};
  std::vector<planned_parameter> const parameters{{"a", {8, 16}}, {"b", {16, 8}}, {"embedding", {10, 4}}};
  auto const of = [&](gradients_alive alive, index_t tokens) {
    return plan_of(parameters, groups, {alive, tokens}).total(memory_kind::gradients);
  };
  CHECK(of(gradients_alive::all, 0) == 4 * (128 + 128 + 40));
  CHECK(of(gradients_alive::one, 0) == 4 * 128);
  CHECK(of(gradients_alive::none, 0) == 0);
  CHECK(of(gradients_alive::all, 3) == 4 * 40);
  CHECK(of(gradients_alive::one, 3) == 4 * 40);
}

/// Codes and scales of a weight that is really there.
struct int8_matrix {
  explicit int8_matrix(extents shape) : logical{shape}, codes{{1, shape.size()}} {}
  [[nodiscard]] auto view() { return as_weight(codes, logical); }
  [[nodiscard]] index_t bytes() const { return codes.bytes(); }

  extents logical;
  blockwise<codec::affine<8>> codes;
};
struct bf16_matrix {
  explicit bf16_matrix(extents shape) : values{shape} {}
  [[nodiscard]] auto view() { return bf16_weight<>{values.view()}; }
  [[nodiscard]] index_t bytes() const { return values.bytes(); }

  matrix<bf16> values;
};
struct fp32_matrix {
  explicit fp32_matrix(extents shape) : values{shape} {}
  [[nodiscard]] auto view() { return fp32_weight<>{values.view()}; }
  [[nodiscard]] index_t bytes() const { return values.bytes(); }

  matrix<float> values;
};

/// What the allocator adds, because it hands out whole cache lines: `scalars` is the only buffer a state does not name,
/// beside the record.
template <class State>
index_t rounding_of(State const& state, index_t planned) {
  index_t added = scratch_size(index_t{sizeof(step_record)}) - index_t{sizeof(step_record)};
  index_t named = 0;
  read_state(state, [&](std::string_view, auto const& value) {
    if constexpr (state_memory<std::remove_cvref_t<decltype(value)>>) {
      named += value.bytes();
      added += scratch_size(value.bytes()) - value.bytes();
    }
  });
  index_t const scalars = planned - named - index_t{sizeof(step_record)};
  return added + scratch_size(scalars) - scalars;
}

template <class Matrix, class Optimizer>
void check_against_allocations(Optimizer const& optimizer, extents shape) {
  CAPTURE(shape);
  std::vector<plan_group> const groups{
      planned<decltype(std::declval<Matrix&>().view())>("all", optimizer, every_parameter)};
  std::vector<planned_parameter> const parameters{{"w", shape}};
  allocation_counter const none;
  std::ignore = none;
  auto const plan = plan_of(parameters, groups, {gradients_alive::all, 0});
  if (allocation_counter::watches()) CHECK(none.aligned_bytes() == 0);

  host_executor exec{{.threads = 1}};
  Matrix weight{shape};
  CHECK(plan.total(memory_kind::weights) == weight.bytes());
  {
    allocation_counter const counter;
    auto const state = optimizer.init(exec, shape, 3);
    index_t const planned_bytes = plan.total(memory_kind::basis) + plan.total(memory_kind::state);
    if (allocation_counter::watches())
      CHECK(counter.aligned_bytes() == planned_bytes + rounding_of(state, planned_bytes));
    // The parts, not only their sum.
    index_t basis = 0;
    read_state(state, [&](std::string_view name, auto const& value) {
      if constexpr (state_memory<std::remove_cvref_t<decltype(value)>>)
        if (name.starts_with("basis.")) basis += value.bytes();
    });
    CHECK(plan.total(memory_kind::basis) == basis);
  }
  CHECK(plan.total(memory_kind::gradients) == matrix<float>{shape}.bytes());
}

template <class Matrix, class Optimizer>
void check_all_shapes(Optimizer const& optimizer) {
  for (extents const shape : {extents{96, 160}, extents{160, 96}, extents{64, 64}, extents{1, 4100}, extents{7, 5}})
    check_against_allocations<Matrix>(optimizer, shape);
}

TEST_CASE("planned is allocated, byte for byte: whole parameters") {
  check_all_shapes<fp32_matrix>(adamw{});
  check_all_shapes<bf16_matrix>(adafactor{});
  check_all_shapes<bf16_matrix>(adamw_8bit{});
  check_all_shapes<int8_matrix>(adamw_4bit{});
}
TEST_CASE("planned is allocated, byte for byte: subspaces") {
  check_all_shapes<fp32_matrix>(galore_adamw{.rank = 24});
  check_all_shapes<fp32_matrix>(galore_adamw{.rank = 24, .accumulate_in = accumulation::projected});
  check_all_shapes<bf16_matrix>(compose<rule::adam_4bit, basis::randomized, format::bf16>{.rank = 64});
  check_all_shapes<int8_matrix>(q_galore_adamw_8bit{.rank = 48});
  check_all_shapes<int8_matrix>(
      compose<rule::adam_8bit, basis::two_sided<basis::randomized>, format::int8>{.rank = 72});
  check_all_shapes<bf16_matrix>(compose<rule::adam, basis::tracked>{.rank = 16});
}

/// Runs steps in exactly the planned scratch; all of it must be used.
template <class Matrix, class Optimizer>
void check_scratch(Optimizer const& optimizer, extents shape, index_t tokens) {
  CAPTURE(shape);
  CAPTURE(tokens);
  std::vector<plan_group> const groups{
      planned<decltype(std::declval<Matrix&>().view())>("all", optimizer, every_parameter)};
  std::vector<planned_parameter> const parameters{{"w", shape}};
  auto const plan = plan_of(parameters, groups, {gradients_alive::one, tokens});
  host_executor exec{{.threads = 1}};
  exec.reserve(plan.total(memory_kind::workspace));
  Matrix weight{shape};
  auto state = optimizer.init(exec, shape, 3);
  auto const x = random_matrix({std::max<index_t>(tokens, 1), shape.cols}, 1),
             y = random_matrix({std::max<index_t>(tokens, 1), shape.rows}, 2), dense = random_matrix(shape, 3);
  for (int k = 0; k < 3; ++k) {
    if (tokens > 0) {
      REQUIRE(optimizer.step(exec, state, weight.view(), outer_product<>{read(y), read(x)}, {}) ==
              step_status::stepped);
    } else {
      REQUIRE(optimizer.step(exec, state, weight.view(), read(dense), {}) == step_status::stepped);
    }
  }
  CHECK(exec.arena().peak() == plan.total(memory_kind::workspace));
}

TEST_CASE("steps run in the planned scratch, and take all of it") {
  q_galore_adamw_8bit const q{.rank = 24, .refresh = {.gap = 1}};
  for (extents const shape : {extents{96, 160}, extents{160, 96}, extents{1024, 64}})
    for (index_t const tokens : {0, 8, 40, 900}) check_scratch<int8_matrix>(q, shape, tokens);
}

/// What a program may open instead of the weight as it is stored: more rows at once.
struct tall_panels : quantized_weight<> {
  [[nodiscard]] index_t row_quantum() const noexcept { return 512; }
};

TEST_CASE("a weight that steps open in another way is stored as ever") {
  std::vector<planned_parameter> const parameters{{"w", {1024, 256}}};
  auto const of = [&](plan_group group) {
    std::vector<plan_group> const groups{std::move(group)};
    return plan_of(parameters, groups);
  };
  q_galore_adamw_8bit const q{.rank = 16};
  auto const usual = of(planned<quantized_weight<>>("all", q, every_parameter)),
             tall = of(planned<quantized_weight<>, tall_panels>("all", q, every_parameter));
  CHECK(tall.resident() == usual.resident());
  CHECK(tall.total(memory_kind::workspace) > usual.total(memory_kind::workspace));
}

TEST_CASE("the scratch of a model is that of its largest step") {
  std::vector<plan_group> const groups{planned<fp32_weight<>>("all", galore_adamw{.rank = 4}, every_parameter)};
  auto const of = [&](std::vector<planned_parameter> const& parameters) {
    return plan_of(parameters, groups).total(memory_kind::workspace);
  };
  index_t const small = of({{"a", {8, 16}}}), large = of({{"b", {80, 160}}});
  CHECK(small < large);
  CHECK(of({{"a", {8, 16}}, {"b", {80, 160}}, {"c", {8, 16}}}) == large);
}

TEST_SUITE_END();

}  // namespace

}  // namespace plan_test
