#include "lowrank/basis/warm_start.hpp"

#include <doctest/doctest.h>

#include "lowrank/optim/compose.hpp"
#include "support/compositions.hpp"
#include "support/warm_starts.hpp"

namespace warm_start_test {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("warm start");

constexpr extents shape{30, 48};
constexpr index_t rank = 5;
matrix<float> gradient_at(index_t call) {
  return noisy_gradient(with_spectrum(shape, power_law(30, 0.7), 4), 0.02F, call);
}
rng_key key_of(index_t call) { return {0, static_cast<std::uint32_t>(call), 1, rng_purpose::basis}; }

TEST_CASE("the first basis, and every `restart_every`-th, from a sketch; the others from the one before") {
  for (index_t const restart_every : {0, 1, 3}) {
    CAPTURE(restart_every);
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
    compose<rule::sgd, basis::warm_start> o{.rank = rank, .refresh = {2}};
    o.finder.restart_every = restart_every;
    auto state = o.init(exec, shape, 1);
    auto w = random_matrix(shape, 1);
    matrix<float> before;
    for (index_t k = 0; k < 14; ++k) {
      auto const g = gradient_at(k);
      o.step(exec, state, w.view(), read(g), {});
      if (k % 2 != 0) continue;
      auto now = std::move(bases_of(o, exec, state).at(0));
      matrix<float> expected{30, rank};
      bool const cold = k == 0 || (restart_every > 0 && k / 2 % restart_every == 0);
      if (cold) find_range(exec, read(g), expected.view(), o.finder.cold, key_of(k));
      else warm_range(exec, read(g), read(before), expected.view(), o.finder.iterate, key_of(k));
      CHECK(same_bits(now, expected));
      before = std::move(now);
    }
  }
}

TEST_CASE("a first basis from one product") {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  compose<rule::sgd, basis::warm_start> o{.rank = rank, .refresh = {1}};
  o.finder.first = basis::cold_search::sketch;
  o.finder.restart_every = 3;
  auto state = o.init(exec, shape, 1);
  auto w = random_matrix(shape, 1);
  for (index_t k = 0; k < 7; ++k) {
    auto const g = gradient_at(k);
    o.step(exec, state, w.view(), read(g), {});
    if (k % 3 != 0) continue;
    matrix<float> expected{30, rank};
    sketch_range(exec, read(g), expected.view(), key_of(k));
    CHECK(same_bits(bases_of(o, exec, state).at(0), expected));
  }
}

TEST_CASE("the moment as a sketch, until it captures too little; then one full refresh") {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  compose<rule::sgd, basis::warm_start> o{.rank = rank, .refresh = {1}};
  o.finder.cheap = basis::moment_sketch::while_it_holds;
  o.finder.hold = 0.9;
  o.finder.iterate.fresh = 0;  // they would find the other subspace at once
  auto state = o.init(exec, shape, 1);
  auto w = random_matrix(shape, 1);
  auto const one = with_spectrum(shape, geometric(5, 3), 4), other = with_spectrum(shape, geometric(5, 3), 40);
  std::string how;
  double full = 0;
  for (index_t k = 0; k < 16; ++k) {
    auto const g = noisy_gradient(k < 8 ? one : other, 0.01F, k);
    matrix<float> before, moment{rank, 48};
    if (k > 0) {
      before = std::move(bases_of(o, exec, state).at(0));
      auto const values = values_of<float>(state, "rule.moment1");
      std::copy(values.begin(), values.end(), moment.data());
    }
    o.step(exec, state, w.view(), read(g), {});
    bool const cheap = state.finder.was_cheap != 0;
    how += cheap ? 'c' : 'f';
    if (k > 0) {
      matrix<float> expected{30, rank};
      if (cheap)
        sketched_range(exec, read(g), read(moment).t(), read(before), expected.view(), o.finder.iterate, key_of(k));
      else warm_range(exec, read(g), read(before), expected.view(), o.finder.iterate, key_of(k));
      CHECK(same_bits(bases_of(o, exec, state).at(0), expected));
    }
    // What decides is the certificate of the call before.
    if (!cheap) full = state.captured;
    else if (state.captured < 0.9 * full) how += '!';
  }
  CAPTURE(how);
  // Call 0 is cold; its certificate is known at call 1. At call 8 the moment is about another subspace.
  CHECK(how.starts_with("fccccccc"));
  CHECK(how.find("c!f") != std::string::npos);
  CHECK(how.back() == 'c');
  for (std::size_t at = 0; at + 1 < how.size(); ++at)
    if (how[at] == '!') CHECK(how[at + 1] == 'f');
}

TEST_CASE("no certificate, no cheap refresh: factored gradients need measure = at_refresh") {
  for (auto const measure : {certificate::never, certificate::at_refresh}) {
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
    compose<rule::sgd, basis::warm_start> o{.rank = rank, .measure = measure, .refresh = {1}};
    o.finder.cheap = basis::moment_sketch::while_it_holds;
    o.finder.hold = 0;
    auto state = o.init(exec, shape, 1);
    auto w = random_matrix(shape, 1);
    auto const dy = random_matrix({20, 30}, 1), x = random_matrix({20, 48}, 2);
    for (index_t k = 0; k < 4; ++k) {
      o.step(exec, state, w.view(), outer_product<>{read(dy), read(x)}, {});
      CHECK((state.finder.was_cheap != 0) == (k > 0 && measure == certificate::at_refresh));
    }
  }
}

TEST_CASE(
    "by way of the Gram where that is cheaper: as good a basis, in the scratch it says, with the frame asked for") {
  extents const square{96, 300};
  index_t const r = 48;
  auto const s = power_law(96, 0.5);
  basis::warm_start direct, routed;
  routed.route = basis::route_choice::cheapest;
  host_executor exec{{.threads = 2}};
  for (auto const* finder : {&direct, &routed}) {
    exec.reserve(finder->workspace_bytes(square, r, 0));
    auto state = finder->init(exec, square, r);
    matrix<float> p{96, r}, q{96, r};
    std::int32_t failed = 0;
    auto const g = with_spectrum(square, s, 3);
    finder_inputs<host_executor, const_view_of<host_executor>> in{read(g), 0, side::left, key_of(0)};
    finder->find(exec, state, in, p.view(), &failed);
    CHECK(failed == 0);
    CHECK(captured_energy(read(p), read(g)) >= 0.99 * energy(s, 0, r));
    in.previous = read(p);
    finder->find(exec, state, in, q.view(), &failed);
    CHECK(failed == 0);
    CHECK(captured_energy(read(q), read(g)) >= 0.995 * energy(s, 0, r));
    CHECK(exec.arena().peak() <= finder->workspace_bytes(square, r, 0));
  }
  CHECK(routed.flops(square, r, 0) < direct.flops(square, r, 0));
}

TEST_CASE("scratch holds for every change of rank that a composition may ask for") {
  for (extents const g : {extents{48, 48}, extents{40, 90}, extents{90, 40}})
    for (index_t const fresh : {0, 3, 8})
      for (index_t const tokens : {0, 7})
        for (auto const cheap : {basis::moment_sketch::never, basis::moment_sketch::while_it_holds}) {
          index_t const capacity = 24;
          basis::warm_start finder;
          finder.cheap = cheap;
          finder.hold = 0;
          finder.iterate.fresh = fresh;
          finder.iterate.align = alignment::nearest_frame;
          finder.iterate.order = column_order::by_energy;
          index_t const bytes =
              std::max(finder.workspace_bytes(g, capacity, tokens), finder.resize_bytes(g, capacity, tokens));
          auto const dy = random_matrix({7, g.rows}, 1), x = random_matrix({7, g.cols}, 2), dense = random_matrix(g, 3);
          for (index_t const k : {1, 8, 23, 24})
            for (index_t const r : {1, 2, 9, 24}) {
              CAPTURE(g);
              CAPTURE(fresh);
              CAPTURE(tokens);
              CAPTURE(k);
              CAPTURE(r);
              host_executor exec{{.threads = 1, .scratch_bytes = bytes}};
              auto state = finder.init(exec, g, capacity);
              state.full_captured = 0;
              auto const p = orthonormal_basis(g.rows, k, 4);
              auto const moment = random_matrix({k, g.cols}, 5);
              matrix<float> q{g.rows, r};
              std::int32_t failed = 1;
              auto const find = [&](auto gradient) {
                finder_inputs<host_executor, decltype(gradient)> in{gradient, 1, side::left, key_of(1)};
                in.previous = read(p);
                in.momentum = read(moment);
                finder.find(exec, state, in, q.view(), &failed);
              };
              if (tokens == 0) find(read(dense));
              else find(outer_product<>{read(dy), read(x)});
              CHECK(failed == 0);
              CHECK(departure_from_orthonormal(read(q)) <= orthonormal_units{}.of(r));
            }
        }
}

TEST_CASE("a refresh that fails leaves what is remembered alone") {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  basis::warm_start finder;
  finder.restart_every = 4;
  auto state = finder.init(exec, shape, rank);
  state.since_cold = 2;
  state.escalate = 1;
  auto const before = saved(state);
  auto g = gradient_at(0);
  g(3, 4) = std::numeric_limits<float>::quiet_NaN();
  auto const p = orthonormal_basis(30, rank, 3);
  matrix<float> q{30, rank};
  std::int32_t failed = 0;
  finder_inputs<host_executor, const_view_of<host_executor>> in{read(g), 1, side::left, key_of(1)};
  in.previous = read(p);
  finder.find(exec, state, in, q.view(), &failed);
  CHECK(failed == 1);
  CHECK(saved(state) == before);
}

TEST_SUITE_END();

}  // namespace

}  // namespace warm_start_test
