#pragma once
// Progress on the console: one line that stays in place on a terminal, plain lines elsewhere.

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace strata {

struct ProgressState {
  int64_t step = 0, steps = 0;  // done, of
  double loss = 0;              // nats a token
  double tokens_per_s = 0;
  double data_wait = 0;  // percent of the step time
  double eta_s = 0;
};

// With the bar: at most `width` characters, the bar taking what the numbers leave and vanishing below 10.
//   [##########----------]  500/1000  loss 4.1234  12.3k tok/s  data wait 0%  ETA 1:02
// width = 0: without the bar, for plain output:
//   step 500/1000  loss 4.1234  12.3k tok/s  data wait 0%  ETA 1:02
std::string RenderProgress(const ProgressState& state, int width);

std::string FormatRate(double per_s);  // "950", "12.3k", "4.56M"
std::string FormatDuration(
    double seconds);  // "0:07", "1:02:03", "2d 03:04"; "?" if not known (negative, NaN, infinite)

// Not thread-safe; `out` must outlive it.
class Progress {
 public:
  explicit Progress(std::FILE* out);  // sticky if `out` is a terminal
  Progress(std::FILE* out, bool sticky) : out_(out), sticky_(sticky) {}

  void Update(const ProgressState& state);  // shows `state`
  void Print(std::string_view text);        // a line of its own, above the sticky one
  void Finish();                            // leaves the sticky line as it stands and ends it

 private:
  void Show();

  std::FILE* out_;
  bool sticky_;
  std::string line_;  // the sticky line on the screen; empty if none
};

}  // namespace strata
