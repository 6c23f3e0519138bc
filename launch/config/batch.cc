#include "launch/config/batch.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "launch/config/job_config.h"

namespace strata {
namespace {

// The multiple of `unit` nearest to `value`, at least one unit.
int64_t NearestMultiple(int64_t unit, int64_t value) { return std::max<int64_t>(1, (value + unit / 2) / unit) * unit; }

// tokens / (known * dp * seq), where `known` is micro or accumulate; 0 and an issue if it does not divide.
int64_t DivideTokens(const JobConfig& job, KeyedInt known, ConfigChecks& c) {
  const int64_t unit = known.value * job.parallel.dp * job.model.seq;
  if (job.batch.tokens % unit == 0) return job.batch.tokens / unit;
  c.Add(ConfigErrorKind::kIndivisible, "batch.tokens", absl::StrCat(job.batch.tokens),
        absl::StrFormat("must be a multiple of %s * parallel.dp * model.seq = %d * %d * %d = %d", known.key,
                        known.value, job.parallel.dp, job.model.seq, unit),
        absl::StrCat(NearestMultiple(unit, job.batch.tokens)));
  return 0;
}

// Refuses sizes whose products would leave int64 or the int32 token indices of kernels. False if an issue was added.
bool CheckSizes(const JobConfig& job, ConfigChecks& c) {
  const BatchConfig& b = job.batch;
  if (b.micro * job.model.seq > std::numeric_limits<int32_t>::max()) {  // at most 2^32 * 2^24
    c.Add(ConfigErrorKind::kTooLarge, "batch.micro", absl::StrCat(b.micro),
          absl::StrFormat("a micro-batch of micro * model.seq = %d tokens, the most is 2^31 - 1",
                          b.micro * job.model.seq));
    return false;
  }
  const double sequences = static_cast<double>(std::max<int64_t>(b.micro, 1)) *
                           static_cast<double>(std::max<int64_t>(b.accumulate, 1)) *
                           static_cast<double>(job.parallel.dp);
  const double tokens = sequences * static_cast<double>(job.model.seq);
  if (tokens > static_cast<double>(kMaxBatchTokens)) {
    const bool by_micro = b.accumulate == 0;
    c.Add(ConfigErrorKind::kTooLarge, by_micro ? "batch.micro" : "batch.accumulate",
          absl::StrCat(by_micro ? b.micro : b.accumulate),
          absl::StrFormat("the batch would be of %.0f tokens or more, the most is %d", tokens, kMaxBatchTokens));
    return false;
  }
  return true;
}

}  // namespace

void CompleteBatch(JobConfig& job, ConfigChecks& c) {
  BatchConfig& b = job.batch;
  if (!c.Ok({"batch.tokens", "batch.micro", "batch.accumulate", "parallel.dp", "model.seq"})) return;
  const int given = (b.tokens > 0) + (b.micro > 0) + (b.accumulate > 0);
  if (given < 2) {
    const std::string_view key = b.accumulate > 0 ? "batch.accumulate" : b.micro > 0 ? "batch.micro" : "batch.tokens";
    c.Add({ConfigErrorKind::kMissing, std::string(key),
           absl::StrFormat("[batch] needs two of tokens, micro and accumulate; %d given", given)});
    return;
  }
  if (!CheckSizes(job, c)) return;
  const int64_t sequence_tokens = job.parallel.dp * job.model.seq;
  if (given == 3) {
    const int64_t product = b.micro * b.accumulate * sequence_tokens;
    if (product == b.tokens) return;
    c.Add(ConfigErrorKind::kContradiction, "batch.tokens", absl::StrCat(b.tokens),
          absl::StrFormat("micro * accumulate * parallel.dp * model.seq = %d * %d * %d * %d = %d; leave one out",
                          b.micro, b.accumulate, job.parallel.dp, job.model.seq, product),
          absl::StrCat(product));
  } else if (b.tokens == 0) {
    b.tokens = b.micro * b.accumulate * sequence_tokens;
  } else if (b.micro == 0) {
    b.micro = DivideTokens(job, {"batch.accumulate", b.accumulate}, c);
    if (b.micro > 0) CheckSizes(job, c);
  } else {
    b.accumulate = DivideTokens(job, {"batch.micro", b.micro}, c);
  }
}

}  // namespace strata
