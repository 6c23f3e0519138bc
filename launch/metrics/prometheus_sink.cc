#include "launch/metrics/prometheus_sink.h"

#include <cmath>

#include "absl/strings/str_format.h"

namespace strata {
namespace {

std::string Number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  return absl::StrFormat("%.17g", value);
}

}  // namespace

absl::Status PrometheusSink::Write(std::span<const Metric> metrics) {
  for (const Metric& m : metrics) {
    if (const auto* integer = std::get_if<int64_t>(&m.value))
      latest_[std::string(m.name)] = absl::StrFormat("%d", *integer);
    if (const auto* real = std::get_if<double>(&m.value)) latest_[std::string(m.name)] = Number(*real);
  }
  std::string text;
  for (const auto& [name, value] : latest_) {
    text += absl::StrFormat("# TYPE strata_%s gauge\nstrata_%s{run=\"%s\"} %s\n", name, name, run_, value);
  }
  return WriteTextAtomically(env_, path_, text);
}

}  // namespace strata
