// The plan of the published shapes against arithmetic done by hand, and the sizes of the model's own memory against what
// it takes.
#include <doctest/doctest.h>

#include "fixture.hpp"

#include "../../../examples/llama/layerwise/layer_passes.hpp"
#include "../../../examples/llama/plan.hpp"
#include "support/messages.hpp"

namespace plan_test {

namespace {

using namespace llama;
using lowrank::memory_kind;

constexpr double gib = 1073741824.0;

double in_gib(index_t bytes) { return static_cast<double>(bytes) / gib; }

/// A table with two or three digits after the point, rounded or cut.
bool is_about(index_t bytes, double tabled, double last_digit) {
  return std::abs(in_gib(bytes) - tabled) <= last_digit;
}

TEST_SUITE_BEGIN("llama plan");

TEST_CASE("the published shapes have the published number of parameters") {
  auto const count = [](char const* name) { return parameter_count(shape_named(name).shape); };
  CHECK(count("llama-60m") == 58'073'600);
  CHECK(count("llama-130m") == 134'105'856);
  CHECK(count("llama-350m") == 367'969'280);
  CHECK(count("llama-1b") == 1'339'082'752);
  CHECK(count("llama-7b") == 6'738'415'616);
  CHECK(count("llama-13b") == 13'015'864'320);
  CHECK(count("llama-30b") == 32'528'943'616);
  CHECK(count("llama-70b") == 68'976'648'192);
  for (auto const& one : published_shapes()) {
    auto const& c = one.shape;
    validate(c);
    index_t const layer = 2 * c.width * (c.width + c.kv_width()) + 3 * c.width * c.ffn + 2 * c.width;
    CHECK(parameter_count(c) == 2 * c.vocabulary * c.width + c.layers * layer + c.width);
    CHECK(one.rank <= c.width);
  }
}

TEST_CASE("7B with Q-GaLore, line by line") {
  auto const plan = plan_of({.vocabulary_rows = 0});
  auto const is = [&](memory_kind kind, char const* what, double tabled) {
    CAPTURE(what);
    CHECK(is_about(plan.bytes(kind, what), tabled, 5e-4));
  };
  is(memory_kind::weights, "layers: codes", 6.031);
  is(memory_kind::weights, "layers: scales", 0.094);
  is(memory_kind::weights, "embedding, head: bf16", 0.488);
  is(memory_kind::basis, "layers: basis", 0.451);
  is(memory_kind::state, "layers: moments", 3.063);
  is(memory_kind::state, "embedding, head: moments", 0.496);
  CHECK(is_about(plan.bytes(memory_kind::weights, "norms: fp32") + plan.bytes(memory_kind::state, "norms: moments"),
                 0.003, 5e-4));
  CHECK(is_about(plan.resident(), 10.626, 1e-3));
  // The same by hand, to the byte.
  index_t const matrices = 224, elements = 6'476'005'376, vocabulary = 2 * 131'072'000, norms = 65 * 4096;
  index_t const r_elements = index_t{32} * (4 * 4096 + 3 * 11008) * 1024, p_elements = matrices * 4096 * 1024;
  auto const with_scales = [](index_t codes, index_t elements_of, index_t each) {
    return codes + elements_of / 256 * each;
  };
  CHECK(plan.total(memory_kind::weights) == with_scales(elements, elements, 4) + 2 * vocabulary + 4 * norms);
  CHECK(plan.total(memory_kind::basis) == with_scales(p_elements / 2, p_elements, 4));
  index_t const scalars = 8 + 7 * 4, record = index_t{sizeof(lowrank::step_record)};
  CHECK(plan.total(memory_kind::state) == 2 * with_scales(r_elements, r_elements, 4) +
                                              2 * with_scales(vocabulary, vocabulary, 4) + 8 * norms +
                                              (matrices + 2 + 65) * (scalars + record));
}

TEST_CASE("7B and 1B in other ways") {
  auto const resident = [](char const* model, char const* optimizer, index_t rank) {
    return plan_of(plan_settings{.model = model, .optimizer = optimizer, .rank = rank}).resident();
  };
  CHECK(is_about(resident("llama-1b", "q_galore_adamw_8bit", 512), 2.29, 1e-2));
  CHECK(is_about(resident("llama-1b", "q_galore_adamw_8bit", 1024), 2.95, 1e-2));

  auto const of = [](char const* optimizer, index_t rank = 0, weight_format weights = weight_format::customary) {
    return plan_of(plan_settings{.optimizer = optimizer, .rank = rank, .weights = weights});
  };
  CHECK(is_about(of("adamw_8bit").total(memory_kind::weights), 12.55, 5e-3));
  CHECK(is_about(of("q_galore_adamw_8bit").total(memory_kind::weights), 6.61, 5e-3));
  CHECK(is_about(of("adamw").total(memory_kind::state), 50.2, 5e-2));
  CHECK(is_about(of("adamw_8bit").total(memory_kind::state), 12.75, 5e-3));
  CHECK(is_about(of("galore_adamw").total(memory_kind::basis), 2 * 1.75, 1e-2));
  CHECK(is_about(of("galore_adamw").bytes(memory_kind::state, "layers: moments"), 2 * 6.03, 1e-2));
  CHECK(is_about(of("galore_adamw_8bit").bytes(memory_kind::state, "layers: moments"), 3.06, 5e-3));
  CHECK(is_about(of("q_galore_adamw_8bit", 256).total(memory_kind::basis), 0.11, 5e-3));
  CHECK(is_about(of("q_galore_adamw_8bit", 256).bytes(memory_kind::state, "layers: moments"), 0.77, 5e-3));
  CHECK(is_about(of("galore_adamw", 1).bytes(memory_kind::state, "layers: moments"), 2 * 0.006, 1e-3));
  CHECK(of("adamw", 0, weight_format::int8).total(memory_kind::weights) ==
        of("q_galore_adamw_8bit").total(memory_kind::weights));
  auto all = plan_settings{.optimizer = "adamw", .gradients = gradient_storage::kept};
  CHECK(is_about(plan_of(all).total(memory_kind::gradients), 2 * 12.55, 1e-2));
  all.weights = weight_format::bf16;
  CHECK(is_about(plan_of(all).total(memory_kind::weights), 12.55, 5e-3));
}

TEST_CASE("the formula of the paper, for every shape: small r + 2 large r floats a matrix") {
  for (auto const& one : published_shapes()) {
    CAPTURE(one.name);
    auto const plan = plan_of(plan_settings{.model = std::string{one.name}, .optimizer = "galore_adamw"});
    index_t basis = 0, moments = 0, matrices = 0;
    for (auto const& p : parameter_list(one.shape)) {
      if (p.name.find("_proj.") == std::string::npos) continue;
      index_t const small = std::min(p.shape.rows, p.shape.cols), large = std::max(p.shape.rows, p.shape.cols);
      index_t const r = std::min(one.rank, small);
      basis += 4 * small * r;
      moments += 8 * large * r;
      ++matrices;
    }
    CHECK(plan.total(memory_kind::basis) == basis);
    CHECK(plan.bytes(memory_kind::state, "layers: moments") == moments + matrices * (8 + 7 * 4));
  }
}

TEST_CASE("factored or dense, per layer or all at once, in blocks of rows") {
  auto const gradients = [](plan_settings const& s) { return plan_of(s).total(memory_kind::gradients); };
  plan_settings s{.vocabulary_rows = 0};
  index_t const vocabulary = index_t{4} * 32000 * 4096, norms = 4 * 65 * 4096;
  CHECK(gradients(s) == 2 * vocabulary + norms);  // the head's, which the shared buffer holds, and the embedding's
  s.gradients = gradient_storage::kept;
  CHECK(gradients(s) == 2 * vocabulary + norms);
  s.form = gradient_form::dense;
  CHECK(gradients(s) == index_t{4} * 6'738'415'616);
  s.vocabulary_rows = 1000;
  s.form = gradient_form::factored;
  CHECK(gradients(s) == norms + 4 * 1000 * 4096);
  s.gradients = gradient_storage::one_at_a_time;
  CHECK(gradients(s) == norms + 4 * 1000 * 4096);
  s.form = gradient_form::dense;
  // A block of rows waits for the memory of the largest matrix.
  auto const plan = plan_of(s);
  CHECK(gradients(s) == norms + 4 * 4096 * 11008 + 4 * 1000 * 4096);
  index_t rest = 0;
  for (auto const kind : {memory_kind::activations, memory_kind::workspace}) rest += plan.total(kind);
  CHECK(plan.peak() - plan.resident() - rest == norms + 4 * 4096 * 11008);
  // Whole multiples of a block of codes: only the records and scalars are more.
  auto const a = plan_of({.vocabulary_rows = 0}), b = plan_of({.vocabulary_rows = 1024});
  CHECK(a.total(memory_kind::weights) == b.total(memory_kind::weights));
  CHECK(b.bytes(memory_kind::state, "embedding, head: moments") -
            a.bytes(memory_kind::state, "embedding, head: moments") ==
        (64 - 2) * (8 + 7 * 4));
  CHECK(b.total(memory_kind::workspace) < a.total(memory_kind::workspace));
}

TEST_CASE("activations and gradients say what they take before they take it") {
  for (auto const& c : {llama_test::tiny(), llama_test::tiny(output_head::tied), llama_test::wide()})
    for (index_t const sequences : {1, 3})
      for (index_t const length : {1, 7}) {
        for (auto const purpose : {pass::training, pass::inference})
          CHECK(activations<float>::bytes_for(c, sequences, length, purpose).total() ==
                activations<float>{c, sequences, length, purpose}.bytes());
        CHECK(activations<double>::bytes_for(c, sequences, length, pass::training).total() ==
              activations<double>{c, sequences, length, pass::training}.bytes());
      }
  lowrank::host_executor exec{{.threads = 1}};
  coded_model coded{llama_test::wide()};
  layer_passes<lowrank::host_executor> const passes{exec, coded, 3, 7};
  auto const one = activations_of({.batch = 3, .sequence = 7}, llama_test::wide());
  CHECK(one.total() == passes.activation_bytes() + passes.checkpoint_bytes());

  parameters<float> const model{llama_test::tiny()};
  std::vector<gradient_form> forms(static_cast<std::size_t>(model.count()), gradient_form::dense);
  for (auto const storage : {gradient_storage::kept, gradient_storage::one_at_a_time}) {
    CHECK(gradients<float>::bytes_for(model.list(), forms, storage) == gradients<float>{model, forms, storage}.bytes());
    forms[1] = gradient_form::factored;
    forms[2] = gradient_form::none;
    CHECK(gradients<float>::bytes_for(model.list(), forms, storage) == gradients<float>{model, forms, storage}.bytes());
  }
}

TEST_CASE("what cannot be planned is refused") {
  auto const refused = [](plan_settings const& s) {
    return message_of<lowrank::error>([&] { std::ignore = plan_of(s); });
  };
  CHECK(refused({.model = "llama-8b"}).find("known are llama-60m, llama-130m") != std::string::npos);
  CHECK(refused({.optimizer = "adam_8bit"}).find("known are adamw, adamw_8bit") != std::string::npos);
  CHECK(refused({.batch = 0}).find("got 0, 0, 256 and -1") != std::string::npos);
  CHECK(refused({.rank = -1}).find("needs rank >= 0") != std::string::npos);
  CHECK(refused({.batch = index_t{1} << 40, .sequence = index_t{1} << 30}).find("does not fit 64 bits") !=
        std::string::npos);
  CHECK(refused({.batch = 1, .sequence = (index_t{1} << 31) - 1}).find("does not fit 64 bits") != std::string::npos);
  CHECK(refused({.batch = index_t{1} << 30}).find("64 bits") != std::string::npos);
}

TEST_SUITE_END();

}  // namespace

}  // namespace plan_test
