// What optimizers with moments, bases and weights in codes must obey, at sizes at which codes are used.
#include <doctest/doctest.h>

#include <string>

#include "lowrank/io/checkpoint.hpp"
#include "lowrank/lowrank.hpp"
#include "lowrank/optim/parameter_set.hpp"
#include "support/allocation_counter.hpp"
#include "support/compositions.hpp"
#include "support/int8_weights.hpp"
#include "support/named_optimizers.hpp"
#include "unit/io/temporary_folder.hpp"

namespace low_bit_laws {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("low-bit laws");

struct configuration {
  std::string name, options;
};
/// Every format of a moment and of a basis. R and whole weights have 4096 elements and more.
std::vector<configuration> every_format() {
  return {{"adamw_8bit", ""},
          {"adamw_8bit", "kernels=cuda"},
          {"adamw_8bit_torchao", ""},
          {"adamw_4bit_torchao", ""},
          {"adamw_fp8_torchao", ""},
          {"galore_adamw_8bit", "rank=32, update_proj_gap=2"},
          {"galore_adamw_8bit", "rank=32, update_proj_gap=2, finder=warm, transport=rotate, basis_format=int8"},
          {"galore_adamw_8bit",
           "rank=64, update_proj_gap=2, proj_type=full, finder=warm, transport=rotate, "
           "basis_format=bf16"},
          {"galore_adamw_8bit", "rank=32, update_proj_gap=1, finder=warm, cheap=momentum, hold=0.9, transport=rotate"},
          {"galore_adamw", "rank=32, update_proj_gap=2, basis_format=int4, finder=tracked, transport=rotate"},
          {"galore_adamw", "rank=7, update_proj_gap=2, basis_format=int8, proj_type=full"},
          {"q_galore_adamw_8bit", "rank=32, update_proj_gap=2, queue_size=2, cos_threshold=-1"},
          {"q_galore_adamw_8bit", "rank=32, update_proj_gap=1, finder=randomized, transport=rotate, proj_bits=8"},
          {"q_galore_adamw_8bit",
           "rank=40, update_proj_gap=2, refresh=every, energy_rank=0.4, least_rank=4, rank_multiple=4"}};
}
constexpr extents wide{80, 160}, tall{160, 80}, square{96, 96};

/// Gradients that share most of themselves, so that a basis stays worth something.
matrix<float> gradient_at(extents shape, index_t k) { return noisy_gradient(random_matrix(shape, 77), 0.5F, k); }

step_options const usual{.learning_rate = 0.01F, .weight_decay = 0.1F};

TEST_CASE("Q-GaLore with identity codecs is GaLore bit for bit, under the same refresh policy") {
  // Below 4096 elements moments are fp32; weights are given in fp32, and the basis is told to be.
  std::string const shared = "rank=12, update_proj_gap=2, queue_size=2, cos_threshold=0.2, ",
                    spelled =
                        "refresh=lazy, likeness=first_vectors, finder=warm, order=by_energy, align=signs, "
                        "epsilon=corrected_root, eps=1e-8, decay=after";
  for (extents const shape : {extents{24, 60}, extents{60, 24}, extents{40, 40}})
    for (std::string const more : {"", ", transport=rotate", ", proj_type=full", ", accumulate=projected"}) {
      CAPTURE(shape);
      CAPTURE(more);
      host_executor exec{{.threads = 2, .scratch_bytes = 1 << 22}};
      auto a = make_named(exec, "q_galore_adamw_8bit", shared + "proj_quant=false" + more, shape),
           b = make_named(exec, "galore_adamw", shared + spelled + more, shape),
           c = make_named(exec, "q_galore_adamw_8bit", shared + "proj_bits=4" + more, shape);
      auto w = random_matrix(shape, 1), v = random_matrix(shape, 1), u = random_matrix(shape, 1);
      bool const sums = more.find("accumulate") != std::string::npos;
      for (index_t k = 0; k < 14; ++k) {
        auto const g = gradient_at(shape, k);
        auto const step = [&](any_optimizer& o, matrix<float>& weight) {
          if (!sums) return o.step(exec, fp32_weight<>{weight.view()}, read(g), usual);
          o.accumulate(exec, read(g));
          return o.step_accumulated(exec, fp32_weight<>{weight.view()}, usual);
        };
        REQUIRE(step(*a, w) == step_status::stepped);
        REQUIRE(step(*b, v) == step_status::stepped);
        REQUIRE(step(*c, u) == step_status::stepped);
        REQUIRE(same_bits(w, v));
        CHECK(a->refresh_due() == b->refresh_due());
      }
      CHECK(a->refreshes() == b->refreshes());
      CHECK(a->refreshes() < 7);  // some gap has grown
      CHECK_FALSE(same_bits(w, u));
    }
}

TEST_CASE("a preset's published settings are what its name stands for") {
  extents const shape = wide;
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 23}};
  auto const same = [&](auto const& preset, std::string const& name, std::string const& options) {
    auto state = preset.init(exec, shape, 1);
    auto o = make_named(exec, name, options, shape);
    CHECK(o->bytes() == preset.bytes(shape));
    auto w = random_matrix(shape, 1), v = random_matrix(shape, 1);
    for (index_t k = 0; k < 6; ++k) {
      auto const g = gradient_at(shape, k);
      preset.step(exec, state, w.view(), read(g), usual);
      o->step(exec, fp32_weight<>{v.view()}, read(g), usual);
    }
    return same_bits(w, v);
  };
  CHECK(same(adamw_8bit{}, "adamw_8bit", ""));
  CHECK(same(adamw_8bit{}, "adamw_bnb_8bit", "min_8bit_size=4096, percentile_clipping=100, block_wise=True"));
  CHECK(same(bitsandbytes_cuda_settings(), "adamw_8bit_bnb", "kernels=cuda"));
  CHECK(same(adamw_8bit_torchao{}, "adamw_torch_8bit", "block_size=256"));
  CHECK(same(adamw_4bit{}, "adamw_torch_4bit", "block_size=128"));
  CHECK(same(adamw_fp8{}, "adamw_fp8_torchao", ""));
  CHECK(same(galore_torch_8bit_settings(32), "galore_adamw_8bit", "rank=32"));
  auto q = q_galore_settings(32);
  q.refresh.gap = 1;
  q.refresh.history = 2;
  std::string const shortly = "rank=32, update_proj_gap=1, queue_size=2";
  CHECK(same(q, "q_galore_adamw_8bit", shortly));
  CHECK(same(q, "q_galore_adamw8bit", shortly + ", proj_bits=4, proj_group_size=256, cos_threshold=0.4, gamma_proj=2"));
  CHECK_FALSE(same(q, "q_galore_adamw_8bit", shortly + ", likeness=subspace, cos_threshold=0.01, order=as_iterated"));
  CHECK_FALSE(same(q, "q_galore_adamw_8bit", shortly + ", decay=before"));
  CHECK_FALSE(same(adamw_8bit{}, "adamw_8bit", "kernels=cuda"));
}

