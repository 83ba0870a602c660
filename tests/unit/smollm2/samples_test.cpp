#include "adapt/samples.hpp"

#include <doctest/doctest.h>

#include <set>

#include "adapt/settings.hpp"

namespace samples_test {

using llama::index_t;

TEST_SUITE("adapt") {
  TEST_CASE("samples are so many pieces of the text, each once a round, by the seed alone") {
    std::vector<std::int32_t> text(1001);
    for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<std::int32_t>(i);
    auto const pieces = [&](std::uint64_t seed, index_t count, index_t batches) {
      adapting::samples some{"play", text, count, 10, seed};
      std::vector<std::int32_t> out;
      for (index_t step = 0; step < batches; ++step) {
        auto const batch = some.batch(step, 2);
        CHECK(batch.inputs.sequences == 2);
        CHECK(batch.inputs.length == 10);
        for (std::size_t s = 0; s < 2; ++s) {
          out.push_back(batch.inputs.tokens[10 * s]);
          CHECK(out.back() % 10 == 0);
          for (std::size_t i = 0; i < 10; ++i) CHECK(batch.targets[10 * s + i] == batch.inputs.tokens[10 * s + i] + 1);
        }
      }
      return out;
    };
    auto const twice = pieces(3, 8, 8);
    std::multiset<std::int32_t> const first(twice.begin(), twice.begin() + 8), second(twice.begin() + 8, twice.end());
    CHECK(first == second);
    CHECK(std::set<std::int32_t>(first.begin(), first.end()).size() == 8);
    CHECK(!std::equal(twice.begin(), twice.begin() + 8, twice.begin() + 8));
    CHECK(pieces(3, 8, 8) == twice);
    CHECK(pieces(4, 8, 8) != twice);
    CHECK_THROWS_WITH_AS(pieces(3, 101, 1), doctest::Contains("play has 100 pieces"), lowrank::argument_error);
  }

  TEST_CASE("every combination is planned once, and no two have one name") {
    adapting::settings s;
    s.make_study();
    s.bases = {"fp32", "nf4"};
    auto const trials = adapting::planned_trials(s);
    CHECK(trials.size() == s.methods.size() * s.ranks.size() * s.seeds.size() * 2);
    std::set<std::string> names;
    for (auto const& t : trials) names.insert(name(t));
    CHECK(names.size() == trials.size());
    CHECK(trials.back().embedding == "int8");  // beside NF4

    adapting::settings loftq;
    loftq.methods = {"lora", "loftq"};
    loftq.bases = {"bf16", "nf4"};
    std::vector<std::string> planned;
    for (auto const& t : adapting::planned_trials(loftq)) planned.push_back(t.method + " " + t.base);
    CHECK(planned == std::vector<std::string>{"lora bf16", "lora nf4", "loftq nf4"});
  }
}

}  // namespace samples_test
