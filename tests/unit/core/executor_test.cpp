#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "lowrank/core/executor.hpp"

namespace executor_test {

namespace {

using namespace lowrank;

std::string refusal(host_options options) {
  try {
    host_executor const exec{options};
  } catch (error const& e) { return e.what(); }
  return "";
}

TEST_SUITE_BEGIN("threads");

TEST_CASE("parallel runs every task exactly once, whatever the number of threads") {
  for (int const threads : {1, 2, 3, 8}) {
    host_executor exec{{.threads = threads, .worker_bytes = 64}};
    CHECK(exec.threads() == threads);
    for (index_t const count : {0, 1, 2, 7, 64, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<std::size_t>(count));
      exec.parallel(count, [&](index_t task) { runs[static_cast<std::size_t>(task)].fetch_add(1); });
      CHECK(std::ranges::all_of(runs, [](auto const& n) { return n.load() == 1; }));
    }
  }
}

TEST_CASE("what tasks wrote is there when parallel returns, without any other synchronisation") {
  host_executor exec{{.threads = 4, .worker_bytes = 64}};
  std::vector<int> values(257);
  for (int round = 1; round <= 200; ++round) {
    exec.parallel(257, [&](index_t task) { values[static_cast<std::size_t>(task)] += static_cast<int>(task) * round; });
    int const sum = std::accumulate(values.begin(), values.end(), 0);
    REQUIRE(sum == 256 * 257 / 2 * (round * (round + 1) / 2));
  }
}

TEST_CASE("a worker's number is its own while a task runs, and so is its memory") {
  for (int const threads : {1, 2, 3, 8}) {
    host_executor exec{{.threads = threads, .worker_bytes = 100}};
    CHECK(exec.worker_bytes() == 128);
    std::vector<std::atomic<int>> inside(static_cast<std::size_t>(threads));
    std::atomic<int> clashes{}, foreign{};
    exec.parallel(500, [&](index_t task, int worker) {
      if (worker < 0 || worker >= threads) {
        ++foreign;
        return;
      }
      auto& here = inside[static_cast<std::size_t>(worker)];
      clashes += here.fetch_add(1) != 0 ? 1 : 0;
      auto* const memory = exec.worker_memory(worker);
      std::fill_n(memory, exec.worker_bytes(), static_cast<std::byte>(task));
      std::this_thread::yield();
      clashes += static_cast<int>(std::count_if(memory, memory + exec.worker_bytes(),
                                                [task](std::byte b) { return b != static_cast<std::byte>(task); }));
      here.fetch_sub(1);
    });
    CHECK(foreign.load() == 0);
    CHECK(clashes.load() == 0);
    for (int worker = 0; worker < threads; ++worker)
      CHECK(reinterpret_cast<std::uintptr_t>(exec.worker_memory(worker)) % 64 == 0);
  }
}

TEST_CASE("parallel inside parallel runs every task once and returns") {
  for (int const threads : {1, 2, 3, 8}) {
    host_executor exec{{.threads = threads, .worker_bytes = 64}};
    std::vector<std::atomic<int>> runs(20 * 30);
    exec.parallel(20, [&](index_t outer) {
      exec.parallel(30, [&](index_t inner) { runs[static_cast<std::size_t>(outer * 30 + inner)].fetch_add(1); });
    });
    CHECK(std::ranges::all_of(runs, [](auto const& n) { return n.load() == 1; }));
  }
}

TEST_CASE("workers inside a nested region keep their own number, hence their own memory") {
  host_executor exec{{.threads = 4, .worker_bytes = 64}};
  std::atomic<int> begun{}, strangers{};
  exec.parallel(4, [&](index_t, int outer) {
    ++begun;
    while (begun.load() < 4) std::this_thread::yield();  // so every worker has one of the four tasks
    exec.parallel(3, [&](index_t, int inner) { strangers += inner != outer ? 1 : 0; });
  });
  CHECK(strangers.load() == 0);
}

TEST_CASE("many small regions, one after the other") {
  host_executor exec{{.threads = 3, .worker_bytes = 64}};
  std::vector<int> counts(5);
  for (int round = 0; round < 20'000; ++round)
    exec.parallel(1 + round % 5, [&](index_t task) { ++counts[static_cast<std::size_t>(task)]; });
  CHECK(counts == std::vector<int>{20'000, 16'000, 12'000, 8'000, 4'000});
}

TEST_CASE("executors come and go, used or not") {
  for (int round = 0; round < 50; ++round) {
    host_executor exec{{.threads = 1 + round % 8, .worker_bytes = 64}};
    if (round % 2 == 0) exec.parallel(3, [](index_t) {});
  }
}

TEST_CASE("two executors run at once from two threads") {
  auto const work = [](int threads, std::vector<double>& results) {
    host_executor exec{{.threads = threads, .scratch_bytes = 4096, .worker_bytes = 64}};
    for (int round = 0; round < 300; ++round) {
      scratch_scope const scope{exec};
      auto* const parts = exec.arena().take<double>(64);
      exec.parallel(64, [&](index_t task) { parts[task] = 1.0 / static_cast<double>(task + round + 1); });
      results.push_back(std::accumulate(parts, parts + 64, 0.0));
    }
  };
  std::vector<double> here, there, alone;
  std::thread other{[&] { work(3, there); }};
  work(2, here);
  other.join();
  work(1, alone);
  CHECK(here == alone);
  CHECK(there == alone);
}

TEST_CASE("an executor may change threads between calls") {
  host_executor exec{{.threads = 2, .worker_bytes = 64}};
  std::vector<int> runs(100);
  for (int round = 0; round < 20; ++round)
    std::thread{[&] { exec.parallel(100, [&](index_t task) { ++runs[static_cast<std::size_t>(task)]; }); }}.join();
  CHECK(std::ranges::all_of(runs, [](int n) { return n == 20; }));
}

TEST_SUITE_END();

TEST_SUITE_BEGIN("executor");

TEST_CASE("options that cannot be are refused with their value") {
  CHECK(refusal({.threads = -1}) == "lowrank::host_executor: threads must be in [0, 4096], got -1");
  CHECK(refusal({.threads = 4097}).find("got 4097") != std::string::npos);
  CHECK(refusal({.threads = 1, .scratch_bytes = -1}) ==
        "lowrank::scratch::reserve: bytes must not be negative, got -1");
  CHECK_FALSE(refusal({.threads = 1, .worker_bytes = -1000}).empty());
  CHECK(host_executor{{.threads = 0, .worker_bytes = 64}}.threads() >= 1);
}

TEST_CASE("what it holds is counted") {
  host_executor exec{{.threads = 3, .scratch_bytes = 1000, .worker_bytes = 64}};
  CHECK(exec.bytes() == 1000 + 3 * 64);
  exec.reserve(2000);
  CHECK(exec.arena().reserved() == 2000);
  CHECK(exec.bytes() == 2000 + 3 * 64);
}

TEST_CASE("single runs once; peek knows host values") {
  host_executor exec{{.threads = 2, .worker_bytes = 64}};
  int runs = 0;
  exec.single([&] { ++runs; });
  CHECK(runs == 1);
  float const x = 2.5F;
  CHECK(exec.peek(&x) == 2.5F);
}

TEST_SUITE_END();

}  // namespace

}  // namespace executor_test