TEST_CASE_TEMPLATE("projection and lift see one basis: the one that is kept", Format, format::fp32, format::bf16,
                   format::int8, format::int4) {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 22}};
  for (extents const shape : {wide, tall, square}) {
    compose<rule::sgd, basis::randomized, Format> o{.rank = 24};
    auto state = o.init(exec, shape, 1);
    auto w = random_matrix(shape, 1);
    auto const start = copy_of(read(w)), g = gradient_at(shape, 0);
    REQUIRE(o.step(exec, state, w.view(), read(g), step_options{.learning_rate = 0.5F}) == step_status::stepped);
    auto const bases = bases_of(o, exec, state);
    auto const& p = bases[0];
    auto const faced = facing(state.facing_side, read(g));
    auto const inside = plain_product(p.view().t(), faced);
    auto const back = plain_product(p.view(), inside.view());
    auto const moved = facing(state.facing_side, read(w)), before = facing(state.facing_side, read(start));
    double worst = 0, most = 0;
    for (index_t i = 0; i < moved.rows; ++i)
      for (index_t j = 0; j < moved.cols; ++j) {
        double const expected =
            static_cast<double>(before(i, j)) - 0.5 * static_cast<double>(o.lift.scale) * back(i, j);
        worst = std::max(worst, std::abs(static_cast<double>(moved(i, j)) - expected));
        most = std::max(most, std::abs(back(i, j)));
      }
    CHECK(worst < 4 * eps * std::max(1.0, most) * 4);
  }
}

