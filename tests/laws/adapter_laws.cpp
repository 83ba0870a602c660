// One suite that every adapter joins: an entry with its settings, how it is made, and what it changes at first.
#include <doctest/doctest.h>

#include "lowrank/adapt/deep_lora.hpp"
#include "lowrank/adapt/lora.hpp"
#include "lowrank/adapt/lora_xs.hpp"
#include "lowrank/adapt/mora.hpp"
#include "lowrank/adapt/nola.hpp"
#include "lowrank/adapt/olora.hpp"
#include "lowrank/adapt/pc_lora.hpp"
#include "support/allocation_counter.hpp"
#include "support/executors.hpp"
#include "support/matrices.hpp"

namespace adapter_laws {

using namespace lowrank;
using namespace lowrank_test;

namespace {

constexpr rng_key key{.seed = 5, .step = 0, .tensor = 3, .purpose = rng_purpose::initialisation};

template <class T>
matrix<T> random_of(extents shape, std::uint64_t seed, double size = 1) {
  matrix<T> out{shape};
  for (index_t e = 0; e < shape.size(); ++e)
    out.data()[e] = static_cast<T>(size * static_cast<double>(gaussian({.seed = seed}, static_cast<std::uint64_t>(e))));
  return out;
}
template <class T>
double size_of(matrix_view<T> a) {
  return std::sqrt(squared_norm_of(a));
}

/// Counts what products take.
struct counting_executor : host_executor {
  using host_executor::host_executor;
  index_t flops{};
};
template <class T>
void counted_multiply(counting_executor& exec, T alpha, matrix_view<T const> a, matrix_view<T const> b, T beta,
                      matrix_view<T> c) {
  exec.flops += 2 * a.rows * a.cols * b.cols;
  multiply(static_cast<host_executor&>(exec), alpha, a, b, beta, c);
}
void multiply(counting_executor& exec, float alpha, matrix_view<float const> a, matrix_view<float const> b, float beta,
              matrix_view<float> c) {
  counted_multiply(exec, alpha, a, b, beta, c);
}

/// Of T tokens.
struct passes {
  index_t forward{}, backward{};
};
[[nodiscard]] passes of_pair(index_t rank, extents shape, index_t tokens) {
  index_t const once = 2 * tokens * rank * (shape.rows + shape.cols);
  return {once, 2 * once};
}

/// Between what ‖ΔW‖ lies at first; {0, 0}: the output is that of the base, bit for bit.
struct change {
  double least{}, most{};
};

/// Made as most are.
template <class Settings>
struct plain_entry {
  template <class T, class E>
  static auto make(E& exec, Settings const& settings, matrix_view<T> w) {
    return adapt::make_adapter<T>(exec, settings, w, key);
  }
  static change start(Settings const&) { return {}; }
  /// Numbers that are held besides the trained ones.
  static index_t frozen(Settings const&, extents) { return 0; }
};

struct lora_entry : plain_entry<adapt::lora> {
  static std::vector<adapt::lora> all() {
    return {{.rank = 4, .alpha = 12}, {.rank = 3, .scale = adapt::scaling::rank_root, .rate_ratio = 16}};
  }
  static passes flops(adapt::lora const& s, extents shape, index_t tokens) { return of_pair(s.rank, shape, tokens); }
};

struct olora_entry : plain_entry<adapt::olora> {
  static std::vector<adapt::olora> all() {
    return {{.rank = 4, .alpha = 2}, {.rank = 3, .start = adapt::start_factors::dropped}};
  }
  static passes flops(adapt::olora const& s, extents shape, index_t tokens) { return of_pair(s.rank, shape, tokens); }
  /// What A and B were at first.
  static index_t frozen(adapt::olora const& s, extents shape) {
    return s.start == adapt::start_factors::kept ? s.rank * (shape.rows + shape.cols) : 0;
  }
};

struct lora_xs_entry : plain_entry<adapt::lora_xs> {
  static std::vector<adapt::lora_xs> all() { return {{.rank = 4}, {.rank = 3, .alpha = 8}}; }
  static passes flops(adapt::lora_xs const& s, extents shape, index_t tokens) {
    index_t const once = 2 * tokens * s.rank, sides = shape.rows + shape.cols;
    return {once * (sides + s.rank), once * (sides + 2 * s.rank)};
  }
  static change start(adapt::lora_xs const&) { return {1e-5, 1e-2}; }
  static index_t frozen(adapt::lora_xs const& s, extents shape) { return s.rank * (shape.rows + shape.cols); }
};

struct mora_entry : plain_entry<adapt::mora> {
  static std::vector<adapt::mora> all() {
    std::vector<adapt::mora> out;
    for (int const type : {1, 2, 3, 4, 6})
      for (index_t const rank : {1, 2, 5}) out.push_back({.rank = rank, .type = static_cast<adapt::mora_type>(type)});
    return out;
  }
  static passes flops(adapt::mora const& s, extents shape, index_t tokens) {
    index_t const side = s.side(shape), blocks = (shape.cols + side - 1) / side;
    index_t const once = 2 * tokens * side * side * (s.type == adapt::mora_type::rotated ? blocks : 1);
    return {once, 2 * once};
  }
  /// A cosine and a sine for every pair of features.
  static index_t frozen(adapt::mora const& settings, extents shape) {
    index_t const side = settings.side(shape);
    return settings.type == adapt::mora_type::rotated ? (shape.cols + side - 1) / side * side : 0;
  }
};

struct nola_entry : plain_entry<adapt::nola> {
  static std::vector<adapt::nola> all() {
    return {{.rank = 4, .right_count = 7, .left_count = 5},
            {.rank = 3, .right_count = 4, .left_count = 6, .variant = adapt::nola_variant::vision}};
  }
  static change start(adapt::nola const& s) {
    return s.variant == adapt::nola_variant::language ? change{} : change{1e-3, 0.2};
  }
};

struct deep_lora_entry : plain_entry<adapt::deep_lora> {
  using form = adapt::deep_lora_form;
  static std::vector<adapt::deep_lora> all() {
    return {{.rank = 4},
            {.rank = 3, .depth = 2},
            {.rank = 2, .depth = 5},
            {.rank = 4, .form = form::compressed},
            {.rank = 2, .depth = 2, .gamma = 0, .form = form::compressed},
            {.rank = 3, .form = form::scaled_chain}};
  }
  static change start(adapt::deep_lora const& s) {
    if (s.form == form::scaled_chain) return {};
    double const size = std::sqrt(static_cast<double>(s.rank)) * std::pow(1e-3, static_cast<double>(s.depth));
    return {0.9999 * size, 1.0001 * size};
  }
  static index_t frozen(adapt::deep_lora const& s, extents shape) {
    return s.form == form::compressed && s.gamma == 0 ? s.rank * (shape.rows + shape.cols) : 0;
  }
  template <class T, class E>
  static auto make(E& exec, adapt::deep_lora const& settings, matrix_view<T> w) {
    auto const gradient = random_matrix(w.shape(), 31);
    return settings.make<T>(exec, w, key, gradient.view());
  }
};

struct pc_lora_entry : plain_entry<adapt::pc_lora> {
  static std::vector<adapt::pc_lora> all() {
    return {{.rank = 4, .alpha = 2, .start = adapt::pc_lora_start::truncated_svd}};
  }
  static passes flops(adapt::pc_lora const& s, extents shape, index_t tokens) { return of_pair(s.rank, shape, tokens); }
};

#define LOWRANK_TEST_ADAPTERS \
  lora_entry, olora_entry, lora_xs_entry, mora_entry, nola_entry, deep_lora_entry, pc_lora_entry

/// An adapter of one entry for a random matrix, as it is at first or with every trained number replaced.
template <class Entry, class T>
struct subject {
  using settings = typename decltype(Entry::all())::value_type;
  using adapter = decltype(Entry::template make<T>(std::declval<host_executor&>(), std::declval<settings>(),
                                                   std::declval<matrix_view<T>>()));
  matrix<T> original, base;
  adapter made;

