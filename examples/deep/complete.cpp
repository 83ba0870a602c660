// Matrices completed by deep factorizations, full width and compressed: ratings of movies beside two well-known recommenders, and
// photographs of which half is lost.
//
//   complete [--data build/data] [--out build/complete] [--quick]
//
// Prints tables; leaves report.json, faces.png, portrait.png and movies.svg. Exits 1 where the compressed model's
// error on ratings is more than 1.005 of the full one's or of the best recommender's.
#include <CLI/CLI.hpp>
#include <iostream>
#include <numeric>

#include "deep/movies.hpp"
#include "deep/photographs.hpp"

namespace {

using namespace completion;

struct settings {
  std::string data{"build/data"}, out{"build/complete"};
  bool quick{};
  int threads{2};
};

double mean(std::vector<double> const& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}
double spread(std::vector<double> const& values) {
  double sum = 0;
  for (double const v : values) sum += (v - mean(values)) * (v - mean(values));
  return values.size() > 1 ? std::sqrt(sum / static_cast<double>(values.size() - 1)) : 0.0;
}
movie_row const& row_of(movie_findings const& f, std::string const& name) {
  return *std::find_if(f.rows.begin(), f.rows.end(), [&](auto const& row) { return row.name == name; });
}

nlohmann::json report(movie_findings const& f) {
  std::printf("\nMovies: %ld users, %ld movies, %zu ratings; held-out RMSE over %zu splits\n",
              static_cast<long>(f.shape.rows), static_cast<long>(f.shape.cols), f.ratings, f.rows.front().rmse.size());
  std::printf("%-34s %16s %10s %12s %10s\n", "", "RMSE", "seconds", "parameters", "MiB");
  nlohmann::json rows = nlohmann::json::array();
  for (auto const& row : f.rows) {
    std::printf("%-34s %8.4f ±%.4f %10.2f %12ld %10.1f\n", row.name.c_str(), mean(row.rmse), spread(row.rmse),
                mean(row.seconds), static_cast<long>(row.parameters), static_cast<double>(row.bytes) / 1048576);
    rows.push_back({{"name", row.name},
                    {"rmse", mean(row.rmse)},
                    {"spread", spread(row.rmse)},
                    {"all", row.rmse},
                    {"seconds", mean(row.seconds)},
                    {"parameters", row.parameters},
                    {"bytes", row.bytes}});
  }
  auto const &narrow = row_of(f, "deep, compressed"), &full = row_of(f, "deep, full width");
  double best = 9;
  for (auto const& row : f.rows)
    if (row.name.starts_with("biased")) best = std::min(best, mean(row.rmse));
  return {{"rows", rows},
          {"singular_values", f.singular_values},
          {"compressed_over_full", mean(narrow.rmse) / mean(full.rmse)},
          {"compressed_over_best_baseline", mean(narrow.rmse) / best},
          {"time_ratio", mean(full.seconds) / mean(narrow.seconds)},
          {"memory_ratio", static_cast<double>(full.bytes) / static_cast<double>(narrow.bytes)}};
}

nlohmann::json report(char const* name, photograph_findings const& f) {
  std::printf("\n%s: %ld x %ld, PSNR of the pixels that were lost\n", name, static_cast<long>(f.shape.rows),
              static_cast<long>(f.shape.cols));
  std::printf("%-34s %8.2f dB\n", "offsets alone", f.offset_psnr);
  nlohmann::json rows = nlohmann::json::array();
  for (std::size_t k = 0; k < f.models.size(); ++k) {
    auto const& one = f.models[k];
    std::printf("%-34s %8.2f dB %10.2f s %12ld parameters %10.1f MiB\n", one.name.c_str(), f.psnr[k], one.seconds,
                static_cast<long>(one.parameters), static_cast<double>(one.bytes) / 1048576);
    rows.push_back({{"name", one.name},
                    {"psnr", f.psnr[k]},
                    {"seconds", one.seconds},
                    {"parameters", one.parameters},
                    {"bytes", one.bytes},
                    {"singular_values", one.singular_values}});
  }
  return {{"offset_psnr", f.offset_psnr},
          {"rows", rows},
          {"psnr_gain_over_full", f.psnr[1] - f.psnr[2]},
          {"time_ratio", f.models[2].seconds / f.models[1].seconds},
          {"memory_ratio", static_cast<double>(f.models[2].bytes) / static_cast<double>(f.models[1].bytes)}};
}

int run(settings const& s) {
  std::filesystem::create_directories(s.out);
  host_executor exec{{.threads = s.threads}};
  nlohmann::json out;
  // Faces: each is a row, so that what faces have in common is what is learnt.
  auto stacked = read_pgm(s.data + "/lfw_faces.pgm");
  index_t const side = stacked.shape().cols;
  matrix<float> faces{stacked.shape().rows / side, side * side};
  std::copy_n(stacked.data(), faces.shape().size(), faces.data());
  photograph_settings photograph{.how = {.deep = {.depth = 3, .scale = 0.5},
                                         .compression = {.rank = 25, .outer_rate = 0.1F},
                                         .rate = 2e-3,
                                         .decay = 1.3,
                                         .steps = 150}};
  std::fprintf(stderr, "faces\n");
  auto const found_faces = complete_photographs(exec, std::move(faces), photograph);
  draw_faces(found_faces, side, s.out + "/faces.png");
  out["faces"] = report("Faces", found_faces);
  if (!s.quick) {
    std::fprintf(stderr, "portrait\n");
    photograph.how.compression.rank = 100;
    photograph.how.deep.scale = 1;
    photograph.how.rate = 1e-3;
    photograph.how.decay = 2;
    auto const portrait = complete_photographs(exec, read_pgm(s.data + "/portrait.pgm"), photograph);
    draw_portrait(portrait, s.out + "/portrait.png");
    out["portrait"] = report("Portrait", portrait);
  }
  auto const movies = complete_movies(exec, {.file = s.data + "/movielens.csv", .splits = s.quick ? 1 : 3});
  out["movies"] = report(movies);
  auto curves = movies.curves;
  double last = 0;
  for (auto const& one : curves) last = std::max(last, one.points.back().first);
  for (auto const& row : movies.rows)
    if (row.name.starts_with("biased"))
      curves.push_back({row.name, {{0.0, row.rmse.front()}, {last, row.rmse.front()}}});
  std::ignore =
      llama::plot(llama::draw({"step", "held-out RMSE, first split", llama::key_on_top(curves.size()) + "\n"}, curves),
                  s.out, "movies");
  std::ofstream{s.out + "/report.json"} << out.dump(1) << '\n';
  std::printf("\nreport and pictures: %s\n", s.out.c_str());
  double const over_full = out["movies"]["compressed_over_full"],
               over_best = out["movies"]["compressed_over_best_baseline"];
  if (over_full <= 1.005 && over_best <= 1.005) return 0;
  std::fprintf(stderr, "the compressed model is worse: %.4f of the full one's error, %.4f of the best recommender's\n",
               over_full, over_best);
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  settings s;
  CLI::App app{"Matrices completed by deep factorizations, full width and compressed."};
  app.add_option("--data", s.data, "folder of movielens.csv, lfw_faces.pgm and portrait.pgm");
  app.add_option("--out", s.out, "folder of the report and the pictures");
  app.add_option("--threads", s.threads)->check(CLI::PositiveNumber);
  app.add_flag("--quick", s.quick, "one split, faces only");
  CLI11_PARSE(app, argc, argv);
  try {
    return run(s);
  } catch (std::exception const& problem) {
    std::cerr << problem.what() << '\n';
    return 1;
  }
}