TEST_CASE("a step on int8 weights is the step on what they stand for, encoded with scales of its own") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 23}};
  for (extents const shape : {wide, tall, extents{300, 48}, extents{48, 300}})
    for (auto const& [name, options] : every_format())
      for (weight_rounding const rounding : {weight_rounding::nearest, weight_rounding::stochastic}) {
        CAPTURE(shape);
        CAPTURE(name);
        CAPTURE(options);
        auto a = make_named(exec, name, options, shape), b = make_named(exec, name, options, shape);
        int8_weight codes{exec, read(random_matrix(shape, 1)), rounding};
        index_t changed = 0;
        for (index_t k = 0; k < 4; ++k) {
          auto const g = gradient_at(shape, k);
          auto const before = codes.values(exec);
          auto plain = copy_of(read(before));
          REQUIRE(a->step(exec, codes.view(), read(g), usual) == step_status::stepped);
          REQUIRE(b->step(exec, fp32_weight<>{plain.view()}, read(g), usual) == step_status::stepped);
          blockwise<int8_weight::codec> expected{{1, shape.size()}};
          rng_key const key{0, static_cast<std::uint32_t>(k), 1, rng_purpose::rounding};
          if (rounding == weight_rounding::nearest) quantize(exec, plain.data(), expected.view());
          else quantize_stochastic(exec, plain.data(), expected.view(), key);
          REQUIRE(differences(saved(codes), saved(expected)) == "");
          changed += same_bits(before, codes.values(exec)) ? 0 : 1;
        }
        // What is far below one code is lost where it is rounded to nearest.
        if (rounding == weight_rounding::stochastic) CHECK(changed == 4);
        CHECK(differences(saved(*a), saved(*b)) == "");
      }
}

TEST_CASE("saved with its weight and loaded elsewhere, on other numbers of threads, it goes on bit for bit") {
  temporary_folder const folder;
  for (extents const shape : {wide, tall})
    for (auto const& [name, options] : every_format())
      for (index_t const saved_at : {1, 4}) {
        CAPTURE(shape);
        CAPTURE(name);
        CAPTURE(options);
        CAPTURE(saved_at);
        host_executor exec{{.threads = 1, .scratch_bytes = 1 << 23}}, other{{.threads = 3, .scratch_bytes = 1 << 23}};
        auto a = make_named(exec, name, options, shape);
        int8_weight w{exec, read(random_matrix(shape, 1))};
        for (index_t k = 0; k < saved_at; ++k) a->step(exec, w.view(), read(gradient_at(shape, k)), usual);
        checkpoint_writer writer;
        writer.add("o", *a);
        writer.add("w", w);
        writer.write(folder / "c");

        auto b = make_named(other, name, options, shape);
        int8_weight v{other, read(matrix<float>{shape})};
        checkpoint_reader file{folder / "c"};
        file.load("o", *b);
        file.load("w", v);
        file.require_all_read();
        for (index_t k = saved_at; k < saved_at + 4; ++k) {
          auto const g = gradient_at(shape, k);
          a->step(exec, w.view(), read(g), usual);
          b->step(other, v.view(), read(g), usual);
          REQUIRE(differences(saved(w), saved(v)) == "");
          REQUIRE(differences(saved(*a), saved(*b)) == "");
        }
      }
}

TEST_CASE("a state in another format is refused, and nothing is written") {
  temporary_folder const folder;
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 23}};
  auto const refused = [&](configuration const& from, configuration const& to) {
    auto a = make_named(exec, from.name, from.options, wide);
    auto w = random_matrix(wide, 1);
    a->step(exec, fp32_weight<>{w.view()}, read(gradient_at(wide, 0)), usual);
    checkpoint_writer writer;
    writer.add("o", *a);
    writer.write(folder / "c");
    auto b = make_named(exec, to.name, to.options, wide);
    auto const before = saved(*b);
    checkpoint_reader file{folder / "c"};
    auto const text = refusal<error>([&] {
      file.verify("o", *b);
      file.load("o", *b);
      file.require_all_read();
    });
    if (!text.empty()) CHECK(differences(saved(*b), before) == "");
    return !text.empty();
  };
  CHECK_FALSE(refused({"adamw_8bit", ""}, {"adamw_8bit", ""}));
  CHECK(refused({"adamw_8bit", ""}, {"adamw", ""}));
  CHECK(refused({"adamw_8bit", ""}, {"adamw_4bit_torchao", ""}));
  std::vector<std::string> const formats{"fp32", "bf16", "int8", "int4"};
  for (auto const& from : formats)
    for (auto const& to : formats)
      CHECK(refused({"galore_adamw", "rank=8, basis_format=" + from}, {"galore_adamw", "rank=8, basis_format=" + to}) ==
            (from != to));
}

