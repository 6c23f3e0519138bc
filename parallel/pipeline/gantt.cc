#include "parallel/pipeline/gantt.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace strata {
namespace {

constexpr double kWidth = 1600, kLeft = 130, kRow = 26, kCompute = 17, kStrip = 5, kTop = 26;
constexpr double kLabelWidth = 13;  // narrower boxes have no text

struct Look {
  Action::Kind kind;
  const char *style, *meaning;
};
constexpr Look kLooks[] = {
    // in the order of the legend
    {Action::kF, "f", "forward"},         {Action::kB, "b", "backward"},    {Action::kI, "i", "input gradient"},
    {Action::kW, "w", "weight gradient"}, {Action::kSend, "s", "send"},     {Action::kRecv, "r", "receive"},
    {Action::kUnshard, "u", "unshard"},   {Action::kReduce, "d", "reduce"}, {Action::kUpdate, "p", "update"},
};
const char* StyleOf(const Action& a) {
  for (const Look& look : kLooks) {
    if (look.kind == a.kind) return look.style;
  }
  return "p";
}
constexpr std::string_view kCss =
    "body{font:13px sans-serif;margin:16px}svg text{font:10px sans-serif}.l{text-anchor:end}"
    ".f{fill:#8ab4e8}.b{fill:#8fcf9b}.i{fill:#8fcf9b}.w{fill:#d8d27a}.s{fill:#777}.r{fill:#bbb}.u{fill:#f0a860}"
    ".d{fill:#d9736b}.p{fill:#a58bc9}.up{stroke:#333;stroke-width:1.2}rect{stroke:#fff;stroke-width:.4}"
    ".k{display:inline-block;width:12px;height:12px;margin:0 4px 0 14px}";
constexpr std::string_view kSwatches =
    ".k.f{background:#8ab4e8}.k.b,.k.i{background:#8fcf9b}.k.w{background:#d8d27a}.k.s{background:#777}"
    ".k.r{background:#bbb}.k.u{background:#f0a860}.k.d{background:#d9736b}.k.p{background:#a58bc9}";

std::string Escaped(const std::string& text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"\"", "&quot;"}});
}

// A number of seconds in the unit that suits `scale`.
std::string Time(double seconds, double scale) {
  if (scale >= 1) return absl::StrFormat("%.3g s", seconds);
  if (scale >= 1e-3) return absl::StrFormat("%.3g ms", seconds * 1e3);
  return absl::StrFormat("%.3g us", seconds * 1e6);
}

struct Range {
  double begin = std::numeric_limits<double>::infinity(), end = 0;
  double length() const { return end > begin ? end - begin : 0; }
};
Range RangeOf(const Timeline& t) {
  Range range;
  for (const std::vector<TimedAction>& rank : t.ranks) {
    for (const TimedAction& a : rank) {
      range.begin = std::min(range.begin, a.begin);
      range.end = std::max(range.end, a.end);
    }
  }
  return range;
}

class Drawing {
 public:
  explicit Drawing(std::span<const GanttTrack> tracks) : tracks_(tracks) {
    for (const GanttTrack& t : tracks) {
      ranges_.push_back(RangeOf(t.timeline));
      total_ = std::max(total_, ranges_.back().length());
      ranks_ = std::max(ranks_, t.timeline.ranks.size());
    }
  }

  std::string Svg() {
    const double rows = static_cast<double>(ranks_ * tracks_.size());
    absl::StrAppendFormat(&svg_, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\">\n",
                          kWidth + kLeft + 10, kTop + rows * kRow + 4);
    Axis(rows);
    double y = kTop;
    for (size_t r = 0; r < ranks_; ++r) {
      for (size_t k = 0; k < tracks_.size(); ++k, y += kRow) Row(k, r, y);
    }
    svg_ += "</svg>\n";
    return std::move(svg_);
  }

  // "planned: 1.2 s, bubble 30.4%; measured: ..."
  std::string Summary() const {
    std::string text;
    for (size_t k = 0; k < tracks_.size(); ++k) {
      const std::vector<double> busy = BusyTimes(tracks_[k].timeline);
      const double length = ranges_[k].length(), all = length * static_cast<double>(busy.size());
      const double sum = std::accumulate(busy.begin(), busy.end(), 0.0);
      absl::StrAppendFormat(&text, "%s%s: %s, bubble %.1f%%", k > 0 ? "; " : "", Escaped(tracks_[k].name),
                            Time(length, length), all > 0 ? 100 * (1 - sum / all) : 0.0);
    }
    return text;
  }

 private:
  double X(double seconds) const { return kLeft + (total_ > 0 ? seconds / total_ * kWidth : 0); }

  void Axis(double rows) {
    constexpr int kTicks = 10;
    for (int i = 0; i <= kTicks; ++i) {
      const double t = total_ * i / kTicks;
      absl::StrAppendFormat(
          &svg_,
          "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"18\" y2=\"%.0f\" stroke=\"#ddd\"/><text x=\"%.1f\" y=\"12\">%s</text>\n",
          X(t), X(t), kTop + rows * kRow, X(t), Time(t, total_));
    }
  }