  subject(host_executor& exec, settings const& s, extents shape)
      : original{random_of<T>(shape, 1)},
        base{random_of<T>(shape, 1)},
        made{Entry::template make<T>(exec, s, base.view())} {}

  void train() {
    std::uint64_t seed = 100;
    for (auto const& one : made.tensors()) {
      auto const values = random_of<T>(one.values.shape(), seed++, 0.7);
      for (index_t i = 0; i < one.values.rows; ++i)
        for (index_t j = 0; j < one.values.cols; ++j) one.values(i, j) = values(i, j);
    }
  }
  void forward(host_executor& exec, matrix_view<T const> x, std::vector<T>& kept, matrix_view<T> y) {
    exec.reserve(made.workspace_bytes(x.rows));
    kept.assign(static_cast<std::size_t>(made.kept_size(x.rows)), T{});
    made.forward(exec, x, kept, y, {});
  }
  /// ΔW as merging has it.
  matrix<T> merged(host_executor& exec) {
    matrix<T> out{made.shape()};
    exec.reserve(made.workspace_bytes(0));
    made.add_to(exec, T{1}, out.view());
    return out;
  }
};

template <class T, class Adapter>
std::vector<matrix<T>> gradients_like(Adapter const& a) {
  std::vector<matrix<T>> out;
  for (auto const& one : a.tensors()) out.push_back(random_of<T>(one.values.shape(), 55));  // to be overwritten
  return out;
}
template <class T>
std::vector<matrix_view<T>> views_of(std::vector<matrix<T>>& all) {
  std::vector<matrix_view<T>> out;
  for (auto& one : all) out.push_back(one.view());
  return out;
}

/// Everything that one pass forward and backward reads and writes.
template <class Adapter>
struct one_pass {
  Adapter& adapter;
  matrix<float> x, dy, y, dx;
  std::vector<float> kept;
  std::vector<matrix<float>> gradients;
  std::vector<matrix_view<float>> views;