/// Warm starts that begin anew each time: their largest phase with an old basis at hand.
std::string with_cold_refreshes(std::string const& name, std::string const& options) {
  bool const warm = options.find("finder=warm") != std::string::npos ||
                    (name[0] == 'q' && options.find("finder") == std::string::npos);
  return warm ? options + ", restart_every=1" : options;
}

TEST_CASE("scratch is exactly what workspace_bytes says, and a step allocates nothing") {
  for (extents const shape : {wide, tall, extents{300, 48}, extents{48, 300}})
    for (auto const& [name, options] : every_format())
      for (bool const in_codes : {false, true})
        for (index_t const tokens : {0, 50}) {
          if (tokens > 0 && name.starts_with("adamw")) continue;
          CAPTURE(shape);
          CAPTURE(name);
          CAPTURE(options);
          CAPTURE(in_codes);
          CAPTURE(tokens);
          index_t needed = 0, peak = 0;
          for (auto const& all : {options, with_cold_refreshes(name, options)}) {
            host_executor exec{{.threads = 1}};
            auto o = make_named(exec, name, all, shape);
            auto values = random_matrix(shape, 1);
            int8_weight codes{exec, read(values)};
            any_weight<host_executor> weight = fp32_weight<>{values.view()};
            if (in_codes) weight = codes.view();
            needed = o->workspace_bytes(weight, tokens);
            exec.reserve(needed);
            auto const dense = gradient_at(shape, 0), dy = random_matrix({std::max<index_t>(tokens, 1), shape.rows}, 2),
                       x = random_matrix({std::max<index_t>(tokens, 1), shape.cols}, 3);
            any_gradient<host_executor> g = read(dense);
            if (tokens > 0) g = outer_product<>{read(dy), read(x)};
            allocation_counter const counter;
            for (int k = 0; k < 4; ++k) REQUIRE(o->step(exec, weight, g, {}) == step_status::stepped);
            CHECK(counter.count() == 0);
            CHECK(exec.arena().available() == needed);
            peak = std::max(peak, exec.arena().peak());
          }
          // Not in a short run: every phase at full rank, or all of it in place. A first basis has no older one beside it.
          bool const takes_all = options.find("cheap") == std::string::npos &&
                                 options.find("energy_rank") == std::string::npos &&
                                 options.find("tracked") == std::string::npos && (in_codes || name[0] != 'a');
          if (takes_all) CHECK(peak == needed);
        }
}

TEST_CASE("bytes: what is allocated, and the formulas of the formats") {
  host_executor exec{{.threads = 1}};
  auto const scalars = index_t{sizeof(step_record)} + 8 + 28;
  for (auto const& [name, options] : every_format())
    for (extents const shape : {wide, tall, extents{7, 1}, extents{33, 33}}) {
      CAPTURE(name);
      CAPTURE(options);
      CAPTURE(shape);
      auto const make = named(name, options).make;
      allocation_counter const counter;
      auto const o = make(exec, shape, 1);
      CHECK(o->bytes() >= state_bytes(*o));
      CHECK(o->bytes() <= state_bytes(*o) + scalars);
      index_t rounded = scratch_size(index_t{sizeof(step_record)}) +
                        scratch_size(o->bytes() - state_bytes(*o) - index_t{sizeof(step_record)});
      read_state(*o, [&](std::string_view, auto const& value) {
        if constexpr (state_memory<std::remove_cvref_t<decltype(value)>>) rounded += scratch_size(value.bytes());
      });
      if (allocation_counter::watches()) CHECK(counter.aligned_bytes() == rounded);
    }
  auto const bytes = [&](std::string const& name, std::string const& options) {
    return make_named(exec, name, options, {128, 344})->bytes() - scalars;
  };
  index_t const whole = 128 * 344, inner = 32 * 344, basis = 32 * 128;
  CHECK(bytes("adamw_8bit", "") == 2 * (whole + 4 * whole / 256));
  CHECK(bytes("adamw_8bit_torchao", "") == 2 * (whole + 4 * whole / 256));
  CHECK(bytes("adamw_fp8_torchao", "") == 2 * (whole + 4 * whole / 256));
  CHECK(bytes("adamw_4bit_torchao", "") == 2 * (whole / 2 + 4 * whole / 128));
  CHECK(bytes("galore_adamw_8bit", "rank=32") == 4 * basis + 2 * (inner + 4 * inner / 256));
  CHECK(bytes("q_galore_adamw_8bit", "rank=32") == basis / 2 + 4 * basis / 256 + 2 * (inner + 4 * inner / 256));
  CHECK(bytes("q_galore_adamw_8bit", "rank=32, proj_bits=8") ==
        basis + 4 * basis / 256 + 2 * (inner + 4 * inner / 256));
  CHECK(int8_weight{exec, read(matrix<float>{{128, 344}})}.bytes() == whole + 4 * whole / 256);
}

