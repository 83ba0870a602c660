// What a new basis costs: every way to one on one gradient, in turns within one process, with the energy it captures
// beside its time and the rate of products on the same machine in the same minutes.
//
//   ./run bench basis/refresh_speed [--shape 2048x2048x512] [--threads 2] [--rounds 5] [--json FILE] [--write FILE]
#include <CLI/CLI.hpp>
#include <fstream>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "basis/drifting_gradient.hpp"
#include "lowrank/linalg/gram_range.hpp"
#include "lowrank/linalg/tracked_range.hpp"
#include "lowrank/linalg/warm_range.hpp"
#include "support/turns.hpp"

namespace lowrank::bench {

/// Thin SVD by Eigen's divide and conquer, in a source file of its own.
void eigen_svd(matrix_view<float const> g, matrix<float>& u);

namespace {

struct settings {
  std::string shape{"2048x2048x512"}, json, write;
  int threads{2}, rounds{5};
  bool exact{true}, slow{false};
};

/// One way to a basis. `repeats` false: measured once, because it takes many seconds.
struct method {
  std::string id;
  std::function<void(matrix_view<float>)> find;
  enum class turns : std::uint8_t { every, once } taken{turns::every};
  index_t again{0};  ///< columns that are multiplied twice as often
  std::vector<double> milliseconds{};
};

struct problem {
  engine& exec;
  drifting_gradient const& it;
  index_t r;
  range_report report{};

  [[nodiscard]] matrix_view<float const> g() const { return it.g.view(); }
  [[nodiscard]] extents shape() const { return it.g.shape(); }
};

constexpr orthonormal::cholesky in_fp64{{}};

method warm(problem& p, std::string id, warm_options const& options, orthonormal::cholesky const& make = {}) {
  p.exec.reserve(warm_range_bytes(p.shape(), p.r, p.r, options));
  return {std::move(id),
          [&p, options, make](matrix_view<float> q) {
            warm_range(p.exec, p.g(), p.it.old.view(), q, options, {2}, &p.report, nullptr, make);
          },
          method::turns::every, options.again};
}
method cold(problem& p, index_t steps, search_space space = search_space::last_block) {
  range_options const options{.power_iterations = steps, .space = space};
  p.exec.reserve(find_range_bytes(p.shape(), p.r, options));
  return {(space == search_space::every_block ? "krylov" : "cold") + std::to_string(steps),
          [&p, options](matrix_view<float> q) { find_range(p.exec, p.g(), q, options, {2}, &p.report); }};
}

std::vector<method> methods(problem& p, settings const& s, matrix<float>& mean, std::int64_t& exponent) {
  constexpr auto plain = between_products::nothing, shift = between_products::shift;
  std::vector<method> all{
      warm(p, "warm1", {.between = shift}),
      warm(p, "warm1again", {.between = shift, .again = p.r / 21}),
      warm(p, "warm1again7", {.between = shift, .again = p.r / 7}),
      warm(p, "warm1plain", {.between = plain}),
      warm(p, "warm1wide", {.between = shift}, in_fp64),
      warm(p, "warm1even", {}),
      warm(p, "warm1p8", {.fresh = 8}),
      warm(p, "warm2p8", {.fresh = 8, .passes = 2}),
      cold(p, 1),
      cold(p, 2),
      cold(p, 1, search_space::every_block),
  };
  p.exec.reserve(sketched_range_bytes(p.shape(), p.r, p.r, p.r));
  all.push_back({"right", [&p](matrix_view<float> q) {
                   sketched_range(p.exec, p.g(), p.it.old_right.view(), p.it.old.view(), q, {}, {2}, &p.report);
                 }});
  p.exec.reserve(tracked_range_bytes(p.shape(), p.r, p.r));
  all.push_back({"tracked", [&p, &mean, &exponent](matrix_view<float> q) {
                   static matrix<float> next;
                   static std::int64_t next_exponent = 0;
                   if (next.shape() != mean.shape()) next = matrix<float>{mean.shape()};
                   tracked_range(p.exec, p.g(), p.it.old.view(), {mean.view(), &exponent}, q,
                                 {next.view(), &next_exponent}, {}, {2}, &p.report);
                 }});
  gram_range_options const subspace{.solver = gram_solver::subspace, .iterations = 2};
  p.exec.reserve(gram_range_bytes(p.shape(), p.r, subspace));
  all.push_back({"gram2", [&p, subspace](matrix_view<float> q) {
                   find_range_by_gram(p.exec, p.g(), p.it.old.view(), q, subspace, {2}, &p.report);
                 }});
  if (s.exact)
    all.push_back({"gesdd",
                   [&p](matrix_view<float> q) {
                     auto const exact = decompose(p.exec, p.g());
                     copy(p.exec, exact.u.view().col_range(0, q.cols), q);
                   },
                   p.shape().size() > 1 << 21 ? method::turns::once : method::turns::every});
  if (s.exact && s.slow)
    all.push_back({"bdcsvd",
                   [&p](matrix_view<float> q) {
                     matrix<float> u{p.shape().rows, std::min(p.shape().rows, p.shape().cols)};
                     eigen_svd(p.g(), u);
                     copy(p.exec, u.view().col_range(0, q.cols), q);
                   },
                   p.shape().size() > 1 << 21 ? method::turns::once : method::turns::every});
  return all;
}

[[nodiscard]] nlohmann::json measure(settings const& s, extents shape, index_t r) {
  engine exec{{.threads = s.threads}};
  drifting_gradient const it{exec, shape, r};
  if (!s.write.empty()) it.write(s.write);
  problem p{exec, it, r};
  matrix<float> q{shape.rows, r}, mean{r, r};
  matrix<float> const a = gaussian_matrix(exec, {2048, 2048}, 5), b = gaussian_matrix(exec, {2048, 2048}, 6);
  matrix<float> c{2048, 2048}, z{shape.cols, r};
  multiply(exec, 1.0F, it.old_right.view().t(), it.old_right.view(), 0.0F, mean.view());
  std::int64_t exponent = 0;
  auto all = methods(p, s, mean, exponent);
  method square{"square", {}}, pair{"pair", {}};
  for (int round = -1; round < s.rounds; ++round) {  // the first touches the memory
    for (int turn = 0; turn < 3; ++turn) {           // short beside all the rest, and everything is a share of it
      square.milliseconds.push_back(1e3 *
                                    seconds([&] { multiply(exec, 1.0F, a.view(), b.view(), 0.0F, c.view()); }, 1));
      pair.milliseconds.push_back(1e3 * seconds(
                                            [&] {
                                              multiply(exec, 1.0F, it.g.view().t(), it.old.view(), 0.0F, z.view());
                                              multiply(exec, 1.0F, it.g.view(), z.view(), 0.0F, q.view());
                                            },
                                            1));
    }
    for (auto& m : all)
      if (round < 0 ? m.taken == method::turns::every : m.taken == method::turns::every || round == 0)
        m.milliseconds.push_back(1e3 * seconds([&] { m.find(q.view()); }, 1));
    if (round < 0)
      for (auto* m : {&square, &pair}) m->milliseconds.clear();
    if (round < 0)
      for (auto& m : all) m.milliseconds.clear();
  }
  double const square_rate = 2.0 * 2048 * 2048 * 2048 / lower_quartile(square.milliseconds);
  double const work = 4.0 * static_cast<double>(shape.size() * r);
  nlohmann::json out{{"shape", s.shape}, {"threads", s.threads}, {"square_gflops", square_rate / 1e6}};
  out["methods"]["pair"] = {{"ms", lower_quartile(pair.milliseconds)},
                            {"of_square_rate", work / lower_quartile(pair.milliseconds) / square_rate}};
  out["methods"]["stale"] = {{"captured", it.captured(exec, it.old.view())}};
  for (auto& m : all) {
    m.find(q.view());
    double const ms = lower_quartile(m.milliseconds);
    out["methods"][m.id] = {
        {"ms", ms},
        {"samples", m.milliseconds.size()},
        {"captured", it.captured(exec, q.view())},
        {"departure", drifting_gradient::departure(exec, q.view())},
        {"of_square_rate", work / ms / square_rate * static_cast<double>(r + m.again) / static_cast<double>(r)},
        {"failed", p.report.failed}};
  }
  return out;
}

void print(nlohmann::json const& result) {
  std::printf("%s, %d threads, square product %.0f GFLOP/s\n", result["shape"].get<std::string>().c_str(),
              result["threads"].get<int>(), result["square_gflops"].get<double>());
  std::printf("%-12s %12s %10s %12s %14s\n", "", "ms", "captured", "sqrt(r) eps", "of square rate");
  for (auto const& [id, m] : result["methods"].items())
    std::printf("%-12s %12.2f %10.5f %12.2f %14.2f\n", id.c_str(), m.value("ms", 0.0), m.value("captured", 0.0),
                m.value("departure", 0.0), m.value("of_square_rate", 0.0));
}

}  // namespace
}  // namespace lowrank::bench