  void Row(size_t track, size_t rank, double y) {
    absl::StrAppendFormat(&svg_, "<text class=\"l\" x=\"%.0f\" y=\"%.1f\">rank %d %s</text>\n", kLeft - 6, y + 13, rank,
                          Escaped(tracks_[track].name));
    if (rank >= tracks_[track].timeline.ranks.size()) return;
    const std::vector<TimedAction>& list = tracks_[track].timeline.ranks[rank];
    for (size_t i = 0; i < list.size(); ++i) {
      const bool paired = list[i].action.overlap != 0 && IsCompute(list[i].action);
      // Members of a pair share a span: one half each.
      const bool second = paired && i > 0 && list[i - 1].action.overlap == list[i].action.overlap;
      const bool first =
          paired && !second && i + 1 < list.size() && list[i + 1].action.overlap == list[i].action.overlap;
      const double height = first || second ? kCompute / 2 : kCompute;
      Box(list[i], ranges_[track].begin, y + (second ? kCompute / 2 : 0), height);
    }
  }

  void Box(const TimedAction& t, double zero, double y, double height) {
    if (t.end <= t.begin) return;
    const bool compute = IsCompute(t.action) || t.action.kind == Action::kUpdate;
    const double x = X(t.begin - zero), width = X(t.end - zero) - x;
    absl::StrAppendFormat(
        &svg_,
        "<rect class=\"%s%s\" x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.1f\"><title>%s, %s to %s</title></rect>",
        StyleOf(t.action), t.action.replica > 0 && compute ? " up" : "", x, compute ? y : y + kCompute + 1, width,
        compute ? height : kStrip, ToString(t.action), Time(t.begin - zero, total_), Time(t.end - zero, total_));
    if (compute && t.action.micro_batch >= 0 && width >= kLabelWidth && height == kCompute) {
      absl::StrAppendFormat(&svg_, "<text x=\"%.2f\" y=\"%.1f\">%d</text>", x + 2, y + 12, t.action.micro_batch);
    }
    svg_ += '\n';
  }

  std::span<const GanttTrack> tracks_;
  std::vector<Range> ranges_;
  double total_ = 0;
  size_t ranks_ = 0;
  std::string svg_;
};

}  // namespace

std::string GanttHtml(const std::string& title, std::span<const GanttSection> sections) {
  std::string html = absl::StrFormat(
      "<!DOCTYPE html>\n<html><head><meta "
      "charset=\"utf-8\"><title>%s</title><style>%s%s</style></head><body>\n<h2>%s</h2>\n<p>",
      Escaped(title), kCss, kSwatches, Escaped(title));
  for (const Look& look : kLooks) {
    absl::StrAppendFormat(&html, "<span class=\"k %s\"></span>%s", look.style, look.meaning);
  }
  html += " &nbsp; (outlined: the second replica; numbers: micro-batches)</p>\n";
  for (const GanttSection& section : sections) {
    Drawing drawing(section.tracks);
    html += "<h3>" + Escaped(section.title) + "</h3>\n<p>" + drawing.Summary() + "</p>\n" + drawing.Svg();
  }
  return html + "</body></html>\n";
}

std::string ChromeTrace(std::span<const GanttTrack> tracks) {
  std::string events;
  const auto add = [&](const std::string& event) { events += (events.empty() ? "\n" : ",\n") + event; };
  for (size_t pid = 0; pid < tracks.size(); ++pid) {
    const double zero = RangeOf(tracks[pid].timeline).begin;
    const std::string name = absl::StrReplaceAll(tracks[pid].name, {{"\\", "\\\\"}, {"\"", "\\\""}, {"\n", " "}});
    add(absl::StrFormat("{\"ph\":\"M\",\"pid\":%d,\"name\":\"process_name\",\"args\":{\"name\":\"%s\"}}", pid, name));
    for (size_t r = 0; r < tracks[pid].timeline.ranks.size(); ++r) {
      for (int lane : {0, 1}) {
        add(absl::StrFormat(
            "{\"ph\":\"M\",\"pid\":%d,\"tid\":%d,\"name\":\"thread_name\",\"args\":{\"name\":\"rank %d %s\"}}", pid,
            2 * r + lane, r, lane == 0 ? "compute" : "communication"));
      }
      for (const TimedAction& t : tracks[pid].timeline.ranks[r]) {
        if (t.end <= t.begin) continue;
        const bool compute = IsCompute(t.action) || t.action.kind == Action::kUpdate;
        add(absl::StrFormat("{\"ph\":\"X\",\"pid\":%d,\"tid\":%d,\"name\":\"%s\",\"ts\":%.3f,\"dur\":%.3f}", pid,
                            2 * r + (compute ? 0 : 1), ToString(t.action), (t.begin - zero) * 1e6,
                            (t.end - t.begin) * 1e6));
      }
    }
  }
  return "{\"traceEvents\":[" + events + "\n]}\n";
}

}  // namespace strata
