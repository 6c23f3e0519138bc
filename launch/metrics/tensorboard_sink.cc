#include "launch/metrics/tensorboard_sink.h"

#include <bit>
#include <chrono>
#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "core/base/crc32c.h"
#include "core/base/status.h"

namespace strata {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr char kPrefix[] = "events.out.tfevents.";

template <typename T>
void Put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

// Protocol Buffers' wire format: a key is field << 3 | type, with type 0 varint, 1 eight bytes, 2 counted bytes, 5 four
// bytes.
void PutVarint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}
void PutBytes(std::string& out, int field, std::string_view bytes) {
  PutVarint(out, field << 3 | 2);
  PutVarint(out, bytes.size());
  out.append(bytes);
}
void PutInt(std::string& out, int field, int64_t value) {
  PutVarint(out, field << 3);
  PutVarint(out, static_cast<uint64_t>(value));
}
void PutDouble(std::string& out, int field, double value) {
  PutVarint(out, field << 3 | 1);
  Put(out, value);
}
void PutFloat(std::string& out, int field, float value) {
  PutVarint(out, field << 3 | 5);
  Put(out, value);
}

double WallTime() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

uint32_t MaskedCrc(std::string_view bytes) {
  const uint32_t crc = Crc32c(std::as_bytes(std::span(bytes)));
  return std::rotr(crc, 15) + 0xa282ead8u;
}

std::string Event(int64_t step) {
  std::string event;
  PutDouble(event, 1, WallTime());
  if (step != 0) PutInt(event, 2, step);
  return event;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TensorboardSink>> TensorboardSink::Open(Env& env, const std::string& folder,
                                                                       int64_t resumed_step) {
  RETURN_IF_ERROR(env.MakeDirs(folder));
  if (resumed_step == 0) {
    ASSIGN_OR_RETURN(const std::vector<std::string> names, env.List(folder));
    for (const std::string& name : names) {
      if (absl::StartsWith(name, kPrefix)) RETURN_IF_ERROR(env.RemoveAll(folder + "/" + name));
    }
  }
  const auto path = [&](int64_t time) { return absl::StrFormat("%s/%s%010d.strata", folder, kPrefix, time); };
  auto time = static_cast<int64_t>(WallTime());  // TensorBoard reads files in the order of their names
  while (env.Exists(path(time))) ++time;
  ASSIGN_OR_RETURN(auto file, env.OpenWritable(path(time), Env::Open::kTruncate));
  std::unique_ptr<TensorboardSink> sink(new TensorboardSink(std::move(file)));
  std::string version = Event(0);
  PutBytes(version, 3, "brain.Event:2");
  RETURN_IF_ERROR(sink->AppendRecord(version));
  if (resumed_step == 0) return sink;
  std::string start = Event(resumed_step + 1), session;
  PutInt(session, 1, 1);
  PutBytes(start, 7, session);
  RETURN_IF_ERROR(sink->AppendRecord(start));
  return sink;
}

absl::Status TensorboardSink::Write(std::span<const Metric> metrics) {
  std::string summary;
  int64_t step = 0;
  for (const Metric& m : metrics) {
    const auto* integer = std::get_if<int64_t>(&m.value);
    const auto* real = std::get_if<double>(&m.value);
    if (m.name == "step" && integer != nullptr) {
      step = *integer;
    } else if (integer != nullptr || real != nullptr) {
      std::string value;
      PutBytes(value, 1, m.name);
      PutFloat(value, 2, static_cast<float>(real != nullptr ? *real : static_cast<double>(*integer)));
      PutBytes(summary, 1, value);
    }
  }
  std::string event = Event(step);
  PutBytes(event, 5, summary);
  return AppendRecord(event);
}

absl::Status TensorboardSink::AppendRecord(std::string_view event) {
  std::string record;
  Put(record, uint64_t{event.size()});
  Put(record, MaskedCrc(record));
  record.append(event);
  Put(record, MaskedCrc(event));
  return file_->Append(std::as_bytes(std::span(record)));
}

}  // namespace strata
