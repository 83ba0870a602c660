#include "smollm2/study.hpp"

#include <doctest/doctest.h>

#include "../llama/fixture.hpp"
#include "lowrank/factor/fisher.hpp"
#include "lowrank/factor/truncated_svd.hpp"
#include "lowrank/factor/whitened.hpp"
#include "lowrank/rank/uniform.hpp"
#include "smollm2/fine_tuning.hpp"
#include "support/executors.hpp"

namespace study_test {

using llama::index_t;
using llama_test::tiny;
using lowrank::host_executor;

namespace {

/// A model that has learnt something: weights that predict the text a little, so that factors can make it worse.
struct fixture {
  llama::config c = llama_test::wide(llama::output_head::tied);
  host_executor exec{{.threads = 2, .worker_bytes = index_t{4} << 20}};
  llama::parameters<float> model = llama_test::weights<float>(c, 0.2);
  std::vector<std::int32_t> text;
  smollm2::windows scored;

  fixture() : text(make_text(c)), scored{"text", text, {3, 20, 5, 40}} {}
  static std::vector<std::int32_t> make_text(llama::config const& c) {
    std::vector<std::int32_t> out;
    for (index_t i = 0; i < 2000; ++i) out.push_back(static_cast<std::int32_t>((i * i / 7 + i) % c.vocabulary));
    return out;
  }
  [[nodiscard]] smollm2::calibrated seen(smollm2::label_source labels = smollm2::label_source::text,
                                         index_t together = 1) {
    smollm2::calibrated out{c, smollm2::looking_at::inputs_and_output_gradients};
    out.add(exec, model, smollm2::windows{"text", text, {12, 30, 200, 100}}, labels, together);
    return out;
  }
};

}  // namespace

TEST_SUITE("smollm2") {
  TEST_CASE("windows are where they are asked for, and texts too short for them are refused") {
    std::vector<std::int32_t> text(100);
    for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<std::int32_t>(i);
    smollm2::windows const w{"play", text, {3, 20, 10, 30}};
    CHECK(w.count() == 3);
    CHECK(w.tokens() == 60);
    auto const batch = w.batch(1, 3);
    CHECK(batch.inputs.sequences == 2);
    CHECK(batch.inputs.tokens[0] == 40);
    CHECK(batch.inputs.tokens[20] == 70);
    CHECK(batch.targets[0] == 41);
    CHECK(batch.targets[19] == llama::no_target);
    CHECK_NOTHROW(smollm2::windows("play", text, {3, 20, 20, 30}));
    CHECK_THROWS_WITH_AS(smollm2::windows("play", text, {3, 20, 21, 30}), doctest::Contains("play has 100 tokens"),
                         lowrank::argument_error);
    CHECK_THROWS_AS(smollm2::windows("play", text, {1, 1, 0, 0}), lowrank::argument_error);
  }

  TEST_CASE("statistics are those of the inputs and of the output gradients of the summed loss") {
    fixture f;
    auto const seen = f.seen(), seen_together = f.seen(smollm2::label_source::text, 4);
    CHECK_THROWS_AS((void)f.seen(smollm2::label_source::text, 5), lowrank::argument_error);
    smollm2::windows const text{"text", f.text, {12, 30, 200, 100}};
    llama::activations<double> memory{f.c, 1, 30, llama::pass::training};
    llama::parameters<double> model{f.c};
    std::copy(f.model.flat().begin(), f.model.flat().end(), model.flat().begin());
    llama::gradients<double> gradients{model};
    using llama::role;
    for (auto const what : {role::value, role::attention_output, role::gate, role::down}) {
      auto const shape = llama::linear_shape(f.c, what);
      lowrank::matrix<double> inputs{shape.cols, shape.cols}, outputs{shape.rows, shape.rows};
      for (index_t w = 0; w < text.count(); ++w) {
        auto const batch = text.batch(w, w + 1);
        llama::loss_and_gradients(f.exec, model, batch, memory, gradients);
        auto const add = [](lowrank::matrix<double>& to, llama::view<double> rows, double scale) {
          for (index_t t = 0; t < rows.rows; ++t)
            for (index_t i = 0; i < rows.cols; ++i)
              for (index_t j = 0; j < rows.cols; ++j) to(i, j) += scale * rows(t, i) * rows(t, j) / (12.0 * 30.0);
        };
        add(inputs, memory.input(what, 1), 1);
        add(outputs, memory.output(what, 1), 29.0 * 29.0);  // of the sum over 29 predictions, not of their mean
      }
      for (auto const& known : {seen.of(what, 1), seen_together.of(what, 1)}) {
        CHECK(known.inputs->count() == 360);
        lowrank::matrix<double> got{shape.cols, shape.cols}, got_outputs{shape.rows, shape.rows};
        known.inputs->second_moment(got.view());
        known.output_gradients->second_moment(got_outputs.view());
        CHECK(llama_test::relative_distance(got.view(), inputs.view()) < 1e-5);
        CHECK(llama_test::relative_distance(got_outputs.view(), outputs.view()) < 1e-4);
      }
    }
    CHECK(seen.by_name()("model.layers.0.mlp.up_proj.weight").inputs == seen.of(llama::role::gate, 0).inputs);
    CHECK_THROWS_AS((void)seen.by_name()("model.norm.weight"), lowrank::argument_error);
  }

  TEST_CASE("labels are drawn as often as the model predicts them") {
    host_executor exec{{.threads = 2}};
    lowrank::matrix<float> logits{20000, 3};
    for (index_t t = 0; t < 20000; ++t) logits(t, 1) = std::log(2.0F), logits(t, 2) = std::log(5.0F);
    std::vector<std::int32_t> drawn(20000);
    smollm2::detail::draw_labels(exec, std::as_const(logits).view(), {.seed = 4}, drawn);
    for (int token = 0; token < 3; ++token) {
      double const p = std::array{1.0, 2.0, 5.0}[static_cast<std::size_t>(token)] / 8;
      double const share = static_cast<double>(std::ranges::count(drawn, token)) / 20000;
      CHECK(std::abs(share - p) < 5 * std::sqrt(p * (1 - p) / 20000));
    }
  }

  TEST_CASE("full rank is the model itself in every form, and budgets are kept") {
    fixture f;
    auto const seen = f.seen();
    smollm2::study study{f.exec, f.model, f.scored};
    llama::activations<float> memory{f.c, 1, f.scored.length(), llama::pass::inference};
    double const dense = smollm2::perplexity(f.exec, f.model, f.scored, memory);
    lowrank::factor::fisher const fisher{};
    auto const weighted = smollm2::decompose(f.exec, fisher, study.weights(), &seen);
    lowrank::factor::truncated_svd const svd{};
    auto const plain = smollm2::decompose(f.exec, svd, study.weights(), nullptr);
    auto const spectra = plain.spectra();
    auto const measure = [&](auto const& method, auto const& from, double removal, lowrank::factor_storage storage) {
      lowrank::compression_options options{.budget = {removal, lowrank::budget_unit::parameters}};
      options.ranks.storage = storage;
      return study.measure("", lowrank::ranks::uniform{}, spectra, method, from, &seen, options);
    };
    for (auto const storage : {lowrank::factor_storage::factors, lowrank::factor_storage::pivoted}) {
      auto const all = measure(fisher, weighted, 0, storage);
      CHECK(all.kept == 1);
      CHECK(all.perplexity == doctest::Approx(dense).epsilon(1e-12));
      auto const some = measure(fisher, weighted, 0.4, storage);
      CHECK(some.kept <= 0.6);
      CHECK(some.kept > 0.55);
      CHECK(some.ranks.size() == 14);
    }
    CHECK(measure(svd, plain, 0.3, lowrank::factor_storage::pivoted).perplexity != doctest::Approx(dense));
  }

  TEST_CASE("a compressed model goes to a file and comes back with the same logits") {
    fixture f;
    auto const seen = f.seen(smollm2::label_source::model);
    smollm2::linear_weights const weights{f.model};
    lowrank::factor::whitened const white{.bias = lowrank::output_bias::matched};
    auto const from = smollm2::decompose(f.exec, white, weights, &seen);
    std::vector<index_t> ranks(weights.size(), 10);
    ranks[3] = 64;  // as it was
    auto const folder = std::filesystem::temp_directory_path() / "lowrank-study-test.safetensors";
    for (auto const storage : {lowrank::factor_storage::factors, lowrank::factor_storage::pivoted}) {
      lowrank::compression_options options;
      options.ranks.storage = storage;
      auto const matrices = smollm2::cut(f.exec, white, weights, from, &seen, ranks, options);
      llama::save_compressed(folder, f.model, matrices);
      auto const before = llama::with_matrices(f.model, matrices);
      auto const after = llama::load_compressed(lowrank::safetensors_reader{folder}, f.c);
      CHECK(after.bytes() == before.bytes());
      CHECK(after.bytes() < f.model.bytes());
      llama::activations<float> memory{f.c, 1, f.scored.length(), llama::pass::inference, after.plan()};
      llama::forward(f.exec, before, f.scored.batch(0, 1).inputs, memory);
      std::vector<float> const logits{memory.logits().data, memory.logits().data + memory.logits().size()};
      llama::forward(f.exec, after, f.scored.batch(0, 1).inputs, memory);
      CHECK(std::equal(logits.begin(), logits.end(), memory.logits().data));
      auto other = f.c;
      other.ffn += 8;
      CHECK_THROWS_AS((void)llama::load_compressed(lowrank::safetensors_reader{folder}, other), lowrank::shape_error);
    }
    std::filesystem::remove(folder);
  }

  TEST_CASE("low-rank components learn beside matrices that are frozen in codes") {
    fixture f;
    smollm2::linear_weights const weights{f.model};
    lowrank::factor::truncated_svd const svd{};
    auto const from = smollm2::decompose(f.exec, svd, weights, nullptr);
    std::vector<index_t> ranks;
    for (std::size_t i = 0; i < weights.size(); ++i)
      ranks.push_back(i % 2 == 0 ? 12 : std::min(weights[i].shape.rows, weights[i].shape.cols));
    auto const matrices = smollm2::cut(f.exec, svd, weights, from, nullptr, ranks, {});
    std::vector<lowrank::matrix_plan> plans;
    for (auto const& m : matrices) plans.push_back(m.plan);
    smollm2::tuning_settings settings{.rate = 3e-3, .steps = 12, .batch = 2, .length = 30, .seed = 1};
    auto plain = llama::with_matrices(f.model, matrices);
    auto const expected = smollm2::fine_tune(f.exec, plain, plans, f.text, f.scored, settings);
    for (auto const format : {lowrank::adapt::frozen_format::bf16, lowrank::adapt::frozen_format::int8}) {
      CAPTURE(name(format));
      settings.frozen = format;
      auto model = llama::with_matrices(f.model, matrices);
      auto const before = smollm2::with_frozen_rest(f.exec, model, plans, format);
      auto const result = smollm2::fine_tune(f.exec, model, plans, f.text, f.scored, settings);
      CHECK(result.before == doctest::Approx(expected.before).epsilon(0.05));
      CHECK(result.losses.back() < result.losses.front());
      CHECK(result.trained == expected.trained);
      index_t fewer = 0;
      for (index_t i = 0; i < model.count(); ++i) {
        auto const& p = model[i];
        CAPTURE(p.name);
        bool const learns = p.part == llama::linear_part::left || p.part == llama::linear_part::right || p.is_norm();
        CHECK((p.part == llama::linear_part::frozen) == !learns);
        if (!learns)
          fewer += p.shape.size() * index_t{sizeof(float)} - lowrank::adapt::frozen_matrix::bytes(p.shape, format);
        auto const a = before.weight(i);
        auto const b = std::as_const(model).weight(i);
        if (learns) CHECK(!std::equal(a.data, a.data + a.size(), b.data));
      }
      CHECK(result.weight_bytes == expected.weight_bytes - fewer);
    }
    settings.scope = smollm2::tuning_scope::everything;
    auto model = llama::with_matrices(f.model, matrices);
    CHECK_THROWS_AS((void)smollm2::fine_tune(f.exec, model, plans, f.text, f.scored, settings),
                    lowrank::argument_error);
  }

  TEST_CASE("the memory that low-rank components save goes into a larger batch, as far as it reaches and no further") {
    fixture f;
    smollm2::linear_weights const weights{f.model};
    lowrank::factor::truncated_svd const svd{};
    auto const from = smollm2::decompose(f.exec, svd, weights, nullptr);
    std::vector<index_t> const ranks(weights.size(), 6);
    auto const matrices = smollm2::cut(f.exec, svd, weights, from, nullptr, ranks, {});
    std::vector<lowrank::matrix_plan> plans;
    for (auto const& m : matrices) plans.push_back(m.plan);
    smollm2::tuning_settings settings{.rate = 1e-3, .steps = 12, .batch = 1, .length = 12, .seed = 1};
    auto const train = [&](smollm2::tuning_settings const& how) {
      auto model = llama::with_matrices(f.model, matrices);
      return smollm2::fine_tune(f.exec, model, plans, f.text, f.scored, how);
    };
    auto const plan = llama::with_matrices(f.model, matrices).plan();
    auto const alone = train(settings);
    CHECK(alone.held_bytes() ==
          alone.weight_bytes + alone.gradient_bytes + alone.optimizer_bytes + alone.activation_bytes);
    CHECK(with_largest_batch(f.c, plan, alone, alone.held_bytes()).batch == 1);
    settings.batch = 4;
    auto const four = train(settings);
    CHECK(with_largest_batch(f.c, plan, alone, four.held_bytes() - 1).batch == 3);
    auto const larger = with_largest_batch(f.c, plan, alone, four.held_bytes());
    CHECK(larger.batch == 4);
    CHECK(larger.steps == 3);
    CHECK(larger.rate == doctest::Approx(2e-3));
    CHECK(train(larger).held_bytes() == four.held_bytes());
  }

  TEST_CASE("fine-tuning moves what it shall and nothing else, with every optimizer") {
    fixture f;
    auto const seen = f.seen();
    smollm2::linear_weights const weights{f.model};
    lowrank::factor::whitened const white{};
    auto const from = smollm2::decompose(f.exec, white, weights, &seen);
    std::vector<index_t> ranks;
    for (std::size_t i = 0; i < weights.size(); ++i)
      ranks.push_back(i % 2 == 0 ? 12 : std::min(weights[i].shape.rows, weights[i].shape.cols));
    auto const matrices = smollm2::cut(f.exec, white, weights, from, &seen, ranks, {});
    std::vector<lowrank::matrix_plan> plans;
    for (auto const& m : matrices) plans.push_back(m.plan);
    for (auto const* optimizer : {"adamw", "adamw_8bit", "galore_adamw", "galore_adamw_8bit"})
      for (auto const scope : {smollm2::tuning_scope::low_rank_components, smollm2::tuning_scope::everything}) {
        CAPTURE(optimizer);
        auto const before = llama::with_matrices(f.model, matrices);
        auto model = llama::with_matrices(f.model, matrices);
        auto const result = smollm2::fine_tune(
            f.exec, model, plans, f.text, f.scored,
            {.scope = scope, .optimizer = optimizer, .rate = 3e-3, .steps = 12, .batch = 2, .length = 30, .seed = 1});
        CHECK(result.losses.back() < result.losses.front());
        for (index_t i = 0; i < model.count(); ++i) {
          CAPTURE(model[i].name);
          bool const factor = model[i].part == llama::linear_part::left || model[i].part == llama::linear_part::right;
          bool const trains = scope == smollm2::tuning_scope::everything || factor || model[i].is_norm();
          auto const a = before.weight(i);
          auto const b = std::as_const(model).weight(i);
          CHECK(std::equal(a.data, a.data + a.size(), b.data) == !trains);
        }
        CHECK((result.trained < static_cast<index_t>(model.flat().size())) ==
              (scope == smollm2::tuning_scope::low_rank_components));
      }
    auto model = llama::with_matrices(f.model, matrices);
    CHECK_THROWS_WITH_AS(
        (void)smollm2::fine_tune(f.exec, model, plans, f.text, f.scored, {.optimizer = "sgd", .length = 30}),
        doctest::Contains("got sgd"), lowrank::argument_error);
    CHECK_THROWS_AS(
        (void)smollm2::fine_tune(f.exec, model, plans, std::span{f.text}.first(40), f.scored, {.length = 30}),
        lowrank::argument_error);
  }
}

}  // namespace study_test
