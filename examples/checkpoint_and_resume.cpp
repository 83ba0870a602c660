// A training run that is killed in the middle of an interval between two refreshes goes on from its checkpoint exactly as
// if nothing had happened: every bit of the weights and of the state, also with another number of threads. A damaged
// file, and one of another optimizer, are refused and change nothing.
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <utility>
#include <vector>

#include "lowrank/interop/raw.hpp"
#include "lowrank/io/checkpoint.hpp"
#include "lowrank/lowrank.hpp"

using namespace lowrank;

namespace {

constexpr index_t rows = 96, cols = 64, killed_at = 27, steps = 60;

/// Everything that a run is: weights, optimizer state, and where it stands.
struct run {
  host_executor exec;
  galore_adamw optimizer;
  std::vector<float> weights = std::vector<float>(rows * cols), gradients = std::vector<float>(rows * cols);
  matrix_view<float> w = raw::row_major(weights.data(), rows, cols);
  matrix_view<float const> g = raw::row_major(std::as_const(gradients).data(), rows, cols);
  galore_adamw::state<host_space> state;
  index_t step{0};

  run(int threads, index_t rank)
      : exec{{.threads = threads}},
        optimizer{.rank = rank, .seed = 5, .refresh = {10}},
        state{optimizer.init(exec, w.shape(), 0)} {
    exec.reserve(optimizer.workspace_bytes(fp32_weight<>{w}));
  }
  /// The gradient of ‖W - target‖² / 2, with noise that depends on the step, as that of a batch does.
  void train_until(index_t end) {
    rng_key const target{.seed = 1, .purpose = rng_purpose::data};
    for (; step < end; ++step) {
      rng_key const noise{.seed = 2, .step = static_cast<std::uint32_t>(step), .purpose = rng_purpose::data};
      for (std::size_t i = 0; i < weights.size(); ++i)
        gradients[i] = weights[i] - gaussian(target, i % 67) + gaussian(noise, i);
      optimizer.step(exec, state, w, g, {.learning_rate = 0.02F, .weight_decay = 0.01F});
    }
  }
  void save(std::filesystem::path const& path) const {
    checkpoint_writer file;
    file.add_tensor("weights", w);
    file.add("optimizer", state);
    file.add_scalar("step", step);
    file.add_metadata("options", "galore_adamw, rank 16");
    file.write(path);
  }
  void load(std::filesystem::path const& path) {
    checkpoint_reader file{path};
    file.verify("optimizer", state);  // before anything is overwritten
    file.read("weights", w);
    file.load("optimizer", state);
    step = file.read_scalar<index_t>("step");
    file.require_all_read();
  }
  [[nodiscard]] bool equals(run const& other) const {
    bool const same_weights = std::memcmp(weights.data(), other.weights.data(), weights.size() * sizeof(float)) == 0;
    return step == other.step && same_weights && states_equal(state, other.state);
  }
};

int failures = 0;
void check(bool holds, char const* what) {
  std::printf("%s  %s\n", holds ? "ok   " : "WRONG", what);
  failures += holds ? 0 : 1;
}

/// Loading `path` into `target` throws io_error and leaves every bit of it alone.
bool refuses(run& target, run const& before, std::filesystem::path const& path) {
  try {
    target.load(path);
  } catch (io_error const& refusal) {
    std::printf("       %s\n", refusal.what());
    return target.equals(before);
  }
  return false;
}

}  // namespace

int main() {
  auto const folder = std::filesystem::temp_directory_path() / "lowrank_example_checkpoint";
  std::filesystem::create_directories(folder);
  auto const path = folder / "run.safetensors", damaged = folder / "damaged.safetensors";

  run undisturbed{2, 16}, killed{2, 16}, resumed{1, 16};
  undisturbed.train_until(steps);
  killed.train_until(killed_at);
  killed.save(path);
  resumed.load(path);
  check(resumed.equals(killed), "the checkpoint holds every bit, in the middle of an interval");
  resumed.train_until(steps);
  check(resumed.equals(undisturbed),
        "the resumed run ends where the undisturbed one does, bit for bit, on one thread less");

  // One bit of the last byte is flipped; then the last byte is missing.
  run fresh{2, 16}, same_as_fresh{2, 16}, other_rank{2, 8}, same_as_other{2, 8};
  std::filesystem::copy_file(path, damaged, std::filesystem::copy_options::overwrite_existing);
  std::fstream file{damaged, std::ios::in | std::ios::out | std::ios::binary};
  file.seekg(-1, std::ios::end);
  char const last = static_cast<char>(file.peek() ^ 1);
  file.seekp(-1, std::ios::end).put(last);
  file.close();
  check(refuses(fresh, same_as_fresh, damaged), "a flipped bit is noticed");
  std::filesystem::resize_file(damaged, std::filesystem::file_size(path) - 1);
  check(refuses(fresh, same_as_fresh, damaged), "so is a file that ends early");
  check(refuses(other_rank, same_as_other, path), "and a state of another rank is not overwritten");
  std::filesystem::remove_all(folder);
  return failures == 0 ? 0 : 1;
}
