#pragma once
// Drawings of timelines, planned and measured in one: a Gantt chart as one HTML file that needs no other, and the events
// of Chrome's trace viewer and Perfetto.

#include <span>
#include <string>
#include <vector>

#include "parallel/pipeline/timeline.h"

namespace strata {

struct GanttTrack {
  std::string name;   // "planned", "measured"
  Timeline timeline;  // seconds; each track is moved to begin at 0
};

struct GanttSection {
  std::string title;
  std::vector<GanttTrack> tracks;
};

// A section has a row for each rank and track, below each other so that they compare, on one time axis. Compute is drawn
// full, what else the rank does as a strip under it.
std::string GanttHtml(const std::string& title, std::span<const GanttSection> sections);

// {"traceEvents": [...]}: a process a track, a thread for each rank's compute and one for its communication.
std::string ChromeTrace(std::span<const GanttTrack> tracks);

}  // namespace strata
