#include "lowrank/spectrum/model_spectra.hpp"

#include <doctest/doctest.h>

#include <tuple>

#include "support/executors.hpp"
#include "support/matrices.hpp"
#include "support/optimizers.hpp"

namespace model_spectra_test {

using namespace lowrank;
using namespace lowrank_test;

namespace {

/// Matrices of which one is in memory at a time: what the last load gave away is overwritten.
class one_at_a_time {
 public:
  void add(std::string name, matrix<float> w) {
    stored_.push_back(std::move(w));
    sources_.push_back({std::move(name), [this, i = stored_.size() - 1]() -> matrix_view<float const> {
                          ++loads;
                          for (index_t e = 0; e < now_.shape().size(); ++e) now_.data()[e] = 1e30F;
                          now_ = copy_of(stored_[i].view());
                          return std::as_const(now_).view();
                        }});
  }
  [[nodiscard]] std::span<matrix_source const> sources() const { return sources_; }
  [[nodiscard]] matrix_view<float const> stored(std::size_t i) const { return stored_[i].view(); }

  int loads{};

 private:
  std::vector<matrix<float>> stored_;
  std::vector<matrix_source> sources_;
  matrix<float> now_;
};

void fill(one_at_a_time& model) {
  model.add("a", random_matrix({40, 30}, 1));
  model.add("deficient", with_spectrum({30, 30}, power_law(5, 1.0), 2));
  model.add("wide", random_matrix({20, 50}, 3));
  model.add("empty", matrix<float>{0, 4});
  model.add("b", random_matrix({33, 33}, 4));
}

}  // namespace

TEST_SUITE("spectra of a model") {
  TEST_CASE_TEMPLATE("those of its matrices, bit by bit, whatever is kept together", E, LOWRANK_TEST_EXECUTORS) {
    E exec{{.threads = 2}};
    for (index_t const bytes : {index_t{0}, index_t{9000}, index_t{1} << 20}) {
      one_at_a_time model;
      fill(model);
      std::vector<index_t> seen;
      std::vector<std::string> names;
      auto const found =
          model_spectra(exec, model.sources(), {.gram_bytes = bytes, .progress = [&](spectra_progress const& p) {
                                                  seen.push_back(p.done);
                                                  CHECK(p.total == 5);
                                                  names.emplace_back(p.name);
                                                }});
      REQUIRE(found.size() == 5);
      CHECK(model.loads == 6);  // the deficient one twice
      CHECK(seen == std::vector<index_t>{1, 2, 3, 4, 5});
      std::ranges::sort(names);
      CHECK(names == std::vector<std::string>{"a", "b", "deficient", "empty", "wide"});
      for (std::size_t i = 0; i < found.size(); ++i) {
        auto const alone = singular_values(exec, model.stored(i));
        CHECK(found[i].shape == alone.shape);
        CHECK(found[i].values == alone.values);
      }
    }
  }
  TEST_CASE("the other routes; what sources and progress throw ends the pass") {
    host_executor exec{{.threads = 1}};
    one_at_a_time model;
    fill(model);
    auto const leading =
        model_spectra(exec, model.sources(), {.spectrum = {.route = spectrum_route::randomized, .leading = 3}});
    CHECK(leading[0].held() == 3);
    CHECK(model_spectra(exec, model.sources(), {.spectrum = {.route = spectrum_route::gram}})[1].complete());
    CHECK(model_spectra(exec, {}).empty());
    CHECK_THROWS_AS(std::ignore = model_spectra(exec, model.sources(),
                                                {.progress = [](auto const&) { throw state_error{"stop"}; }}),
                    state_error);
    std::vector<matrix_source> const broken{{"nothing", {}}};
    CHECK(refusal<argument_error>([&] { std::ignore = model_spectra(exec, broken); }) ==
          "lowrank::model_spectra: nothing has nothing to load it with");
    CHECK_THROWS_AS(std::ignore = model_spectra(exec, model.sources(), {.gram_bytes = -1}), argument_error);
  }
}

TEST_SUITE("nonfinite") {
  TEST_CASE("a model with NaN in one matrix names that matrix") {
    host_executor exec{{.threads = 2}};
    one_at_a_time model;
    fill(model);
    auto bad = random_matrix({10, 10}, 5);
    bad.data()[3] = std::bit_cast<float>(0x7FC00000U);
    model.add("blk.7.ffn_up", std::move(bad));
    CHECK(refusal<argument_error>([&] { std::ignore = model_spectra(exec, model.sources()); }) ==
          "lowrank::singular_values: blk.7.ffn_up: input not finite");
  }
}

}  // namespace model_spectra_test