int main(int argc, char** argv) {
  lowrank::bench::settings s;
  CLI::App app{"What a new basis costs"};
  app.add_option("--shape", s.shape, "ROWSxCOLUMNSxRANK, rows the short side")->capture_default_str();
  app.add_option("--threads", s.threads)->capture_default_str();
  app.add_option("--rounds", s.rounds)->check(CLI::PositiveNumber)->capture_default_str();
  app.add_flag("!--no-exact", s.exact, "leave the exact SVD out");
  app.add_flag("--slow", s.slow, "Eigen's exact SVD as well");
  app.add_option("--json", s.json, "write the numbers");
  app.add_option("--write", s.write, "write the gradient, row-major fp32");
  CLI11_PARSE(app, argc, argv);
  try {
    lowrank::extents shape{};
    lowrank::index_t r = 0;
    char x = 0, y = 0;
    std::istringstream text{s.shape};
    text >> shape.rows >> x >> shape.cols >> y >> r;
    lowrank::require(!text.fail() && x == 'x' && y == 'x' && shape.rows <= shape.cols && r >= 1 && r <= shape.rows,
                     "refresh_speed", "--shape needs ROWSxCOLUMNSxRANK with rank <= rows <= columns, got ", s.shape);
    auto const result = lowrank::bench::measure(s, shape, r);
    lowrank::bench::print(result);
    if (!s.json.empty()) std::ofstream{s.json} << result.dump(1) << "\n";
    return 0;
  } catch (std::exception const& e) {
    std::cerr << e.what() << "\n";
    return 1;
  }
}
