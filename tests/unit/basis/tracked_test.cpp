#include "lowrank/basis/tracked.hpp"

#include <doctest/doctest.h>

#include "lowrank/optim/compose.hpp"
#include "support/compositions.hpp"
#include "support/warm_starts.hpp"

namespace tracked_test {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("tracked");

constexpr extents shape{30, 48};
constexpr index_t rank = 5;
matrix<float> gradient_at(index_t call) {
  return noisy_gradient(with_spectrum(shape, power_law(30, 0.7), 4), 0.02F, call);
}
rng_key key_of(index_t call) { return {0, static_cast<std::uint32_t>(call), 1, rng_purpose::basis}; }

TEST_CASE_TEMPLATE("the mean begins with the first gradient, and goes on by one pass a refresh", Format, format::fp32,
                   format::bf16) {
  for (index_t const fresh : {0, 4}) {
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
    compose<rule::sgd, basis::tracked, Format> o{.rank = rank, .refresh = {1}};
    o.finder.track.fresh = fresh;
    auto state = o.init(exec, shape, 1);
    auto w = random_matrix(shape, 1);
    matrix<float> before, mean{rank, rank};
    std::int64_t exponent = 0;
    for (index_t k = 0; k < 5; ++k) {
      auto const g = gradient_at(k);
      o.step(exec, state, w.view(), read(g), {});
      matrix<float> q{30, rank}, next{rank, rank};
      std::int64_t next_exponent = 0;
      if (k == 0) {
        double energies[rank];
        find_range(exec, read(g), q.view(), o.finder.cold, key_of(0), nullptr, energies);
        for (index_t i = 0; i < rank; ++i)
          CHECK(std::ldexp(state.finder.mean.data()[i * rank + i], static_cast<int>(*state.finder.exponent.data())) ==
                doctest::Approx(energies[i]).epsilon(1e-6));
        CHECK(state.finder.mean.data()[1] == 0);
      } else {
        // With the basis as it is kept: what bf16 lost is lost for the tracker as well.
        tracked_range(exec, read(g), read(before), tracked_mean<>{mean.view(), &exponent}, q.view(),
                      tracked_mean<>{next.view(), &next_exponent}, o.finder.track, key_of(k));
        CHECK(std::equal(next.data(), next.data() + rank * rank, state.finder.mean.data()));
        CHECK(next_exponent == *state.finder.exponent.data());
      }
      before = std::move(bases_of(o, exec, state).at(0));
      if constexpr (std::same_as<Format, format::fp32>) CHECK(same_bits(before, q));
      else CHECK(largest_difference(read(before), read(q)) <= 0x1p-8);
      std::copy_n(state.finder.mean.data(), rank * rank, mean.data());
      exponent = *state.finder.exponent.data();
    }
  }
}

TEST_CASE("scratch holds for every change of rank that a composition may ask for, and the mean goes along") {
  for (extents const g : {extents{48, 48}, extents{40, 90}, extents{90, 40}})
    for (index_t const fresh : {0, 3, 8})
      for (index_t const tokens : {0, 7}) {
        index_t const capacity = 24;
        basis::tracked finder{};
        finder.track.fresh = fresh;
        finder.track.align = alignment::nearest_frame;
        index_t const bytes =
            std::max(finder.workspace_bytes(g, capacity, tokens), finder.resize_bytes(g, capacity, tokens));
        auto const dy = random_matrix({7, g.rows}, 1), x = random_matrix({7, g.cols}, 2), dense = random_matrix(g, 3);
        host_executor exec{{.threads = 1, .scratch_bytes = bytes}};
        auto state = finder.init(exec, g, capacity);
        matrix<float> before;
        index_t call = 0;
        for (index_t const r : {24, 1, 24, 9, 2, 23, 8, 24, 24, 1, 1}) {
          CAPTURE(g);
          CAPTURE(fresh);
          CAPTURE(tokens);
          CAPTURE(r);
          matrix<float> q{g.rows, r};
          std::int32_t failed = 1;
          auto const find = [&](auto gradient) {
            finder_inputs<host_executor, decltype(gradient)> in{gradient, call, side::left, key_of(call)};
            in.previous = read(before);
            finder.find(exec, state, in, q.view(), &failed);
          };
          if (tokens == 0) find(read(dense));
          else find(outer_product<>{read(dy), read(x)});
          CHECK(failed == 0);
          CHECK(departure_from_orthonormal(read(q)) <= orthonormal_units{}.of(r));
          // A constant gradient: the mean is within what there is.
          double trace = 0;
          for (index_t i = 0; i < r; ++i)
            trace +=
                std::ldexp(static_cast<double>(state.mean.data()[i * r + i]), static_cast<int>(*state.exponent.data()));
          CHECK(trace > 0);
          if (tokens == 0) CHECK(trace <= 1.001 * squared_norm_of(read(dense)));
          before = std::move(q);
          ++call;
        }
      }
}

TEST_CASE("a refresh that fails leaves what is remembered alone") {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  for (bool const first : {true, false}) {
    basis::tracked const finder{};
    auto state = finder.init(exec, shape, rank);
    *state.exponent.data() = 3;
    state.mean.data()[4] = 2;
    auto const before = saved(state);
    auto g = gradient_at(0);
    g(3, 4) = std::numeric_limits<float>::quiet_NaN();
    auto const p = orthonormal_basis(30, rank, 3);
    matrix<float> q{30, rank};
    std::int32_t failed = 0;
    finder_inputs<host_executor, const_view_of<host_executor>> in{read(g), 1, side::left, key_of(1)};
    if (!first) in.previous = read(p);
    finder.find(exec, state, in, q.view(), &failed);
    CHECK(failed == 1);
    CHECK(saved(state) == before);
  }
}

TEST_CASE("two-sided: each side its own mean, named apart") {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  compose<rule::sgd, basis::two_sided<basis::tracked>> const o{.rank = rank, .refresh = {1}};
  auto state = o.init(exec, shape, 1);
  auto w = random_matrix(shape, 1);
  for (index_t k = 0; k < 12; ++k) o.step(exec, state, w.view(), read(gradient_at(k)), {});
  auto const left = values_of<float>(state, "finder.left.mean"), right = values_of<float>(state, "finder.right.mean");
  REQUIRE(left.size() == 25);
  REQUIRE(right.size() == 25);
  CHECK(left != right);
  auto const bases = bases_of(o, exec, state);
  auto const g = with_spectrum(shape, power_law(30, 0.7), 4);
  double const best = energy(power_law(30, 0.7), 0, rank);
  CHECK(captured_energy(read(bases[0]), read(g)) >= 0.99 * best);
  CHECK(captured_energy(read(bases[1]), read(g).t()) >= 0.99 * best);
}

TEST_SUITE_END();

}  // namespace

}  // namespace tracked_test
