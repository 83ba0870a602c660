#include <doctest/doctest.h>

#include "../io/temporary_folder.hpp"
#include "lowrank/compress/compress_file.hpp"
#include "lowrank/compress/lrc_finetune.hpp"
#include "lowrank/compress/welore.hpp"
#include "lowrank/factor/fisher.hpp"
#include "lowrank/linalg/host/eigen_products.hpp"
#include "lowrank/linalg/host/small_factorizations.hpp"
#include "lowrank/rank/uniform.hpp"
#include "support/decompositions.hpp"

namespace compress_test {

using lowrank::component_kind;
using lowrank::cut_but_larger;
using lowrank::index_t;
using lowrank::matrix;
using lowrank::storage_form;

namespace {

/// Random with a decaying spectrum: rank r holds all but about decay^r of it.
matrix<float> decaying(index_t rows, index_t cols, std::uint32_t seed, float decay = 0.8F) {
  matrix<float> out{rows, cols};
  for (index_t k = 0; k < std::min(rows, cols); ++k) {
    float const scale = std::pow(decay, static_cast<float>(k));
    auto const normal = [&](std::uint32_t side, index_t i) {
      return lowrank::gaussian({.seed = seed, .step = side, .tensor = static_cast<std::uint32_t>(k)},
                               static_cast<std::uint64_t>(i));
    };
    for (index_t i = 0; i < rows; ++i)
      for (index_t j = 0; j < cols; ++j) out(i, j) += scale * normal(0, i) * normal(1, j);
  }
  return out;
}

struct model {
  std::vector<matrix<float>> weights;
  std::vector<std::string> names;
  std::vector<float> bias;
  lowrank::host_executor exec{{.threads = 2}};

