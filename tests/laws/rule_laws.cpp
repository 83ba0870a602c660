// What every rule must obey, inside a subspace and out of it.
#include <doctest/doctest.h>

#include <string>

#include "support/named_optimizers.hpp"
#include "support/optimizers.hpp"

namespace rule_laws {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("rule laws");

struct rule_case {
  std::string name, options;  ///< as by_name knows the rule without a subspace
};

std::vector<rule_case> every_rule() {
  std::vector<rule_case> all;
  for (std::string const epsilon : {"corrected_root", "raw_root"})
    for (std::string const decay : {"before", "after"})
      for (std::string const correct : {"true", "false"})
        all.push_back({"adamw", "eps=1e-6, betas=(0.8, 0.95), epsilon=" + epsilon + ", decay=" + decay +
                                    ", correct_bias=" + correct});
  for (std::string const decay : {"before", "after"}) {
    for (std::string const form :
         {"momentum=0", "momentum=0.9", "momentum=0.9, nesterov=true", "momentum=0.9, dampening=0.3"})
      all.push_back({"sgd", form + ", decay=" + decay});
    all.push_back({"lion", "betas=(0.9, 0.98), decay=" + decay});
    for (std::string const form :
         {"beta1=None", "beta1=0.9", "beta1=None, scale_parameter=true", "beta1=0.7, scale_parameter=true"})
      all.push_back({"adafactor", form + ", decay=" + decay});
  }
  return all;
}

TEST_CASE("GaLore with P = I and scale 1 is its rule, bit for bit, in every convention and on either side") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
  for (auto const& [name, options] : every_rule())
    for (extents const shape : {extents{21, 40}, extents{40, 21}, extents{33, 33}})
      for (std::string const side : {"std", "reverse_std"}) {
        if (side == "reverse_std" && shape.rows != shape.cols) continue;  // a basis with fewer columns than rows
        CAPTURE(name);
        CAPTURE(options);
        CAPTURE(shape);
        CAPTURE(side);
        index_t const m = std::min(shape.rows, shape.cols);
        auto alone = make_named(exec, name, options, shape);
        auto inside = make_named(exec, "galore_" + name,
                                 options + ", rank=512, scale=1, update_proj_gap=3, finder=given, proj_type=" + side,
                                 shape, 1, {{}, identity_basis(m)});
        auto w = random_matrix(shape, 1), v = random_matrix(shape, 1);
        for (index_t k = 0; k < 7; ++k) {
          auto const g = gradient_of_step(shape, k);
          step_options const o{
              .learning_rate = 0.02F / static_cast<float>(k + 1), .weight_decay = 0.1F, .grad_scale = 0.7F};
          alone->step(exec, fp32_weight<>{w.view()}, read(g), o);
          REQUIRE(inside->step(exec, fp32_weight<>{v.view()}, read(g), o) == step_status::stepped);
        }
        CHECK(same_bits(w, v));
        CHECK(largest_difference(read(v), read(random_matrix(shape, 1))) > 0.01);
      }
}

TEST_CASE("the fused pass over packed weights and the pass over any strides give the same bits") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 20}};
  auto cases = every_rule();
  cases.push_back({"adam", ""});
  cases.push_back({"sgd", "momentum=0.9, decay=coupled"});
  for (auto const& [name, options] : cases) {
    CAPTURE(name);
    CAPTURE(options);
    extents const shape{37, 29};
    auto packed = make_named(exec, name, options, shape), strided = make_named(exec, name, options, shape),
         turned = make_named(exec, name, options, shape);
    auto w = random_matrix(shape, 1);
    strided_copy gaps{read(w)};
    matrix<float> columns{shape.t()};
    for (index_t i = 0; i < shape.rows; ++i)
      for (index_t j = 0; j < shape.cols; ++j) columns(j, i) = w(i, j);
    for (index_t k = 0; k < 4; ++k) {
      auto const g = gradient_of_step(shape, k);
      strided_copy spread{read(g)};
      matrix<float> h{shape.t()};
      for (index_t i = 0; i < shape.rows; ++i)
        for (index_t j = 0; j < shape.cols; ++j) h(j, i) = g(i, j);
      step_options const o{.learning_rate = 0.01F, .weight_decay = 0.2F, .grad_scale = 1.3F};
      packed->step(exec, fp32_weight<>{w.view()}, read(g), o);
      strided->step(exec, fp32_weight<>{gaps.view()}, matrix_view<float const>(spread.view()), o);
      turned->step(exec, fp32_weight<>{columns.view().t()}, read(h).t(), o);
    }
    // Adafactor with scale_parameter sums the weight's squares along memory, so its last bit may move with the layout.
    double const tolerance = options.find("scale_parameter=true") != std::string::npos ? 1e-6 : 0;
    CHECK(largest_difference(read(w), matrix_view<float const>(gaps.view())) <= tolerance);
    CHECK(largest_difference(read(w), read(columns).t()) <= tolerance);
  }
}

TEST_CASE("a full-rank orthonormal basis changes a linear rule by rounding alone") {
  host_executor exec{{.threads = 2, .scratch_bytes = 1 << 22}};
  for (std::string const rule :
       {"momentum=0", "momentum=0.9", "momentum=0.9, nesterov=true", "momentum=0.9, dampening=0.2"})
    for (extents const shape : {extents{24, 60}, extents{60, 24}, extents{32, 32}}) {
      CAPTURE(rule);
      CAPTURE(shape);
      auto alone = make_named(exec, "sgd", rule + ", decay=before", shape);
      // With momentum the moments are read in the old basis, so the basis stays; without, every step may have its own.
      std::string const gap = rule == "momentum=0" ? "1" : "1000";
      auto inside =
          make_named(exec, "galore_sgd", rule + ", rank=99, scale=1, finder=stiefel, update_proj_gap=" + gap, shape);
      auto const start = random_matrix(shape, 2);
      auto w = copy_of(read(start)), v = copy_of(read(start));
      for (index_t k = 0; k < 10; ++k) {
        auto const g = gradient_of_step(shape, k);
        step_options const o{.learning_rate = 0.05F, .weight_decay = 0.01F};
        alone->step(exec, fp32_weight<>{w.view()}, read(g), o);
        inside->step(exec, fp32_weight<>{v.view()}, read(g), o);
      }
      CHECK(relative_deviation(v, w, start) < 3e-6);
    }
}

TEST_CASE("a full-rank basis is not the identity for a rule that is not linear") {
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 22}};
  extents const shape{24, 60};
  auto alone = make_named(exec, "adamw", "", shape);
  auto inside = make_named(exec, "galore_adamw", "rank=24, scale=1, finder=stiefel, epsilon=corrected_root", shape);
  auto const start = random_matrix(shape, 2);
  auto w = copy_of(read(start)), v = copy_of(read(start));
  auto const g = gradient_of_step(shape, 0);
  alone->step(exec, fp32_weight<>{w.view()}, read(g), {});
  inside->step(exec, fp32_weight<>{v.view()}, read(g), {});
  CHECK(relative_deviation(v, w, start) > 0.1);
}

TEST_SUITE_END();

}  // namespace

}  // namespace rule_laws
