#include "launch/metrics/sinks.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <optional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launch/metrics/jsonl_sink.h"
#include "launch/metrics/prometheus_sink.h"
#include "launch/metrics/tensorboard_sink.h"
#include "tests/launch/small_run.h"
#include "tests/testing/temp_dir.h"

namespace strata {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Text(const std::string& path) { return ReadText(Env::Posix(), path).value_or("cannot be read"); }

// JSON lines.

class JsonlTest : public ::testing::Test {
 protected:
  TempDir dir_;
  std::string path_ = dir_.path("metrics.jsonl");
};

TEST_F(JsonlTest, OneLineAStepAtOnceAndInOrder) {
  auto sink = JsonlSink::Open(Env::Posix(), path_, 0);
  ASSERT_TRUE(sink.ok()) << sink.status();
  ASSERT_TRUE((*sink)->Write(std::vector<Metric>{{"step", int64_t{1}}, {"loss", 7.5}, {"split", "train"}}).ok());
  EXPECT_EQ(Text(path_), "{\"step\":1,\"loss\":7.5,\"split\":\"train\"}\n");  // before Close
  ASSERT_TRUE((*sink)->Write(std::vector<Metric>{{"step", int64_t{2}}, {"loss", std::nan("")}}).ok());
  ASSERT_TRUE((*sink)->Close().ok());
  EXPECT_EQ(Text(path_), "{\"step\":1,\"loss\":7.5,\"split\":\"train\"}\n{\"step\":2,\"loss\":null}\n");
}

TEST_F(JsonlTest, ResumeKeepsEarlierStepsAndDropsRepeatedAndTornOnes) {
  const char kOld[] = "{\"step\":1}\n{\"step\":2}\nnot json\n{\"step\":3}\n{\"step\":4,\"lo";
  ASSERT_TRUE(WriteTextAtomically(Env::Posix(), path_, kOld).ok());
  auto sink = JsonlSink::Open(Env::Posix(), path_, 2);
  ASSERT_TRUE(sink.ok()) << sink.status();
  ASSERT_TRUE((*sink)->Write(std::vector<Metric>{{"step", int64_t{3}}, {"again", int64_t{1}}}).ok());
  EXPECT_EQ(Text(path_), "{\"step\":1}\n{\"step\":2}\n{\"step\":3,\"again\":1}\n");
}

TEST_F(JsonlTest, StartingAnewDropsTheOldFile) {
  ASSERT_TRUE(WriteTextAtomically(Env::Posix(), path_, "{\"step\":1}\n").ok());
  ASSERT_TRUE(JsonlSink::Open(Env::Posix(), path_, 0).ok());
  EXPECT_EQ(Text(path_), "");
}

TEST_F(JsonlTest, AMissingFolderIsAnError) {
  EXPECT_FALSE(JsonlSink::Open(Env::Posix(), dir_.path("none/m.jsonl"), 0).ok());
}

// TensorBoard, read back by a decoder of its own that shares no code with the writer.

uint32_t SlowCrc32c(std::string_view bytes) {  // bit by bit
  uint32_t crc = 0xffffffff;
  for (const char c : bytes) {
    crc ^= static_cast<uint8_t>(c);
    for (int i = 0; i < 8; ++i) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return ~crc;
}

uint64_t Fixed(std::string_view& text, size_t bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < bytes; ++i) value |= uint64_t{static_cast<uint8_t>(text[i])} << 8 * i;
  text.remove_prefix(bytes);
  return value;
}

uint64_t Varint(std::string_view& text) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<uint8_t>(text[0]);
    text.remove_prefix(1);
    value |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return value;
  }
}

struct Field {
  int number = 0;
  uint64_t bits = 0;       // of a number
  std::string_view bytes;  // of a message or text
};

