#include "launch/job/gather.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/status.h"

namespace strata {

absl::Status AllMax(Communicator& comm, std::span<int64_t> values) {
  const Collective call{.kind = Collective::kAllReduce,
                        .reduce = ReduceOp::kMax,
                        .dtype = DType::kI64,
                        .count = std::ssize(values),
                        .in = values.data(),
                        .out = values.data()};
  return comm.Issue({&call, 1}, Stream{});
}

absl::StatusOr<int64_t> AllMax(Communicator& comm, int64_t mine) {
  RETURN_IF_ERROR(AllMax(comm, std::span(&mine, 1)));
  return mine;
}

absl::StatusOr<std::vector<std::string>> AllGatherText(Communicator& comm, const std::string& mine) {
  const size_t n = comm.spec().ranks.size();
  std::vector<int64_t> sizes(n);
  const int64_t size = static_cast<int64_t>(mine.size());
  const Collective gather_sizes{
      .kind = Collective::kAllGather, .dtype = DType::kI64, .count = 1, .in = &size, .out = sizes.data()};
  RETURN_IF_ERROR(comm.Issue({&gather_sizes, 1}, Stream{}));
  const int64_t width = std::max<int64_t>(1, *std::max_element(sizes.begin(), sizes.end()));
  std::string padded = mine, all(n * width, '\0');
  padded.resize(width);
  const Collective gather{
      .kind = Collective::kAllGather, .dtype = DType::kU8, .count = width, .in = padded.data(), .out = all.data()};
  RETURN_IF_ERROR(comm.Issue({&gather, 1}, Stream{}));
  std::vector<std::string> texts;
  for (size_t i = 0; i < n; ++i) texts.push_back(all.substr(i * width, sizes[i]));
  return texts;
}

absl::StatusOr<std::string> BroadcastText(Communicator& comm, const std::string& text) {
  ASSIGN_OR_RETURN(std::vector<std::string> texts, AllGatherText(comm, text));
  return std::move(texts[0]);
}

absl::Status AgreeOn(Communicator& comm, const absl::Status& mine) {
  const std::string text =
      mine.ok() ? "" : absl::StrFormat("%c%s", 'A' + static_cast<int>(mine.code()), std::string(mine.message()));
  ASSIGN_OR_RETURN(const std::vector<std::string> texts, AllGatherText(comm, text));
  for (size_t i = 0; i < texts.size(); ++i) {
    if (texts[i].empty()) continue;
    return absl::Status(static_cast<absl::StatusCode>(texts[i][0] - 'A'),
                        absl::StrFormat("rank %d: %s", comm.spec().ranks[i], texts[i].substr(1)));
  }
  return absl::OkStatus();
}

}  // namespace strata
