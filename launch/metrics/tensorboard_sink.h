#pragma once
// Scalars as TensorBoard event files: TFRecord frames (tensorflow/core/lib/io/record_writer.h) that each hold an Event
// (tensorflow/core/util/event.proto), encoded here by hand.
//   frame    u64 length, u32 masked CRC32C of those 8 bytes, the bytes, u32 masked CRC32C of them; little-endian
//   masked   (crc >> 15 | crc << 17) + 0xa282ead8
//   Event    1: wall_time double, 2: step int64, 3: file_version "brain.Event:2" | 5: Summary | 7: SessionLog
//   Summary  1: Value {1: tag, 2: simple_value float};  SessionLog  1: status, START = 1

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "core/base/env.h"
#include "launch/metrics/log_sink.h"

namespace strata {

class TensorboardSink final : public LogSink {
 public:
  // A new file in `folder`, which is made if it is not there. A resumed run says so in it, by which TensorBoard forgets
  // what older files say of the steps that are repeated; a new run (resumed_step = 0) removes the older files.
  static absl::StatusOr<std::unique_ptr<TensorboardSink>> Open(Env& env, const std::string& folder,
                                                               int64_t resumed_step);

  absl::Status Write(std::span<const Metric> metrics) override;  // numbers, by name; text is left out
  absl::Status Close() override { return file_->Close(); }

 private:
  explicit TensorboardSink(std::unique_ptr<WritableFile> file) : file_(std::move(file)) {}
  absl::Status AppendRecord(std::string_view event);

  std::unique_ptr<WritableFile> file_;
};

}  // namespace strata