  model() {
    add("layers.0.q.weight", decaying(24, 24, 1, 0.6F));
    add("layers.0.up.weight", decaying(40, 16, 2, 0.97F));
    add("layers.1.q.weight", decaying(24, 24, 3, 0.75F));
    add("layers.1.down.weight", decaying(16, 40, 4, 0.7F));
    for (index_t i = 0; i < 24; ++i) bias.push_back(static_cast<float>(i) / 7.0F);
  }
  void add(std::string name, matrix<float> w) {
    names.push_back(std::move(name));
    weights.push_back(std::move(w));
  }
  [[nodiscard]] lowrank::matrices_in_memory collection() const {
    std::vector<lowrank::matrices_in_memory::entry> out;
    for (std::size_t i = 0; i < weights.size(); ++i)
      out.push_back({names[i], weights[i].view(), i == 2 ? std::span<float const>{bias} : std::span<float const>{}});
    return lowrank::matrices_in_memory{std::move(out)};
  }
};

/// The matrix that a compressed one stands for.
matrix<float> merged(lowrank::host_executor& exec, lowrank::compressed_matrix const& m) {
  matrix<float> out{m.plan.shape};
  if (auto const* w = std::get_if<lowrank::dense_matrix>(&m.weight))
    std::copy(w->weight.data(), w->weight.data() + out.shape().size(), out.data());
  else if (auto const* pair = std::get_if<lowrank::factor_pair>(&m.weight)) merge(exec, pair->view(), out.view());
  else merge(exec, std::get<lowrank::pivoted_pair>(m.weight).view(), out.view());
  return out;
}
double distance(matrix<float> const& a, matrix<float> const& b) {
  double sum = 0;
  for (index_t i = 0; i < a.shape().size(); ++i) {
    double const d = static_cast<double>(a.data()[i]) - static_cast<double>(b.data()[i]);
    sum += d * d;
  }
  return std::sqrt(sum);
}
lowrank::matrix_view<float const> source_view(model const& m, std::size_t i) { return m.weights[i].view(); }

/// With a tensor that is nobody's matrix, and metadata of another program.
void write_model(model const& m, std::filesystem::path const& path) {
  static std::vector<float> const embedding{1, 2, 3, 4, 5, 6};
  std::vector<lowrank::tensor_source> sources{
      {{"embed.weight", lowrank::dtype::f32, {2, 3}}, std::as_bytes(std::span{embedding})},
      {{"layers.1.q.bias", lowrank::dtype::f32, {24}}, std::as_bytes(std::span{m.bias})}};
  for (std::size_t i = 0; i < m.weights.size(); ++i) {
    auto const shape = m.weights[i].shape();
    sources.push_back({{m.names[i], lowrank::dtype::f32, {shape.rows, shape.cols}},
                       std::as_bytes(std::span{m.weights[i].data(), static_cast<std::size_t>(shape.size())})});
  }
  lowrank::write_safetensors(path, sources, {{"format", "pt"}});
}

}  // namespace

TEST_SUITE("compress") {
  TEST_CASE("WeLore: ranks, forms and kinds follow from the spectra, and each loss is the tail of its own") {
    model m;
    auto const source = m.collection();
    for (auto const purpose : {lowrank::welore_purpose::fine_tuning, lowrank::welore_purpose::compression_only}) {
      auto how = lowrank::welore_for(0.4, purpose);
      how.options.larger = cut_but_larger::merged;
      auto const plan = how.plan(m.exec, source);
      auto const expected = how.allocator.allocate(plan.spectra, how.options.budget);
      CHECK(plan.ranks.ranks == expected.ranks);
      std::size_t i = 0;
      how.run(m.exec, source, plan, [&](lowrank::compressed_matrix const& made) {
        auto const& p = plan.matrices[i];
        CAPTURE(p.name);
        CHECK(made.plan == p);
        CHECK(p.rank == expected.ranks[i]);
        index_t const length = std::min(p.shape.rows, p.shape.cols);
        CHECK((p.kind == component_kind::lrc) ==
              (static_cast<double>(length - p.rank) / static_cast<double>(length) > 0.4999));
        CHECK((p.form == storage_form::factors) ==
              (p.rank < length && p.rank * (p.shape.rows + p.shape.cols) < p.shape.size()));
        double const lost = distance(merged(m.exec, made), m.weights[i]);
        CHECK(lost == doctest::Approx(std::sqrt(plan.spectra[i].tail(p.rank))).epsilon(1e-4));
        if (p.rank == length) CHECK(lost == 0);
        CHECK(made.bias().size() == (i == 2 ? 24 : 0));
        ++i;
      });
      CHECK(i == 4);
      CHECK(plan.parameters() < plan.all_parameters());
    }
  }

  TEST_CASE("a matrix whose factors would be larger stays what it is, unless it is to be merged") {
    model m;
    auto const source = m.collection();
    lowrank::compressor<lowrank::ranks::uniform, lowrank::factor::truncated_svd> how;
    how.options.budget = {0.3, lowrank::budget_unit::rank};  // above break-even of the square ones
    auto plan = how.plan(m.exec, source);
    CHECK(plan.matrices[0].form == storage_form::dense);
    CHECK(plan.matrices[0].rank == 24);
    CHECK(plan.parameters() <= plan.all_parameters());
    auto const kept = how.make(m.exec, source, 0, plan.matrices[0]);
    CHECK(distance(merged(m.exec, kept), m.weights[0]) == 0);
    how.options.larger = cut_but_larger::merged;
    plan = how.plan(m.exec, source);
    CHECK(plan.matrices[0].form == storage_form::dense);
    CHECK(plan.matrices[0].rank == 17);
    CHECK(distance(merged(m.exec, how.make(m.exec, source, 0, plan.matrices[0])), m.weights[0]) > 0);
    how.options.ranks.storage = lowrank::factor_storage::pivoted;  // never larger than dense
    CHECK(how.plan(m.exec, source).matrices[0].form == storage_form::pivoted);
  }

  TEST_CASE("Fisher factors lose least in the metric of inputs and output gradients, and say how much") {
    model m;
    auto const source = m.collection();
    index_t const rows = 40, cols = 16, rank = 5, tokens = 300;
    matrix<float> x{tokens, cols}, g{tokens, rows};
    auto const normal = [](std::uint32_t step, index_t i) {
      return lowrank::gaussian({.seed = 9, .step = step}, static_cast<std::uint64_t>(i));
    };
    for (index_t t = 0; t < tokens; ++t) {
      for (index_t j = 0; j < cols; ++j)
        x(t, j) = normal(0, t * cols + j) * (j == 3 ? 9.0F : 1.0F) + (j == 1 ? 2.0F : 0.0F);
      for (index_t i = 0; i < rows; ++i) g(t, i) = normal(1, t * rows + i) / static_cast<float>(1 + i % 7);
    }
    m.exec.reserve(lowrank::activation_statistics::workspace_bytes(rows));
    lowrank::activation_statistics inputs{cols}, gradients{rows};
    inputs.add(m.exec, x.view());
    gradients.add(m.exec, g.view());
    lowrank::factor::fisher const method{.input_damping = 0, .output_damping = 1e-9};
    auto const basis = method.decompose(m.exec, source_view(m, 1), inputs, gradients);
    auto const loss = [&](lowrank::factor_pair const& pair) {
      // tr(D E C Eᵀ) = sum over pairs of tokens of (gᵀ E x)² / T²
      matrix<float> w{rows, cols};
      merge(m.exec, pair.view(), w.view());
      matrix<double> c{cols, cols}, d{rows, rows};
      inputs.second_moment(c.view());
      gradients.second_moment(d.view());
      double sum = 0;
      for (index_t i = 0; i < rows; ++i)
        for (index_t k = 0; k < rows; ++k) {
          double inner = 0;
          for (index_t j = 0; j < cols; ++j)
            for (index_t l = 0; l < cols; ++l)
              inner += static_cast<double>(m.weights[1](i, j) - w(i, j)) * c(j, l) *
                       static_cast<double>(m.weights[1](k, l) - w(k, l));
          sum += d(i, k) * inner;
        }
      return sum;
    };
    auto const best = lowrank::factors(m.exec, method, basis, source_view(m, 1), inputs, rank);
    CHECK(loss(best) == doctest::Approx(basis.loss(rank)).epsilon(1e-4));
    lowrank::factor::whitened const white{};
    CHECK(loss(lowrank::factorize(m.exec, white, source_view(m, 1), inputs, rank)) > 1.02 * basis.loss(rank));
    // All directions hold all of W.
    auto const all = lowrank::factors(m.exec, method, basis, source_view(m, 1), inputs, cols);
    matrix<float> whole{rows, cols};
    merge(m.exec, all.view(), whole.view());
    CHECK(distance(whole, m.weights[1]) < 1e-4);
    CHECK_THROWS_AS((void)method.decompose(m.exec, source_view(m, 1), inputs, lowrank::activation_statistics{rows}),
                    lowrank::state_error);
    CHECK_THROWS_AS((void)method.decompose(m.exec, source_view(m, 1), gradients, inputs), lowrank::shape_error);
  }

  TEST_CASE(
      "from file to file: everything else passes through, plans are in the header, what is read is what was made") {
    model m;
    temporary_folder const folder;
    auto const input = folder.path() / "model.safetensors", output = folder.path() / "compressed.safetensors";
    write_model(m, input);
    auto const before = content_of(input);
    for (auto const storage : {lowrank::factor_storage::factors, lowrank::factor_storage::pivoted}) {
      auto how = lowrank::welore_for(0.5);
      how.options.ranks.storage = storage;
      lowrank::file_compression const job{input, output,
                                          [](std::string_view name) { return name.starts_with("layers"); }, "test"};
      auto const plan = lowrank::compress_file(m.exec, how, job);
      CHECK(content_of(input) == before);
      CHECK_FALSE(std::filesystem::exists(output.string() + ".parts"));
      lowrank::safetensors_reader const file{output};
      CHECK(file.metadata().at("format") == "pt");
      std::vector<float> embedding(6);
      file.read("embed.weight", std::span{embedding});
      CHECK(embedding == std::vector<float>{1, 2, 3, 4, 5, 6});
      auto const plans = lowrank::compressed_plans(file);
      CHECK(plans.size() == 4);
      index_t cut = 0;
      for (auto const& expected : plan.matrices) {
        CHECK(plans.at(expected.name) == expected);
        auto const read = lowrank::read_compressed(file, expected);
        auto const i = static_cast<index_t>(std::ranges::find(m.names, expected.name) - m.names.begin());
        auto const made = how.make(m.exec, m.collection(), i, expected);
        CHECK(distance(merged(m.exec, read), merged(m.exec, made)) == 0);
        CHECK(read.bias() == made.bias());
        if (expected.is_cut()) ++cut, CHECK(file.find(expected.name) == nullptr);
      }
      CHECK(cut > 0);
    }
  }

  TEST_CASE("a pass that was cut off goes on where it was, and not with pieces of another one") {
    model m;
    temporary_folder const folder;
    auto const input = folder.path() / "model.safetensors", output = folder.path() / "compressed.safetensors";
    write_model(m, input);
    lowrank::file_compression const job{input, output, [](std::string_view name) { return name.starts_with("layers"); },
                                        "test"};
    auto const how = lowrank::welore_for(0.5);
    struct cut_off {};
    index_t stages = 0;
    auto const until = [&](index_t limit) {
      stages = 0;
      return [&stages, limit](lowrank::compression_progress const&) {
        if (stages++ == limit) throw cut_off{};
      };
    };
    CHECK_THROWS_AS(lowrank::compress_file(m.exec, how, job, {}, until(6)), cut_off);
    CHECK_FALSE(std::filesystem::exists(output));
    auto const piece = output.string() + ".parts/matrix-0.safetensors";
    REQUIRE(std::filesystem::exists(piece));
    auto const written = std::filesystem::last_write_time(piece);
    lowrank::compress_file(m.exec, how, job, {}, [&](lowrank::compression_progress const& now) {
      if (now.doing == lowrank::compression_progress::stage::factors && now.number == 1)
        CHECK(std::filesystem::last_write_time(piece) == written);  // was not made again
    });
    auto const resumed = content_of(output);
    std::filesystem::remove(output);
    lowrank::compress_file(m.exec, how, job);
    CHECK(content_of(output) == resumed);
    // Pieces of a pass with another budget are there, and are not taken.
    CHECK_THROWS_AS(lowrank::compress_file(m.exec, lowrank::welore_for(0.2), job, {}, until(7)), cut_off);
    lowrank::compress_file(m.exec, how, job);
    CHECK(content_of(output) == resumed);
  }

  TEST_CASE("pieces of another text or of other settings are not taken") {
    model m;
    temporary_folder const folder;
    auto const input = folder.path() / "model.safetensors", output = folder.path() / "compressed.safetensors";
    write_model(m, input);
    lowrank::file_compression job{input, output, [](std::string_view name) { return name.starts_with("layers"); },
                                  "one text"};
    auto const how = lowrank::welore_for(0.5);
    struct cut_off {};
    index_t stages = 0;
    CHECK_THROWS_AS(lowrank::compress_file(m.exec, how, job, {},
                                           [&](lowrank::compression_progress const&) {
                                             if (stages++ == 7) throw cut_off{};
                                           }),
                    cut_off);
    auto const piece = output.string() + ".parts/matrix-0.safetensors";
    auto const written = std::filesystem::last_write_time(piece);
    job.identity = "another text";
    lowrank::compress_file(m.exec, how, job, {}, [&](lowrank::compression_progress const& now) {
      if (now.doing == lowrank::compression_progress::stage::factors && now.number == 1)
        CHECK(std::filesystem::last_write_time(piece) != written);
    });
  }

  TEST_CASE("what cannot be done is refused, and an older output stays") {
    model m;
    temporary_folder const folder;
    auto const input = folder.path() / "model.safetensors", output = folder.path() / "compressed.safetensors";
    write_model(m, input);
    std::ofstream{output} << "older";
    auto const layers = [](std::string_view name) { return name.starts_with("layers"); };
    auto const how = lowrank::welore_for(0.5);
    auto const refused = [&](auto const& pass, lowrank::file_compression const& job, char const* text) {
      CHECK_THROWS_WITH(lowrank::compress_file(m.exec, pass, job), doctest::Contains(text));
      CHECK(content_of(output) == "older");
    };
    refused(how, {input, input, layers, ""}, "must not write over its input");
    refused(how, {input, output, [](std::string_view) { return false; }, ""}, "is wanted");
    refused(how, {input, output, nullptr, ""}, "needs to be told which");
    refused(lowrank::welore_for(1.5), {input, output, layers, ""}, "removal must be in");
    refused(lowrank::welore_for(0.99), {input, output, layers, ""}, "cannot be met");
    refused(lowrank::welore_for<lowrank::welore_whitened>(0.5), {input, output, layers, ""}, "needs statistics");
    m.weights[3](2, 5) = std::numeric_limits<float>::quiet_NaN();
    write_model(m, input);
    refused(how, {input, output, layers, ""}, "layers.1.down.weight");
  }

  TEST_CASE("headers that no pass writes are refused") {
    CHECK_THROWS_AS((void)lowrank::matrix_plan_from("a", "form=dense, rank=0, rows=2, cols=2"), lowrank::io_error);
    CHECK_THROWS_AS((void)lowrank::matrix_plan_from("a", "form=dense, rank=3, rows=2, cols=2"), lowrank::io_error);
    CHECK_THROWS_AS((void)lowrank::matrix_plan_from("a", "form=round, rank=1, rows=2, cols=2"),
                    lowrank::argument_error);
    CHECK_THROWS_AS((void)lowrank::matrix_plan_from("a", "form=dense, rank=1, rows=2, cols=2, age=3"),
                    lowrank::argument_error);
    CHECK_THROWS_AS((void)lowrank::matrix_plan_from("a", "form=dense, rank=1, rows=99999999999, cols=2"),
                    lowrank::io_error);
    lowrank::matrix_plan const plan{"a.weight", {4, 5}, 2, storage_form::pivoted, component_kind::lrc};
    CHECK(lowrank::matrix_plan_from("a.weight", to_text(plan)) == plan);
    // An order of rows that names one twice.
    temporary_folder const folder;
    auto const path = folder.path() / "p.safetensors";
    std::vector<float> const numbers(10, 1.0F);
    std::vector<std::int32_t> const order{0, 1, 1, 3};
    auto const part = [&](std::size_t count) { return std::as_bytes(std::span{numbers}.first(count)); };
    std::vector<lowrank::tensor_source> const tensors{
        {{"a.pivot_rows.weight", lowrank::dtype::f32, {2, 5}}, part(10)},
        {{"a.coefficients.weight", lowrank::dtype::f32, {2, 2}}, part(4)},
        {{"a.row_order", lowrank::dtype::i32, {4}}, std::as_bytes(std::span{order})}};
    lowrank::write_safetensors(path, tensors);
    CHECK_THROWS_WITH_AS((void)lowrank::read_compressed(lowrank::safetensors_reader{path}, plan),
                         doctest::Contains("every row once, got 1"), lowrank::io_error);
    CHECK_THROWS_WITH_AS((void)lowrank::compressed_plans(lowrank::safetensors_reader{path}),
                         doctest::Contains("is not a compressed model"), lowrank::io_error);
  }

  TEST_CASE("only low-rank components learn, and vectors by choice") {
    std::vector<lowrank::matrix_plan> const plans{{"a.weight", {8, 8}, 3, storage_form::factors, component_kind::lrc},
                                                  {"b.weight", {8, 8}, 8, storage_form::dense, component_kind::n_lrc},
                                                  {"c.weight", {8, 8}, 6, storage_form::pivoted, component_kind::n_lrc},
                                                  {"d.weight", {8, 8}, 2, storage_form::pivoted, component_kind::lrc}};
    lowrank::lrc_mask const with{plans}, without{plans, lowrank::vector_training::frozen};
    for (auto const* mask : {&with, &without}) {
      for (auto const* name : {"a.U.weight", "a.V.weight", "d.pivot_rows.weight", "d.coefficients.weight"})
        CHECK(mask->trains(name, {8, 3}));
      for (auto const* name : {"b.weight", "c.pivot_rows.weight", "embed.weight", "a.weight"})
        CHECK_FALSE(mask->trains(name, {8, 8}));
      CHECK(mask->trains("a.bias", {1, 8}));
      CHECK_FALSE(mask->trains("d.row_order", {1, 8}));
    }
    CHECK(with.trains("norm.weight", {1, 8}));
    CHECK_FALSE(without.trains("norm.weight", {1, 8}));
  }
}

}  // namespace compress_test