TEST_CASE("a model with int8 matrices: float parameters are updated beside them, and layer by layer is all at once") {
  struct model {
    int8_weight q, k;
    matrix<float> embedding = random_matrix({60, 80}, 3), norm = random_matrix({1, 80}, 4);

    explicit model(host_executor& exec)
        : q{exec, read(random_matrix(square, 1))}, k{exec, read(random_matrix(wide, 2))} {}
  };
  auto const set_of = [](host_executor& exec, model& m) {
    std::vector<parameter_group<host_executor>> groups;
    groups.push_back({matrices_named({"_proj"}), named("q_galore_adamw_8bit", "rank=64, update_proj_gap=2").make, {}});
    groups.push_back({every_parameter, named("adamw_8bit", "").make, {.weight_decay = 0.1F}});
    parameter_set<host_executor> set{std::move(groups)};
    set.add(exec, "q_proj", m.q.view());
    set.add(exec, "embedding", fp32_weight<>{m.embedding.view()});
    set.add(exec, "k_proj", m.k.view());
    set.add(exec, "norm", fp32_weight<>{m.norm.view()});
    exec.reserve(set.workspace_bytes());
    return set;
  };
  host_executor exec{{.threads = 2}}, other{{.threads = 3}};
  model a{exec}, b{other}, start{exec};
  auto all = set_of(exec, a), layers = set_of(other, b);
  set_options const options{.learning_rate = 0.01F};
  for (index_t step = 0; step < 5; ++step) {
    std::vector<matrix<float>> gradients;
    for (index_t i = 0; i < all.size(); ++i) gradients.push_back(gradient_at(all.shape(i), 10 * step + i));
    std::vector<any_gradient<host_executor>> views;
    for (auto const& g : gradients) views.emplace_back(read(g));
    auto const report = all.step(exec, views, options);
    CHECK(report.stepped == 4);
    for (index_t i = all.size(); i-- > 0;)
      CHECK(layers.step_one(other, i, views[static_cast<std::size_t>(i)], options) == step_status::stepped);
    REQUIRE(differences(saved(all), saved(layers)) == "");
    REQUIRE(differences(saved(a.q), saved(b.q)) == "");
    REQUIRE(differences(saved(a.k), saved(b.k)) == "");
    REQUIRE(same_bits(a.embedding, b.embedding));
    REQUIRE(same_bits(a.norm, b.norm));
  }
  index_t still = 0;
  for (index_t e = 0; e < a.embedding.shape().size(); ++e) still += a.embedding.data()[e] == start.embedding.data()[e];
  for (index_t e = 0; e < a.norm.shape().size(); ++e) still += a.norm.data()[e] == start.norm.data()[e];
  CHECK(still == 0);
  CHECK(differences(saved(a.q), saved(start.q)) != "");
  CHECK(differences(saved(a.k), saved(start.k)) != "");
  CHECK(all.optimizer(0).bytes() == q_galore_adamw_8bit{.rank = 64}.bytes(square));
}

TEST_SUITE_END();

}  // namespace

}  // namespace low_bit_laws
