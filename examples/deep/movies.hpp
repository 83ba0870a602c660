/// @file
/// Ratings of movies: held-out error of deep models and of two well-known recommenders, on the same splits.
#pragma once

#include <nlohmann/json.hpp>

#include "deep/baseline.hpp"
#include "deep/deep_models.hpp"

namespace completion {

struct movie_settings {
  std::string file{"build/data/movielens.csv"};
  int splits{3};
  std::uint64_t first_seed{2};  ///< settings were looked for on the split of seed 1
  double share{0.1};            ///< held out
  double validation{0.05};      ///< of what is left: deep models stop by it, and learn from the rest alone
  ridge offsets{.row = 5, .col = 3};
  /// A rating counts (n_user n_movie)^-balance times: the norm that is kept low then is a weighted one, which users with
  /// hundreds of ratings do not fill alone (Srebro, Salakhutdinov, "Collaborative filtering in a non-uniform world", 2010).
  double balance{0.3};
  recipe how{.deep = {.depth = 3, .scale = 1},
             .compression = {.rank = 40, .outer_rate = 0.01F},
             .rate = 2e-4,
             .decay = 3,
             .steps = 120,
             .patience = 15};
};

/// One method over all splits.
struct movie_row {
  std::string name;
  std::vector<double> rmse{}, seconds{};
  lowrank::index_t parameters{}, bytes{};
};

struct movie_findings {
  extents shape;
  std::size_t ratings{};
  std::vector<movie_row> rows{};
  std::vector<llama::curve> curves{};  ///< of the first split
  std::vector<double> singular_values{};
};

/// s_i t_j: what a rating is divided by, so that equal regularisation of the quotient is balanced regularisation of it.
class balance {
 public:
  balance(extents shape, list const& train, double power)
      : row_(static_cast<std::size_t>(shape.rows)), col_(static_cast<std::size_t>(shape.cols)) {
    for (auto const& o : train) ++row_[static_cast<std::size_t>(o.row)], ++col_[static_cast<std::size_t>(o.col)];
    auto const settle = [&](std::vector<double>& counts) {
      double const mean = static_cast<double>(train.size()) / static_cast<double>(counts.size());
      for (auto& n : counts) n = std::pow((n + 5) / mean, -power / 2);
    };
    settle(row_), settle(col_);
  }
  [[nodiscard]] double at(index_t i, index_t j) const {
    return row_[static_cast<std::size_t>(i)] * col_[static_cast<std::size_t>(j)];
  }

 private:
  std::vector<double> row_, col_;
};

inline movie_findings complete_movies(host_executor& exec, movie_settings const& s) {
  auto const data = read_ratings(s.file);
  movie_findings out{.shape = data.shape, .ratings = data.all.size()};
  auto const note = [&](std::string const& name, double error, double seconds, index_t parameters, index_t bytes) {
    auto found = std::find_if(out.rows.begin(), out.rows.end(), [&](auto const& row) { return row.name == name; });
    if (found == out.rows.end())
      found = out.rows.insert(found, {.name = name, .parameters = parameters, .bytes = bytes});
    found->rmse.push_back(error);
    found->seconds.push_back(seconds);
    std::fprintf(stderr, "  %-34s RMSE %.4f  %.2f s\n", name.c_str(), error, seconds);
  };
  for (int number = 1; number <= s.splits; ++number) {
    auto const seed = s.first_seed + static_cast<std::uint64_t>(number) - 1;
    auto const parts = held_out(data.all, s.share, seed);
    auto const &train = parts.train, &test = parts.test;
    std::fprintf(stderr, "split %d: %zu ratings to learn from, %zu held out\n", number, train.size(), test.size());
    double from = now();
    auto const fixed = fit_offsets(data.shape, train, s.offsets);
    index_t const offset_count = data.shape.rows + data.shape.cols;
    note("offsets alone", rmse(test, [&](auto i, auto j) { return fixed.at(i, j); }), now() - from, offset_count,
         8 * offset_count);
    auto const baseline = [&](char const* name, auto const& method, index_t bytes) {
      double const begin = now();
      double const error = method.run(data.shape, train, test, seed);
      note(name, error, now() - begin, offset_count * (method.factors + 1), bytes);
    };
    sgd_factorization const usual, tuned{.epochs = 60, .decay = 0.08};
    baseline("biased SGD, usual defaults", usual, usual.bytes(data.shape));
    baseline("biased SGD, tuned", tuned, tuned.bytes(data.shape));
    als_factorization const als{.decay = 0.2, .offset_ridge = s.offsets};
    baseline("biased ALS, tuned", als, als.bytes(data.shape));

    balance const scale{data.shape, train, s.balance};
    auto const inner = held_out(train, s.validation, seed + 1000);
    list left;
    for (auto const& o : inner.train) {
      double const by = scale.at(o.row, o.col);
      left.push_back({o.row, o.col, static_cast<float>((static_cast<double>(o.value) - fixed.at(o.row, o.col)) / by),
                      static_cast<float>(by * by)});
    }
    known const target{data.shape, left};
    auto const look = [&](model const& w) {
      looked_at const product{exec, w};
      auto const predict = [&](auto i, auto j) { return fixed.at(i, j) + scale.at(i, j) * product(i, j); };
      return seen{.shown = rmse(test, predict), .judged = rmse(inner.test, predict)};
    };
    for (auto const& one : train_all(exec, target, s.how, seed, look)) {
      note("deep, " + one.name, one.best.shown, one.seconds, one.parameters, one.bytes);
      std::fprintf(stderr, "    after %d steps, %.1f ms each\n", one.steps, 1e3 * one.seconds / one.steps);
      if (number != 1) continue;
      out.curves.push_back(one.curve);
      if (one.name == "compressed") out.singular_values = one.singular_values;
    }
  }
  return out;
}

}  // namespace completion
