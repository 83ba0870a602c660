/// @file
/// Ratings from a file, split for held-out tests, and what rows and columns alone explain of them.
#pragma once

#include <charconv>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "lowrank/core/rng.hpp"
#include "lowrank/deep/observations.hpp"

namespace completion {

using lowrank::extents;
using lowrank::index_t;
using list = std::vector<lowrank::deep::observation<float>>;

/// Users are rows, movies columns, numbered in the order in which the file names them.
struct ratings {
  extents shape;
  list all;
};

/// "user,movie,rating" lines after a header.
inline ratings read_ratings(std::string const& path) {
  std::ifstream file{path};
  lowrank::require<lowrank::io_error>(file.good(), "read_ratings", "cannot read '", path, "'");
  ratings out;
  std::map<long, index_t> users, movies;
  auto const number_of = [](std::map<long, index_t>& known, long id) {
    return known.emplace(id, static_cast<index_t>(known.size())).first->second;
  };
  std::string line;
  std::getline(file, line);
  for (index_t at = 2; std::getline(file, line); ++at) {
    long user = 0, movie = 0;
    float rating = 0;
    char const *from = line.data(), *const end = line.data() + line.size();
    bool good = true;
    auto const field = [&](auto& to) {
      auto const [stop, problem] = std::from_chars(from, end, to);
      good = good && problem == std::errc{};
      from = stop < end ? stop + 1 : end;
    };
    field(user), field(movie), field(rating);
    lowrank::require<lowrank::io_error>(good, "read_ratings", "line ", at, " of '", path, "' is not user,movie,rating");
    out.all.push_back({number_of(users, user), number_of(movies, movie), rating});
  }
  out.shape = {static_cast<index_t>(users.size()), static_cast<index_t>(movies.size())};
  return out;
}

/// Every observation is held out with probability `share`, by a random number of its own.
struct split {
  list train, test;
};
inline split held_out(list const& all, double share, std::uint64_t seed) {
  split out;
  for (std::size_t k = 0; k < all.size(); ++k) {
    bool const away = lowrank::uniform({.seed = seed, .purpose = lowrank::rng_purpose::data}, k) <= share;
    (away ? out.test : out.train).push_back(all[k]);
  }
  return out;
}

/// mean + p_i + q_j by ridge regression, alternating: a row of n ratings counts n / (n + ridge).
struct offsets {
  double mean{};
  std::vector<double> row, col;

  [[nodiscard]] double at(index_t i, index_t j) const {
    return mean + row[static_cast<std::size_t>(i)] + col[static_cast<std::size_t>(j)];
  }
};
struct ridge {
  double row{10}, col{3};
};
inline offsets fit_offsets(extents shape, list const& train, ridge const& r, int sweeps = 20) {
  offsets out;
  out.row.resize(static_cast<std::size_t>(shape.rows));
  out.col.resize(static_cast<std::size_t>(shape.cols));
  for (auto const& o : train) out.mean += static_cast<double>(o.value) / static_cast<double>(train.size());
  auto const fit = [&](std::vector<double>& own, double weight, auto const& place) {
    std::vector<double> sum(own.size()), count(own.size());
    for (auto const& o : train) {
      auto const at = static_cast<std::size_t>(place(o));
      sum[at] += static_cast<double>(o.value) - out.at(o.row, o.col) + own[at];
      count[at] += 1;
    }
    for (std::size_t k = 0; k < own.size(); ++k) own[k] = sum[k] / (count[k] + weight);
  };
  for (int sweep = 0; sweep < sweeps; ++sweep) {
    fit(out.col, r.col, [](auto const& o) { return o.col; });
    fit(out.row, r.row, [](auto const& o) { return o.row; });
  }
  return out;
}

/// Root mean square error of `predict(i, j)`, kept inside of the scale.
template <class Predict>
double rmse(list const& test, Predict const& predict, double lowest = 0.5, double highest = 5) {
  double sum = 0;
  for (auto const& o : test) {
    double const error = std::clamp(predict(o.row, o.col), lowest, highest) - static_cast<double>(o.value);
    sum += error * error;
  }
  return std::sqrt(sum / static_cast<double>(test.size()));
}

}  // namespace completion