  one_pass(Adapter& a, index_t tokens)
      : adapter{a},
        x{random_matrix({tokens, a.shape().cols}, 2)},
        dy{random_matrix({tokens, a.shape().rows}, 4)},
        y{tokens, a.shape().rows},
        dx{tokens, a.shape().cols},
        kept(static_cast<std::size_t>(a.kept_size(tokens))),
        gradients{gradients_like<float>(a)},
        views{views_of(gradients)} {}
  template <class E>
  void forward(E& exec) {
    adapter.forward(exec, std::as_const(x).view(), std::span{kept}, y.view(), {});
  }
  template <class E>
  void backward(E& exec) {
    adapter.backward(exec, std::as_const(x).view(), std::span<float const>{kept}, std::as_const(dy).view(), views,
                     dx.view(), {});
  }
};

constexpr std::array<extents, 4> shapes{extents{11, 11}, extents{9, 14}, extents{17, 6}, extents{6, 23}};

/// body(settings, shape) for everything an entry can be.
template <class Entry, class Body>
void each(Body const& body) {
  for (auto const& settings : Entry::all())
    for (extents const shape : shapes) {
      CAPTURE(shape);
      body(settings, shape);
    }
}

}  // namespace

TEST_SUITE("adapters") {
  TEST_CASE_TEMPLATE("at first the output is that of the base, bit for bit or to what is promised", Entry,
                     LOWRANK_TEST_ADAPTERS) {
    host_executor exec{{.threads = 2}};
    each<Entry>([&](auto const& settings, extents shape) {
      subject<Entry, float> it{exec, settings, shape};
      auto const x = random_matrix({5, shape.cols}, 2);
      auto y = random_matrix({5, shape.rows}, 3);
      auto const before = copy_of(y.view());
      std::vector<float> kept;
      it.forward(exec, x.view(), kept, y.view());
      if constexpr (decltype(it)::settings::mutates_base) {
        auto sum = copy_of(it.base.view());
        it.made.add_to(exec, 1, sum.view());
        CHECK(largest_difference(sum.view(), it.original.view()) <= 1e-5);
        CHECK_FALSE(same_bits(it.base, it.original));
      } else {
        CHECK(same_bits(it.base, it.original));
        auto const [least, most] = Entry::start(settings);
        if (most == 0) CHECK(same_bits(y, before));
        CHECK(size_of(it.merged(exec).view()) >= least);
        CHECK(size_of(it.merged(exec).view()) <= most);
      }
    });
  }

  TEST_CASE_TEMPLATE("merging is what forward does to the identity", Entry, LOWRANK_TEST_ADAPTERS) {
    host_executor exec{{.threads = 2}};
    each<Entry>([&]<class Settings>(Settings const& settings, extents shape) {
      subject<Entry, double> it{exec, settings, shape};
      it.train();
      matrix<double> x{shape.cols, shape.cols}, y{shape.cols, shape.rows};
      for (index_t i = 0; i < shape.cols; ++i) x(i, i) = 1;
      fill(exec, y.view(), 2.0);  // to be added to
      std::vector<double> kept;
      it.forward(exec, x.view(), kept, y.view());
      auto w = random_of<double>(shape, 8), twice = random_of<double>(shape, 8);
      it.made.add_to(exec, 1, w.view());
      it.made.add_to(exec, -2, twice.view());
      auto const none = random_of<double>(shape, 8);
      double const size = size_of(it.merged(exec).view());
      CHECK(size > 0);
      double worst = 0, worst_twice = 0;
      for (index_t i = 0; i < shape.rows; ++i)
        for (index_t j = 0; j < shape.cols; ++j) {
          double const change = y(j, i) - 2;
          worst = std::max(worst, std::abs(w(i, j) - none(i, j) - change));
          worst_twice = std::max(worst_twice, std::abs(twice(i, j) - none(i, j) + 2 * change));
        }
      CHECK(worst <= 1e-13 * (1 + size));
      CHECK(worst_twice <= 1e-13 * (1 + size));
    });
  }

  TEST_CASE_TEMPLATE("gradients are those of finite differences, in fp64", Entry, LOWRANK_TEST_ADAPTERS) {
    host_executor exec{{.threads = 2}};
    each<Entry>([&](auto const& settings, extents shape) {
      constexpr index_t tokens = 4;
      subject<Entry, double> it{exec, settings, shape};
      it.train();
      auto x = random_of<double>({tokens, shape.cols}, 12);
      auto const dy = random_of<double>({tokens, shape.rows}, 13), dx_before = random_of<double>(x.shape(), 14);
      auto dx = random_of<double>(x.shape(), 14);
      auto gradients = gradients_like<double>(it.made);
      auto const views = views_of(gradients);
      std::vector<double> kept;
      matrix<double> y{tokens, shape.rows};
      it.forward(exec, x.view(), kept, y.view());
      it.made.backward(exec, x.view(), kept, dy.view(), views, dx.view(), {});
      auto const loss = [&] {
        matrix<double> out{tokens, shape.rows};
        std::vector<double> others;
        it.forward(exec, x.view(), others, out.view());
        double sum = 0;
        for (index_t e = 0; e < out.shape().size(); ++e) sum += dy.data()[e] * out.data()[e];
        return sum;
      };
      // ΔW is linear in each single number, so that a central difference has no truncation error.
      auto const slope = [&](double& number) {
        double const at = number;
        number = at + 0.5;
        double const above = loss();
        number = at - 0.5;
        double const below = loss();
        number = at;
        return above - below;
      };
      std::size_t number = 0;
      for (auto const& one : it.made.tensors()) {
        CAPTURE(one.name);
        double worst = 0, largest = 1e-30;
        for (index_t i = 0; i < one.values.rows; ++i)
          for (index_t j = 0; j < one.values.cols; ++j) {
            double const wanted = slope(one.values(i, j));
            worst = std::max(worst, std::abs(gradients[number](i, j) - wanted));
            largest = std::max(largest, std::abs(wanted));
          }
        CHECK(worst <= 1e-10 * (1 + largest));
        CHECK(largest > 1e-6);
        ++number;
      }
      double worst = 0;
      for (index_t e = 0; e < x.shape().size(); ++e)
        worst = std::max(worst, std::abs(dx.data()[e] - dx_before.data()[e] - slope(x.data()[e])));
      CHECK(worst <= 1e-10 * (1 + size_of(dx.view())));

      // What is not asked for is not computed, and the rest does not notice.
      for (std::size_t left_out = 0; left_out < views.size(); ++left_out) {
        auto some = gradients_like<double>(it.made);
        auto parts = views_of(some);
        parts[left_out] = {};
        it.made.backward(exec, x.view(), kept, dy.view(), parts, {}, {});
        for (std::size_t i = 0; i < parts.size(); ++i)
          if (i != left_out) CHECK(same_bits(some[i], gradients[i]));
      }
      auto alone = random_of<double>(x.shape(), 14);
      it.made.backward(exec, x.view(), kept, dy.view(), {}, alone.view(), {});
      CHECK(same_bits(alone, dx));
    });
  }

  TEST_CASE_TEMPLATE("counts of numbers and bytes", Entry, LOWRANK_TEST_ADAPTERS) {
    host_executor exec{{.threads = 1}};
    each<Entry>([&](auto const& settings, extents shape) {
      subject<Entry, float> it{exec, settings, shape};
      index_t trained = 0, all = 0;
      std::vector<float const*> places;
      std::vector<std::string> names;
      for (auto const& one : std::as_const(it.made).tensors()) {
        trained += one.rate == 0 ? 0 : one.values.size();
        all += one.values.size();
        CHECK(one.values.is_row_major());
        places.push_back(one.values.data);
        for (auto const& other : names) CHECK(other != one.name);
        names.emplace_back(one.name);
      }
      CHECK(it.made.parameter_count() == trained);
      CHECK(settings.parameter_count(shape) == trained);
      CHECK(adapt::trained_bytes(it.made) == 4 * trained);
      CHECK(it.made.bytes() == 4 * (trained + Entry::frozen(settings, shape)));
      CHECK(it.made.bytes() >= 4 * all);
      CHECK(it.made.shape() == shape);
      auto moved = std::move(it.made);
      std::size_t number = 0;
      for (auto const& one : moved.tensors()) CHECK(one.values.data == places[number++]);
    });
  }

  TEST_CASE_TEMPLATE("scratch and kept numbers are what is announced, and no tokens are no tokens", Entry,
                     LOWRANK_TEST_ADAPTERS) {
    each<Entry>([&](auto const& settings, extents shape) {
      host_executor making{{.threads = 1}};
      subject<Entry, float> it{making, settings, shape};
      it.train();
      for (index_t const tokens : {0, 1, 37}) {
        host_executor exec{{.threads = 2, .scratch_bytes = it.made.workspace_bytes(tokens)}};
        auto const x = random_matrix({tokens, shape.cols}, 2), dy = random_matrix({tokens, shape.rows}, 4);
        matrix<float> y{tokens, shape.rows}, dx{tokens, shape.cols};
        auto const size = static_cast<std::size_t>(it.made.kept_size(tokens));
        std::vector<float> kept(size + 3, 7.0F);
        auto gradients = gradients_like<float>(it.made);
        it.made.forward(exec, x.view(), std::span{kept}, y.view(), {});
        it.made.backward(exec, x.view(), std::span<float const>{kept}, dy.view(), views_of(gradients), dx.view(), {});
        CHECK(exec.arena().available() == exec.arena().reserved());
        CHECK(exec.arena().reserved() == it.made.workspace_bytes(tokens));
        for (std::size_t i = size; i < kept.size(); ++i) CHECK(kept[i] == 7.0F);
        if (tokens == 0)
          for (auto const& one : gradients) CHECK(size_of(one.view()) == 0);
      }
    });
  }

  TEST_CASE_TEMPLATE("passes take the flops that are written", Entry, lora_entry, olora_entry, lora_xs_entry,
                     mora_entry, pc_lora_entry) {
    constexpr index_t tokens = 7;
    each<Entry>([&](auto const& settings, extents shape) {
      host_executor making{{.threads = 1}};
      subject<Entry, float> it{making, settings, shape};
      counting_executor exec{{.threads = 1, .scratch_bytes = it.made.workspace_bytes(tokens)}};
      one_pass<std::remove_cvref_t<decltype(it.made)>> at{it.made, tokens};
      auto const expected = Entry::flops(settings, shape, tokens);
      at.forward(exec);
      CHECK(exec.flops == expected.forward);
      exec.flops = 0;
      at.backward(exec);
      CHECK(exec.flops == expected.backward);
    });
  }

  TEST_CASE_TEMPLATE("a pass of few tokens holds far less than a gradient of W, and no buffer of its own", Entry,
                     LOWRANK_TEST_ADAPTERS) {
    extents const shape{300, 400};
    constexpr index_t tokens = 2;
    for (auto const& settings : Entry::all()) {
      host_executor making{{.threads = 1}};
      subject<Entry, float> it{making, settings, shape};
      host_executor exec{{.threads = 1, .scratch_bytes = it.made.workspace_bytes(tokens)}};
      one_pass<std::remove_cvref_t<decltype(it.made)>> at{it.made, tokens};
      allocation_counter const counter;
      at.forward(exec);
      at.backward(exec);
      CHECK(counter.aligned_bytes() == 0);
      index_t const numbers = it.made.kept_size(tokens) + it.made.workspace_bytes(tokens) / 4;
      CHECK(10 * numbers < shape.size());
    }
  }

  TEST_CASE_TEMPLATE("factors are the change", Entry, LOWRANK_TEST_ADAPTERS) {
    host_executor exec{{.threads = 2}};
    each<Entry>([&](auto const& settings, extents shape) {
      using made_type = typename subject<Entry, double>::adapter;
      subject<Entry, double> it{exec, settings, shape};
      it.train();
      if constexpr (adapt::low_rank_adapter<made_type>) {
        auto const pair = it.made.factors(exec);
        CHECK(pair.shape() == shape);
        CHECK(pair.rank() <= std::min(shape.rows, shape.cols));
        auto const product = plain_product(pair.left.view(), pair.right.view());
        auto const change = it.merged(exec);
        CHECK(largest_difference(product.view(), change.view()) <= 1e-13 * (1 + size_of(change.view())));
      }
    });
  }

  TEST_CASE_TEMPLATE("what does not fit is refused by name, and nothing is written", Entry, LOWRANK_TEST_ADAPTERS) {
    host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
    extents const shape{9, 14};
    for (auto settings : Entry::all()) {
      subject<Entry, float> it{exec, settings, shape};
      std::vector<float> kept(static_cast<std::size_t>(it.made.kept_size(3)));
      matrix<float> x{3, 14}, y{3, 9}, narrow{3, 13}, w{9, 14}, other{14, 9};
      matrix<float> const dy{3, 9};
      CHECK_THROWS_AS(it.made.forward(exec, narrow.view(), kept, y.view(), {}), shape_error);
      CHECK_THROWS_AS(it.made.forward(exec, x.view(), kept, narrow.view(), {}), shape_error);
      if (!kept.empty())
        CHECK_THROWS_AS(it.made.forward(exec, x.view(), std::span{kept}.first(kept.size() - 1), y.view(), {}),
                        shape_error);
      CHECK_THROWS_AS(it.made.add_to(exec, 1, other.view()), shape_error);
      auto gradients = gradients_like<float>(it.made);
      auto views = views_of(gradients);
      views.back().cols += 1;
      std::string said;
      try {
        it.made.backward(exec, x.view(), kept, dy.view(), views, {}, {});
      } catch (shape_error const& e) { said = e.what(); }
      std::string const name{(*std::prev(it.made.tensors().end())).name};
      CHECK_MESSAGE(said.find(name) != std::string::npos, said);
      views.pop_back();
      if (!views.empty())
        CHECK_THROWS_AS(it.made.backward(exec, x.view(), kept, dy.view(), views, {}, {}), shape_error);

      for (index_t const rank : {index_t{0}, index_t{-1}, index_t{10}}) {
        auto wrong = settings;
        wrong.rank = rank;
        CHECK_THROWS_AS(wrong.check(shape), shape_error);
      }
      w(4, 5) = std::numeric_limits<float>::quiet_NaN();
      CHECK_THROWS_AS(std::ignore = adapt::make_adapter(exec, settings, w.view(), key), argument_error);
    }
  }
}

TEST_SUITE("threads") {
  TEST_CASE_TEMPLATE("adapters have the same bits for any number of threads", Entry, LOWRANK_TEST_ADAPTERS) {
    constexpr index_t tokens = 70;
    for (auto const& settings : Entry::all())
      for (extents const shape : {extents{90, 130}, extents{200, 60}}) {
        auto const with = [&](int threads) {
          host_executor exec{{.threads = threads}};
          subject<Entry, float> it{exec, settings, shape};
          std::vector<matrix<float>> out;
          for (auto const& one : it.made.tensors()) out.push_back(copy_of(one.values));
          it.train();
          auto const x = random_matrix({tokens, shape.cols}, 2), dy = random_matrix({tokens, shape.rows}, 4);
          matrix<float> y{tokens, shape.rows}, dx{tokens, shape.cols};
          std::vector<float> kept;
          it.forward(exec, x.view(), kept, y.view());
          auto gradients = gradients_like<float>(it.made);
          it.made.backward(exec, x.view(), kept, dy.view(), views_of(gradients), dx.view(), {});
          for (auto& one : gradients) out.push_back(std::move(one));
          out.push_back(std::move(y));
          out.push_back(std::move(dx));
          out.push_back(it.merged(exec));
          return out;
        };
        auto const one = with(1), two = with(2), five = with(5);
        for (std::size_t i = 0; i < one.size(); ++i) {
          CHECK(same_bits(one[i], two[i]));
          CHECK(same_bits(one[i], five[i]));
        }
      }
  }
}

}  // namespace adapter_laws
