#pragma once
// Where in the order of all events a transfer between two ranks comes.

#include <vector>

#include "parallel/pipeline/schedule.h"
#include "parallel/pipeline/timeline.h"

namespace strata {

// A tensor can go from the end of what makes it to the start of what needs it. On ranks that do one thing at a time, who
// comes first waits for the other to end what it computes; so the time is chosen at which they come together best, and of
// several the earliest. (Interleaved 1F1B, p = 4, v = 4, m = 16: 50.6 t_F on one stream, against 79.7 with transfers as
// soon as the tensor is there, and 50.3 with transfers beside compute.)
class MeetingTimes {
 public:
  explicit MeetingTimes(const Timeline& compute);

  // In [earliest, latest].
  double Between(int from, int to, double earliest, double latest) const;

 private:
  struct Spans {
    std::vector<double> begin, end;  // of what the rank computes, in order
  };
  double Left(const Spans& rank, double time) const;  // of what is computed at `time`
  std::vector<Spans> ranks_;
  double tolerance_ = 0;
};

}  // namespace strata
