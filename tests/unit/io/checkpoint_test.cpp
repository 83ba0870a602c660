#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "lowrank/io/checkpoint.hpp"
#include "temporary_folder.hpp"

namespace checkpoint_test {

namespace {

using namespace lowrank;

enum class method : std::uint8_t { first = 1, second = 2 };

struct part {
  float mean{};
  buffer<float> values{5};

  template <class F>
  friend void visit_state(part& p, F&& f) {
    f("mean", p.mean);
    f("values", p.values);
  }
};
struct state {
  explicit state(index_t asked_rows = 3) : rows{asked_rows} {}

  index_t rows;
  method kind{method::first};
  float sharpness{0.5F};
  std::int64_t step{};
  double loss{};
  bool stopped{};
  std::uint64_t seed{};
  std::array<double, 2> window{};
  buffer<bf16> basis{6};
  buffer<std::int8_t> codes{7};
  buffer<std::int64_t> empty;
  matrix<double> gram{2, 3};
  part inner;

  template <class F>
  friend void visit_state(state& s, F const& f) {
    f("rows", identity(s.rows));
    f("kind", identity(s.kind));
    f("sharpness", identity(s.sharpness));
    f("step", s.step);
    f("loss", s.loss);
    f("stopped", s.stopped);
    f("seed", s.seed);
    f("window", s.window);
    f("basis", s.basis);
    f("codes", s.codes);
    f("empty", s.empty);
    f("gram", s.gram);
    visit_state(s.inner, prefixed(f, "inner."));
  }
};
static_assert(visitable<state>);

state eventful() {
  state s;
  s.step = -(1LL << 40);
  s.loss = 0.1;
  s.stopped = true;
  s.seed = ~0ULL;
  s.window = {std::bit_cast<double>(0x7FF8000000000123ULL), -0.0};  // a NaN with a payload
  for (index_t i = 0; i < 6; ++i) s.basis.data()[i] = to_bf16(static_cast<float>(i) - 2.5F);
  for (index_t i = 0; i < 7; ++i) s.codes.data()[i] = static_cast<std::int8_t>(-3 * i);
  s.gram(1, 2) = 5e-324;
  s.inner.mean = std::bit_cast<float>(1U);
  std::iota(s.inner.values.data(), s.inner.values.data() + 5, 0.1F);
  return s;
}
state nan_filled() {
  state s;
  for (double& x : s.window) x = std::numeric_limits<double>::quiet_NaN();
  for (float& x : s.inner.values.span()) x = 77;
  s.step = 99;
  return s;
}
state copy_of(state const& s) {
  state copy;
  std::vector<std::vector<std::byte>> kept;
  read_state(s, [&](std::string_view, auto const& value) {
    auto const bytes = bytes_behind(value);
    kept.emplace_back(bytes.begin(), bytes.end());
  });
  std::size_t next = 0;
  visit_state(copy, [&]<class V>(std::string_view, V&& value) {
    auto& plain = detail::without_identity(value);
    std::ranges::copy(kept[next++], bytes_behind(plain).begin());
  });
  return copy;
}
bool contains_text(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

// Writes the file again with a right checksum after its tensors or metadata were changed.
void forge(std::filesystem::path const& path, std::vector<tensor_info> tensors, file_metadata metadata,
           std::string const& data) {
  auto sum = detail::checksum_of_header(metadata, tensors);
  sum.add(std::as_bytes(std::span{data}));
  if (metadata.contains("checksum")) metadata["checksum"] = detail::checksum_text(sum.value());
  write_content(path, file_of(detail::format_header(tensors, metadata, "test"), data));
}
file_metadata const first_version{{"checksum", ""}, {"format", "lowrank-checkpoint"}, {"format_version", "1"}};

TEST_SUITE_BEGIN("checkpoint");

TEST_CASE("a state comes back bit for bit") {
  temporary_folder const folder;
  auto const saved = eventful();
  checkpoint_writer writer;
  writer.add("layer.0", saved);
  writer.write(folder / "c");

  checkpoint_reader file{folder / "c"};
  CHECK(file.format_version() == 1);
  CHECK(file.tensors().size() == 14);
  CHECK(file.contains("layer.0.inner.mean"));
  auto loaded = nan_filled();
  CHECK_FALSE(states_equal(saved, loaded));
  file.verify("layer.0", loaded);
  file.load("layer.0", loaded);
  CHECK(states_equal(saved, loaded));
  file.require_all_read();
}

TEST_CASE("tensors of strangers' memory, with any strides, scalars and text") {
  temporary_folder const folder;
  std::vector<float> const values{1, 2, 3, 4, 5, 6};
  auto const view = row_major(values.data(), {2, 3});
  std::vector<float> large(70'000);
  std::iota(large.begin(), large.end(), 0.0F);
  auto const tall = row_major(large.data(), {35'000, 2});

  checkpoint_writer writer;
  writer.add_tensor("vector", std::span{values});
  writer.add_tensor("matrix", view);
  writer.add_tensor("flipped", view.t());
  writer.add_tensor("column", tall.col_range(1, 2));
  writer.add_tensor("flipped_tall", tall.t());
  writer.add_scalar("count", std::uint16_t{7});
  writer.add_scalar("which", method::second);
  writer.add_metadata("options", R"({"rank": 4})");
  auto moved = std::move(writer);  // what scalars refer to moves along
  moved.write(folder / "c");

  checkpoint_reader file{folder / "c"};
  CHECK(file.metadata().at("options") == R"({"rank": 4})");
  safetensors_reader const plain{folder / "c"};
  CHECK(plain.read_matrix("flipped")(2, 1) == 6);
  CHECK(plain.read_matrix("flipped")(0, 1) == 4);

  matrix<float> turned{2, 3}, column{35'000, 1}, tall_turned{35'000, 2};
  file.read("flipped", turned.view().t());
  CHECK(turned(0, 1) == 2);
  CHECK(turned(1, 0) == 4);
  file.read("column", column.view());
  CHECK(column(0, 0) == 1);
  CHECK(column(34'999, 0) == 69'999);
  file.read("flipped_tall", tall_turned.view().t());
  CHECK(std::ranges::equal(std::span{tall_turned.data(), 70'000}, large));
  std::array<float, 6> vector{};
  file.read("vector", std::span{vector});
  CHECK(vector[5] == 6);
  CHECK(file.read_scalar<std::uint16_t>("count") == 7);
  CHECK(file.read_scalar<method>("which") == method::second);

  CHECK(contains_text(message_of<io_error>([&] { file.require_all_read(); }), "nothing here knows: \"matrix\""));
  matrix<float> again{2, 3};
  file.read("matrix", again.view());
  file.require_all_read();

  CHECK(contains_text(message_of<io_error>([&] { (void)file.read_scalar<int>("count"); }),
                      "\"count\" must be I32 [], the file has U16 []"));
  CHECK(contains_text(message_of<io_error>([&] { (void)file.read_scalar<int>("no"); }), "there is no tensor \"no\""));
  CHECK(contains_text(message_of<io_error>([&] { file.read("vector", std::span{vector}.first(5)); }),
                      "\"vector\" must be F32 [5], the file has F32 [6]"));
}

TEST_CASE("names that cannot be are refused") {
  temporary_folder const folder;
  checkpoint_writer writer;
  writer.add_scalar("a", 1);
  writer.add_scalar("a", 2);
  CHECK(contains_text(message_of<argument_error>([&] { writer.write(folder / "c"); }), "two tensors are called \"a\""));
  CHECK(contains_text(message_of<argument_error>([&] { writer.add_metadata("checksum", ""); }), "must not be called"));
  writer.add_metadata("k", "");
  CHECK_THROWS_AS(writer.add_metadata("k", ""), argument_error);
  CHECK(folder.entries() == 0);
}

TEST_CASE("every flipped bit of a checkpoint is noticed") {
  temporary_folder const folder;
  part const saved;
  checkpoint_writer writer;
  writer.add("p", saved);
  writer.write(folder / "c");
  auto const good = content_of(folder / "c");
  for (std::size_t at = 0; at < good.size(); ++at)
    for (int bit = 0; bit < 8; ++bit) {
      auto damaged = good;
      damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
      write_content(folder / "d", damaged);
      CAPTURE(at);
      CHECK_FALSE(message_of<io_error>([&] { checkpoint_reader{folder / "d"}; }).empty());
    }
  auto damaged = good;
  damaged.back() = static_cast<char>(damaged.back() ^ 1);
  write_content(folder / "d", damaged);
  auto const said = message_of<io_error>([&] { checkpoint_reader{folder / "d"}; });
  CHECK(contains_text(said, "the file is damaged"));
  CHECK(contains_text(said, (folder / "d").string()));
}

TEST_CASE("format and version are checked by name") {
  temporary_folder const folder;
  auto const refusal = [&](file_metadata const& metadata) {
    forge(folder / "f", {}, metadata, "");
    return message_of<io_error>([&] { checkpoint_reader{folder / "f"}; });
  };
  auto const with = [](std::string const& key, std::string const& value) {
    auto metadata = first_version;
    metadata[key] = value;
    return metadata;
  };
  CHECK(refusal(first_version).empty());
  CHECK(contains_text(refusal(with("format_version", "2")), "format version 2, this library reads up to 1"));
  CHECK(contains_text(refusal(with("format_version", "999999999999")), "format version 999999999999"));
  CHECK(contains_text(refusal(with("format_version", "0")), "format version 0 does not exist"));
  for (auto const* const text : {"", "-1", "1.0", " 1", "one", "99999999999999999999"})
    CHECK(contains_text(refusal(with("format_version", text)), "format_version must be a number, got"));
  CHECK(contains_text(refusal(with("format", "pt")), "its metadata says \"pt\""));
  CHECK(contains_text(refusal({}), "must be a checkpoint of format"));
  CHECK(
      contains_text(refusal({{"format", "lowrank-checkpoint"}, {"format_version", "1"}}), "checksum must be \"none\""));
}

// Made by a program that shares no code with this library (Python, packages struct and xxhash). It must stay readable
// by every later version.
TEST_CASE("a file of format version 1 is read") {
  temporary_folder const folder;
  std::string const header =
      R"({"__metadata__":{"format":"lowrank-checkpoint","format_version":"1","note":"made elsewhere",)"
      R"("checksum":"xxh64:fee0548176da2348"},"s.step":{"dtype":"I64","shape":[],"data_offsets":[0,8]},)"
      R"("s.moment":{"dtype":"F32","shape":[3],"data_offsets":[8,20]},"s.kind":{"dtype":"U8","shape":[],)"
      R"("data_offsets":[20,21]}})";
  std::array<float, 3> const moment{1, -2.5F, 1e-30F};
  std::string data{"\7\0\0\0\0\0\0\0", 8};
  data.append(reinterpret_cast<char const*>(moment.data()), 12).append("\2");
  write_content(folder / "c", file_of(header, data));

  struct old_state {
    std::int64_t step{};
    method kind{method::second};
    buffer<float> moment{3};
  };
  old_state s;
  checkpoint_reader file{folder / "c"};
  CHECK(file.format_version() == 1);
  CHECK(file.read_scalar<std::int64_t>("s.step") == 7);
  CHECK(file.read_scalar<method>("s.kind") == method::second);
  file.read("s.moment", s.moment.span());
  CHECK(s.moment.data()[2] == 1e-30F);
}

TEST_CASE("a state that does not fit is refused by name, and nothing of it is written") {
  temporary_folder const folder;
  auto const saved = eventful();
  checkpoint_writer writer;
  writer.add("s", saved);
  writer.add_scalar("s2.other", 1);  // begins like s, but is not below it
  writer.write(folder / "c");
  checkpoint_reader file{folder / "c"};
  auto const before = nan_filled();
  auto const refusal = [&](checkpoint_reader& reader, state& s) {
    auto const old = copy_of(s);
    auto const said = message_of<io_error>([&] { reader.load("s", s); });
    CHECK(states_equal(old, s));
    CHECK(said == message_of<io_error>([&] { reader.verify("s", s); }));
    return said;
  };

  SUBCASE("other identity") {
    auto s = nan_filled();
    s.rows = 5;
    CHECK(contains_text(refusal(file, s), "\"s.rows\" is 3 in the file and 5 here"));
    s.rows = 3;
    s.kind = method::second;
    CHECK(contains_text(refusal(file, s), "\"s.kind\" is 1 in the file and 2 here"));
    s.kind = method::first;
    s.sharpness = std::nextafter(0.5F, 1.0F);
    CHECK(contains_text(refusal(file, s), "\"s.sharpness\" is 0.5 in the file and 0.50000006 here"));
    s.sharpness = 0.5F;
    file.load("s", s);
    CHECK(states_equal(saved, s));
  }
  SUBCASE("other size") {
    auto s = nan_filled();
    s.inner.values = buffer<float>{6};
    CHECK(contains_text(message_of<io_error>([&] { file.load("s", s); }),
                        "\"s.inner.values\" must be F32 [6], the file has F32 [5]"));
    CHECK(s.step == 99);
    s.inner.values = buffer<float>{5};
    s.gram = matrix<double>{3, 2};
    CHECK(
        contains_text(message_of<io_error>([&] { file.load("s", s); }), "must be F64 [3, 2], the file has F64 [2, 3]"));
    CHECK(s.step == 99);
  }
  SUBCASE("missing and extra tensors") {
    part p;
    p.mean = 4;
    auto const extra = message_of<io_error>([&] { file.load("s", p); });
    CHECK(contains_text(extra, "needs tensors that the file does not have: \"s.mean\", \"s.values\""));
    CHECK(contains_text(message_of<io_error>([&] { file.load("nothing", p); }), "\"nothing.mean\""));
    CHECK(p.mean == 4);
    checkpoint_writer more;
    more.add("s", saved);
    more.add_scalar("s.surprise", 1);
    more.add("p", p);
    more.write(folder / "more");
    checkpoint_reader longer{folder / "more"};
    auto s = copy_of(before);
    CHECK(contains_text(refusal(longer, s), "tensors that the state does not know: \"s.surprise\""));
    longer.load("p", p);
  }
  SUBCASE("a flag that is neither 0 nor 1") {
    safetensors_reader const plain{folder / "c"};
    std::vector<tensor_info> const tensors(plain.tensors().begin(), plain.tensors().end());
    auto content = content_of(folder / "c");
    std::string data(content.end() - tensors.back().end, content.end());
    REQUIRE(data[static_cast<std::size_t>(plain.at("s.stopped").begin)] == 1);
    data[static_cast<std::size_t>(plain.at("s.stopped").begin)] = 2;
    forge(folder / "f", tensors, plain.metadata(), data);
    checkpoint_reader forged{folder / "f"};
    auto s = copy_of(before);
    CHECK(contains_text(refusal(forged, s), "\"s.stopped\" must hold 0 or 1, got 2"));
    CHECK_THROWS_AS((void)forged.read_scalar<bool>("s.stopped"), io_error);
  }
}

TEST_CASE("a process that dies while it writes leaves the old checkpoint whole") {
  temporary_folder const folder;
  auto const saved = eventful();
  checkpoint_writer writer;
  writer.add("s", saved);
  writer.write(folder / "c");
  std::vector<float> const values(1 << 20, 1.0F);
  auto const child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    safetensors_writer half{folder / "c", {{"v", dtype::f32, {1 << 20}}}};
    half.append("v", std::as_bytes(std::span{values}).first(1 << 21));
    ::_exit(0);  // as a kill would: no destructor runs
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(folder.entries() == 2);  // with what the dead process left
  auto loaded = nan_filled();
  checkpoint_reader{folder / "c"}.load("s", loaded);
  CHECK(states_equal(saved, loaded));
  writer.write(folder / "c");  // and the rest does not disturb the next
  checkpoint_reader{folder / "c"};
}

TEST_SUITE_END();

}  // namespace

}  // namespace checkpoint_test
