// Optimizers whose bases, ranks and intervals have a history, through a checkpoint on disk.
#include <doctest/doctest.h>

#include <string>

#include "lowrank/io/checkpoint.hpp"
#include "support/named_optimizers.hpp"
#include "support/optimizers.hpp"
#include "unit/io/temporary_folder.hpp"

namespace resume_test {

namespace {

using namespace lowrank;
using namespace lowrank_test;

TEST_SUITE_BEGIN("resume");

constexpr extents shape{20, 28};

struct configuration {
  std::string name, options;
};
std::vector<configuration> const with_a_history{
    {"galore_adamw", "rank=6, update_proj_gap=2, finder=warm, restart_every=3, transport=rotate"},
    {"galore_adamw", "rank=6, update_proj_gap=1, finder=tracked, transport=rotate, basis_format=bf16"},
    {"galore_adamw", "rank=5, update_proj_gap=1, finder=tracked, proj_type=full, fresh=2"},
    {"galore_sgd", "rank=6, update_proj_gap=1, finder=warm, cheap=momentum, hold=0.9, momentum=0.9"},
    {"galore_lion", "rank=6, update_proj_gap=1, refresh=lazy, queue_size=2, cos_threshold=0.01, finder=warm"},
    {"galore_adafactor", "rank=6, refresh=energy, settle=1, smoothing=0, tolerance=0.01, longest_gap=4, finder=warm"},
    {"galore_adamw", "rank=6, refresh=staggered, update_proj_gap=3"},
    {"galore_adamw", "rank=6, refresh=budget, share=0.5, tokens=8"},
    {"galore_adamw", "rank=16, update_proj_gap=2, energy_rank=0.4, least_rank=1, rank_multiple=1, transport=rotate"}};

TEST_CASE("loaded into a fresh optimizer, it goes on bit for bit") {
  temporary_folder const folder;
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  for (auto const& [name, options] : with_a_history)
    for (index_t const saved_at : {1, 4, 7}) {
      CAPTURE(name);
      CAPTURE(options);
      CAPTURE(saved_at);
      auto a = make_named(exec, name, options, shape);
      auto w = random_matrix(shape, 1);
      auto const step = [&](any_optimizer& o, matrix<float>& weight, index_t k) {
        o.step(exec, fp32_weight<>{weight.view()}, read(gradient_of_step(shape, k)), {.learning_rate = 0.01F});
      };
      for (index_t k = 0; k < saved_at; ++k) step(*a, w, k);
      checkpoint_writer writer;
      writer.add("w", *a);
      writer.write(folder / "c");

      auto b = make_named(exec, name, options, shape);
      auto v = copy_of(read(w));
      checkpoint_reader file{folder / "c"};
      file.verify("w", *b);
      file.load("w", *b);
      file.require_all_read();
      REQUIRE(differences(saved(*a), saved(*b)) == "");
      for (index_t k = saved_at; k < saved_at + 6; ++k) {
        CHECK(a->refresh_due() == b->refresh_due());
        step(*a, w, k);
        step(*b, v, k);
        REQUIRE(same_bits(w, v));
        REQUIRE(differences(saved(*a), saved(*b)) == "");
        CHECK(a->rank() == b->rank());
      }
    }
}

TEST_CASE("a state of another choice is refused, naming what does not fit, and nothing is written") {
  temporary_folder const folder;
  host_executor exec{{.threads = 1, .scratch_bytes = 1 << 20}};
  auto const refused = [&](std::string const& from, std::string const& to, std::uint32_t other_tensor = 1) {
    auto a = make_named(exec, "galore_adamw", from, shape);
    auto w = random_matrix(shape, 1);
    a->step(exec, fp32_weight<>{w.view()}, read(gradient_of_step(shape, 0)), {});
    checkpoint_writer writer;
    writer.add("w", *a);
    writer.write(folder / "c");
    auto b = make_named(exec, "galore_adamw", to, shape, other_tensor);
    auto const before = saved(*b);
    checkpoint_reader file{folder / "c"};
    auto const text = refusal<error>([&] {
      file.verify("w", *b);
      file.load("w", *b);
      file.require_all_read();
    });
    if (!text.empty()) CHECK(differences(saved(*b), before) == "");
    return text;
  };
  CHECK(refused("rank=6, finder=tracked", "rank=6, finder=tracked") == "");
  for (auto const& [from, to, part] :
       std::vector<std::array<std::string, 3>>{{"rank=6, finder=warm", "rank=6, finder=tracked", "finder."},
                                               {"rank=6, finder=tracked", "rank=6", "finder."},
                                               {"rank=6", "rank=6, finder=warm", "finder."},
                                               {"rank=6, finder=tracked", "rank=5, finder=tracked", "rank"},
                                               {"rank=6, refresh=lazy", "rank=6, refresh=energy", "refresh."},
                                               {"rank=6, refresh=energy", "rank=6", "refresh."},
                                               {"rank=6, refresh=budget, share=0.5, tokens=8",
                                                "rank=6, refresh=budget, share=0.01, tokens=8", "refresh.p"}}) {
    CAPTURE(from);
    CAPTURE(to);
    auto const text = refused(from, to);
    CAPTURE(text);
    CHECK(text.find(part) != std::string::npos);
  }
  CHECK(refused("rank=6, refresh=staggered", "rank=6, refresh=staggered", 2) != "");
}

TEST_SUITE_END();

}  // namespace

}  // namespace resume_test