std::vector<Field> Fields(std::string_view message) {
  std::vector<Field> fields;
  while (!message.empty()) {
    const uint64_t key = Varint(message);
    Field f{.number = static_cast<int>(key >> 3)};
    switch (key & 7) {
      case 0: f.bits = Varint(message); break;
      case 1: f.bits = Fixed(message, 8); break;
      case 2: {
        const size_t size = Varint(message);
        f.bytes = message.substr(0, size);
        message.remove_prefix(size);
        break;
      }
      case 5: f.bits = Fixed(message, 4); break;
      default: ADD_FAILURE() << "wire type " << (key & 7); return fields;
    }
    fields.push_back(f);
  }
  return fields;
}

struct DecodedEvent {
  double wall_time = 0;
  int64_t step = 0;
  std::string version;
  std::optional<int> session_status;
  std::map<std::string, float> scalars;
};

DecodedEvent DecodeEvent(std::string_view message) {
  DecodedEvent e;
  for (const Field& f : Fields(message)) {
    if (f.number == 1) e.wall_time = std::bit_cast<double>(f.bits);
    if (f.number == 2) e.step = static_cast<int64_t>(f.bits);
    if (f.number == 3) e.version = f.bytes;
    if (f.number == 7) e.session_status = static_cast<int>(Fields(f.bytes).at(0).bits);
    if (f.number != 5) continue;
    for (const Field& value : Fields(f.bytes)) {
      const std::vector<Field> parts = Fields(value.bytes);
      EXPECT_EQ(parts.at(0).number, 1);
      EXPECT_EQ(parts.at(1).number, 2);
      e.scalars[std::string(parts[0].bytes)] = std::bit_cast<float>(static_cast<uint32_t>(parts[1].bits));
    }
  }
  return e;
}

std::vector<DecodedEvent> ReadEvents(const std::string& path) {
  const std::string text = Text(path);
  std::string_view rest = text;
  std::vector<DecodedEvent> events;
  const auto unmask = [](uint64_t masked) {
    const auto rotated = static_cast<uint32_t>(masked) - 0xa282ead8u;
    return rotated << 15 | rotated >> 17;
  };
  while (!rest.empty()) {
    const std::string_view length_bytes = rest.substr(0, 8);
    const uint64_t length = Fixed(rest, 8);
    EXPECT_EQ(unmask(Fixed(rest, 4)), SlowCrc32c(length_bytes));
    const std::string_view message = rest.substr(0, length);
    rest.remove_prefix(length);
    EXPECT_EQ(unmask(Fixed(rest, 4)), SlowCrc32c(message));
    events.push_back(DecodeEvent(message));
  }
  return events;
}

class TensorboardTest : public ::testing::Test {
 protected:
  std::vector<std::string> Files() { return Env::Posix().List(dir_.path("tb")).value(); }
  std::unique_ptr<TensorboardSink> Open(int64_t resumed_step) {
    auto sink = TensorboardSink::Open(Env::Posix(), dir_.path("tb"), resumed_step);
    EXPECT_TRUE(sink.ok()) << sink.status();
    return *std::move(sink);
  }
  TempDir dir_;
};

TEST_F(TensorboardTest, EventsDecode) {
  const auto sink = Open(0);
  ASSERT_TRUE(sink->Write(std::vector<Metric>{
                              {"step", int64_t{300}}, {"loss", 2.5}, {"checkpoint", "dir"}, {"tokens", int64_t{4096}}})
                  .ok());
  ASSERT_TRUE(sink->Write(std::vector<Metric>{{"step", int64_t{301}}, {"loss", std::nan("")}}).ok());
  ASSERT_EQ(Files().size(), 1u);
  const std::string path = dir_.path("tb/" + Files()[0]);
  // How the files that TensorFlow writes begin: a frame of 24 bytes and the checksum of that length.
  EXPECT_EQ(Text(path).substr(0, 13), std::string("\x18\0\0\0\0\0\0\0\xa3\x7f\x4b\x22\x09", 13));
  const std::vector<DecodedEvent> events = ReadEvents(path);  // before Close
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0].version, "brain.Event:2");
  EXPECT_NEAR(events[0].wall_time, static_cast<double>(std::time(nullptr)), 60);
  EXPECT_EQ(events[1].step, 300);
  EXPECT_EQ(events[1].scalars, (std::map<std::string, float>{{"loss", 2.5f}, {"tokens", 4096.0f}}));
  EXPECT_EQ(events[2].step, 301);
  EXPECT_TRUE(std::isnan(events[2].scalars.at("loss")));
  EXPECT_TRUE(sink->Close().ok());
}

