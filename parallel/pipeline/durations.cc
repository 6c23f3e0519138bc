#include "parallel/pipeline/durations.h"

#include <cmath>
#include <map>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace strata {
namespace {

double Size(const StageDurations& d, int micro_batch, int micro_batches) {
  return micro_batch == micro_batches - 1 ? d.last_micro_batch : 1;
}

bool Positive(double x) { return std::isfinite(x) && x > 0; }
bool NotNegative(double x) { return std::isfinite(x) && x >= 0; }

constexpr int kMaxLines = 1 << 15;

struct Column {
  const char* name;
  double StageDurations::Stage::*field;
};
constexpr Column kColumns[] = {
    {"forward", &StageDurations::Stage::forward},         {"input_grad", &StageDurations::Stage::input_grad},
    {"weight_grad", &StageDurations::Stage::weight_grad}, {"unshard", &StageDurations::Stage::unshard},
    {"reduce", &StageDurations::Stage::reduce},           {"backward", &StageDurations::Stage::backward},
    {"update", &StageDurations::Stage::update},
};

}  // namespace

double StageDurations::Of(const Action& a, int micro_batches) const {
  const Stage& s = stages[a.stage];
  switch (a.kind) {
    case Action::kF: return s.forward * Size(*this, a.micro_batch, micro_batches);
    case Action::kB: return s.B() * Size(*this, a.micro_batch, micro_batches);
    case Action::kI: return s.input_grad * Size(*this, a.micro_batch, micro_batches);
    case Action::kW: return s.weight_grad * Size(*this, a.micro_batch, micro_batches);
    case Action::kUnshard: return s.unshard;
    case Action::kReduce: return s.reduce;
    default: return 0;
  }
}

double StageDurations::Transfer(int micro_batch, int micro_batches) const {
  return latency + boundary_bytes * Size(*this, micro_batch, micro_batches) / bytes_per_s;
}

double StageDurations::TransferOver(int edge, int micro_batch, int micro_batches) const {
  if (edges.empty()) return Transfer(micro_batch, micro_batches);
  return edges[edge] * Size(*this, micro_batch, micro_batches);
}

absl::Status CheckDurations(const StageDurations& d, int stages) {
  if (static_cast<int>(d.stages.size()) != stages) {
    return absl::InvalidArgumentError(
        absl::StrFormat("durations of %d stages for a schedule of %d", d.stages.size(), stages));
  }
  for (int s = 0; s < stages; ++s) {
    const StageDurations::Stage& t = d.stages[s];
    if (!Positive(t.forward) || !Positive(t.input_grad) || !Positive(t.weight_grad) || !NotNegative(t.unshard) ||
        !NotNegative(t.reduce) || !NotNegative(t.backward) || !NotNegative(t.update)) {
      return absl::InvalidArgumentError(
          absl::StrFormat("durations of stage %d: forward %g, input_grad %g and weight_grad %g must be positive, "
                          "unshard %g, reduce %g, backward %g and update %g not negative, all finite",
                          s, t.forward, t.input_grad, t.weight_grad, t.unshard, t.reduce, t.backward, t.update));
    }
  }
  for (size_t e = 0; e < d.edges.size(); ++e) {
    if (NotNegative(d.edges[e])) continue;
    return absl::InvalidArgumentError(
        absl::StrFormat("a transfer over edge %d takes %g: must not be negative, and finite", e, d.edges[e]));
  }
  if (!(d.last_micro_batch > 0 && d.last_micro_batch <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("the last micro-batch is %g of the others; it must be in (0, 1]", d.last_micro_batch));
  }
  if (!Positive(d.pair) || !NotNegative(d.latency) || !NotNegative(d.boundary_bytes) || !(d.bytes_per_s > 0)) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "a pair takes %g of its sum, a transfer of %g bytes %g and %g bytes/s: must be positive, latency and "
        "bytes not negative",
        d.pair, d.boundary_bytes, d.latency, d.bytes_per_s));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<StageDurations::Stage>> ParseDurations(std::string_view csv) {
  std::map<std::string, double StageDurations::Stage::*> fields;
  for (const Column& c : kColumns) fields[c.name] = c.field;
  const std::vector<std::string> lines = absl::StrSplit(std::string(csv), '\n');
  std::vector<std::string> header;
  std::vector<StageDurations::Stage> stages;
  for (size_t i = 0; i < lines.size(); ++i) {
    const std::string line(absl::StripAsciiWhitespace(lines[i]));
    if (line.empty() || line[0] == '#') continue;
    const auto fail = [&](const std::string& what) {
      return absl::InvalidArgumentError(absl::StrFormat("durations, line %d: %s", i + 1, what));
    };
    std::vector<std::string> cells = absl::StrSplit(line, ',');
    for (std::string& cell : cells) cell = std::string(absl::StripAsciiWhitespace(cell));
    if (header.empty()) {
      header = cells;
      for (const std::string& name : header) {
        if (name != "stage" && !fields.contains(name)) return fail("unknown column \"" + name + "\"");
      }
      if (header[0] != "stage") return fail("the first column must be \"stage\"");
      continue;
    }
    if (cells.size() != header.size()) {
      return fail(absl::StrFormat("%d cells, the header has %d", cells.size(), header.size()));
    }
    int stage = -1;
    if (!absl::SimpleAtoi(cells[0], &stage) || stage != static_cast<int>(stages.size()) || stage >= kMaxLines) {
      return fail(absl::StrFormat("stage %s; expected %d", cells[0], stages.size()));
    }
    stages.emplace_back();
    for (size_t k = 1; k < cells.size(); ++k) {
      if (!absl::SimpleAtod(cells[k], &(stages.back().*fields.at(header[k])))) {
        return fail(absl::StrFormat("%s = \"%s\" is not a number", header[k], cells[k]));
      }
    }
  }
  if (stages.empty()) return absl::InvalidArgumentError("durations: no stages");
  return stages;
}

std::string PrintDurations(std::span<const StageDurations::Stage> stages) {
  std::string text = "stage";
  for (const Column& c : kColumns) absl::StrAppendFormat(&text, ",%s", c.name);
  for (size_t s = 0; s < stages.size(); ++s) {
    absl::StrAppendFormat(&text, "\n%d", s);
    for (const Column& c : kColumns) absl::StrAppendFormat(&text, ",%.9g", stages[s].*c.field);
  }
  return text + "\n";
}

}  // namespace strata
