/// @file
/// Photographs of which half of the pixels are lost: a set of faces as one matrix (a face a row), and one picture.
#pragma once

#include <algorithm>

#include "deep/deep_models.hpp"
#include "deep/picture.hpp"

namespace completion {

struct photograph_settings {
  double seen{0.5};
  recipe how{};
};

struct photograph_findings {
  extents shape;
  matrix<float> truth;
  std::vector<char> observed;
  std::vector<trained> models;
  std::vector<double> psnr;  ///< of the lost pixels, in dB
  double offset_psnr{};      ///< by means of rows and columns alone
  offsets fixed;
  std::vector<matrix<float>> completed;

  [[nodiscard]] bool was_seen(index_t i, index_t j) const {
    return observed[static_cast<std::size_t>(i * shape.cols + j)] != 0;
  }
};

/// `truth` is completed from a share of its elements.
inline photograph_findings complete_photographs(host_executor& exec, matrix<float> truth,
                                                photograph_settings const& s) {
  photograph_findings out;
  out.shape = truth.shape();
  out.observed.resize(static_cast<std::size_t>(out.shape.size()));
  list train, test;
  for (index_t i = 0; i < out.shape.rows; ++i)
    for (index_t j = 0; j < out.shape.cols; ++j) {
      auto const e = static_cast<std::uint64_t>(i * out.shape.cols + j);
      bool const seen = lowrank::uniform({.seed = 11, .purpose = lowrank::rng_purpose::data}, e) <= s.seen;
      out.observed[static_cast<std::size_t>(e)] = seen ? 1 : 0;
      (seen ? train : test).push_back({i, j, truth(i, j)});
    }
  out.fixed = fit_offsets(out.shape, train, {.row = 1, .col = 1});
  for (auto& o : train) o.value -= static_cast<float>(out.fixed.at(o.row, o.col));
  known const target{out.shape, train};
  auto const decibels = [](double error) { return -20 * std::log10(error); };
  auto const error_of = [&](auto const& product) {
    return decibels(rmse(
        test, [&](auto i, auto j) { return out.fixed.at(i, j) + product(i, j); }, 0, 1));
  };
  out.offset_psnr = error_of([](auto, auto) { return 0.0; });
  out.models = train_all(exec, target, s.how, 1, [&](model const& w) {
    return seen{.shown = error_of(looked_at{exec, w})};
  });
  for (auto const& one : out.models) {
    looked_at const product{exec, one.w};
    out.psnr.push_back(error_of(product));
    matrix<float> whole{out.shape};
    for (index_t i = 0; i < out.shape.rows; ++i)
      for (index_t j = 0; j < out.shape.cols; ++j)
        whole(i, j) = out.was_seen(i, j) ? truth(i, j) : static_cast<float>(out.fixed.at(i, j) + product(i, j));
    out.completed.push_back(std::move(whole));
    std::fprintf(stderr, "  %-24s PSNR of lost pixels %.2f dB  %.2f s\n", one.name.c_str(), out.psnr.back(),
                 one.seconds);
  }
  out.truth = std::move(truth);
  return out;
}

/// Faces in a grid: what there was, what was seen, compressed, full width, one line of each.
inline void draw_faces(photograph_findings const& f, index_t side, std::string const& path) {
  constexpr index_t faces = 12, zoom = 3, gap = 6;
  index_t const step = side * zoom + gap;
  canvas page{4 * step + gap, faces * step + gap};
  for (index_t k = 0; k < faces; ++k) {
    index_t const row = k * (f.shape.rows / faces);
    auto const line = [&](index_t number, auto const& value) {
      page.paste(gap + number * step, gap + k * step, {side, side}, zoom,
                 [&](index_t i, index_t j) { return value(row, i * side + j); });
    };
    line(0, [&](auto i, auto j) { return f.truth(i, j); });
    line(1, [&](auto i, auto j) { return f.was_seen(i, j) ? f.truth(i, j) : 0.0F; });
    line(2, [&](auto i, auto j) { return f.completed[1](i, j); });
    line(3, [&](auto i, auto j) { return f.completed[2](i, j); });
  }
  page.write_png(path);
}
/// One photograph: what there was, what was seen, compressed, full width, side by side.
inline void draw_portrait(photograph_findings const& f, std::string const& path) {
  constexpr index_t gap = 6;
  canvas page{f.shape.rows + 2 * gap, 4 * (f.shape.cols + gap) + gap};
  auto const place = [&](index_t number, auto const& value) {
    page.paste(gap, gap + number * (f.shape.cols + gap), f.shape, 1, value);
  };
  place(0, [&](auto i, auto j) { return f.truth(i, j); });
  place(1, [&](auto i, auto j) { return f.was_seen(i, j) ? f.truth(i, j) : 0.0F; });
  place(2, [&](auto i, auto j) { return f.completed[1](i, j); });
  place(3, [&](auto i, auto j) { return f.completed[2](i, j); });
  page.write_png(path);
}

}  // namespace completion
