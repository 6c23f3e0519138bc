#include "launch/metrics/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace strata {
namespace {

constexpr int kMinBar = 10, kMaxBar = 40;
constexpr char kClearLine[] = "\r\x1b[K";

int TerminalWidth(std::FILE* out) {
  winsize size{};
  if (ioctl(fileno(out), TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

std::string Bar(int64_t step, int64_t steps, int cells) {
  const double part = steps > 0 ? std::clamp(static_cast<double>(step) / static_cast<double>(steps), 0.0, 1.0) : 0;
  const int full = static_cast<int>(part * cells);
  return absl::StrCat("[", std::string(full, '#'), std::string(cells - full, '-'), "]  ");
}

}  // namespace

std::string FormatRate(double per_s) {
  struct Unit {
    double size;
    const char* name;
  };
  constexpr Unit kUnits[] = {{1e9, "G"}, {1e6, "M"}, {1e3, "k"}};
  for (const Unit& unit : kUnits) {
    if (per_s >= 0.9995 * unit.size) return absl::StrFormat("%.3g%s", per_s / unit.size, unit.name);
  }
  return absl::StrFormat("%.3g", per_s);
}

std::string FormatDuration(double seconds) {
  if (!(seconds >= 0 && seconds < 1e9)) return "?";
  const int64_t s = std::llround(seconds);
  const int64_t minutes = s / 60 % 60, hours = s / 3600 % 24, days = s / 86400;
  if (days > 0) return absl::StrFormat("%dd %02d:%02d", days, hours, minutes);
  if (hours > 0) return absl::StrFormat("%d:%02d:%02d", hours, minutes, s % 60);
  return absl::StrFormat("%d:%02d", minutes, s % 60);
}

std::string RenderProgress(const ProgressState& state, int width) {
  const std::string steps = absl::StrCat(state.steps);
  std::string text = absl::StrFormat("%*d/%s  loss %.4f  %s tok/s  data wait %.0f%%  ETA %s",
                                     static_cast<int>(width > 0 ? steps.size() : 0), state.step, steps, state.loss,
                                     FormatRate(state.tokens_per_s), state.data_wait, FormatDuration(state.eta_s));
  if (width == 0) return absl::StrCat("step ", text);
  const int cells = std::min(kMaxBar, width - static_cast<int>(text.size()) - 4);
  if (cells >= kMinBar) return Bar(state.step, state.steps, cells) + text;
  return text.substr(0, static_cast<size_t>(width));
}

Progress::Progress(std::FILE* out) : Progress(out, isatty(fileno(out)) == 1) {}

void Progress::Update(const ProgressState& state) {
  if (!sticky_) return Print(RenderProgress(state, 0));
  line_ = RenderProgress(state, TerminalWidth(out_) - 1);  // a full last column would wrap
  Show();
}

void Progress::Print(std::string_view text) {
  if (!line_.empty()) absl::FPrintF(out_, "%s", kClearLine);
  absl::FPrintF(out_, "%s\n", text);
  if (line_.empty()) {
    std::fflush(out_);
  } else {
    Show();
  }
}

void Progress::Finish() {
  if (line_.empty()) return;
  line_.clear();
  absl::FPrintF(out_, "\n");
  std::fflush(out_);
}

void Progress::Show() {
  absl::FPrintF(out_, "%s%s", kClearLine, line_);
  std::fflush(out_);
}

}  // namespace strata