TEST_F(TensorboardTest, AResumedRunAddsAFileThatSaysSoAndANewRunRemovesThem) {
  Open(0);
  Open(10);
  const std::vector<std::string> files = Files();
  ASSERT_EQ(files.size(), 2u);
  EXPECT_LT(files[0], files[1]);
  const std::vector<DecodedEvent> events = ReadEvents(dir_.path("tb/" + files[1]));
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[1].step, 11);
  EXPECT_EQ(events[1].session_status, 1);
  ASSERT_TRUE(WriteTextAtomically(Env::Posix(), dir_.path("tb/mine.txt"), "kept").ok());
  Open(0);
  EXPECT_EQ(Files().size(), 2u);  // mine.txt and the new one
}

// Prometheus.

TEST(Prometheus, LatestValueOfEachMetric) {
  const TempDir dir;
  PrometheusSink sink(Env::Posix(), dir.path("metrics.prom"), "tiny");
  ASSERT_TRUE(sink.Write(std::vector<Metric>{{"step", int64_t{1}}, {"loss", 4.25}, {"checkpoint", "dir"}}).ok());
  ASSERT_TRUE(
      sink.Write(std::vector<Metric>{{"step", int64_t{2}}, {"lr", std::numeric_limits<double>::infinity()}}).ok());
  EXPECT_EQ(Text(dir.path("metrics.prom")),
            "# TYPE strata_loss gauge\nstrata_loss{run=\"tiny\"} 4.25\n"
            "# TYPE strata_lr gauge\nstrata_lr{run=\"tiny\"} +Inf\n"
            "# TYPE strata_step gauge\nstrata_step{run=\"tiny\"} 2\n");
  EXPECT_THAT(Env::Posix().List(dir.path()).value(), ElementsAre("metrics.prom"));
}

// A run.

TEST(Sinks, ARunWritesThoseOfItsConfig) {
  SmallRun run;
  const absl::Status trained =
      run.Train({"log.sinks=[\"tensorboard\", \"prometheus\", \"jsonl\"]", "schedule.steps=3"}, "never");
  ASSERT_TRUE(trained.ok()) << trained;
  const std::vector<std::string> files = Env::Posix().List(run.out() + "/tensorboard").value();
  ASSERT_EQ(files.size(), 1u);
  std::map<int64_t, float> losses;
  for (const DecodedEvent& e : ReadEvents(run.out() + "/tensorboard/" + files[0])) {
    if (e.scalars.contains("loss")) losses[e.step] = e.scalars.at("loss");
  }
  const std::vector<nlohmann::json> lines = run.Metrics("loss");
  ASSERT_EQ(lines.size(), 3u);
  for (const nlohmann::json& line : lines) EXPECT_EQ(losses.at(line["step"]), line["loss"].get<float>());
  EXPECT_THAT(Text(run.out() + "/metrics.prom"), HasSubstr("strata_step{run=\"run\"} 3\n"));
}

TEST(Sinks, NoneWritesNothing) {
  SmallRun run;
  ASSERT_TRUE(run.Train({"log.sinks=[]", "schedule.steps=2"}, "never").ok());
  EXPECT_THAT(Env::Posix().List(run.out()).value(), ElementsAre("checkpoints", "config.toml"));
}

}  // namespace
}  // namespace strata
