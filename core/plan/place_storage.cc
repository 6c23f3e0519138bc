#include "core/plan/place_storage.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/plan/memory.h"
#include "core/plan/slots.h"

namespace strata {
namespace {

// How long a scratch storage is needed, and so in which region it lies.
enum class Life : uint8_t {
  kSegment,     // within one segment
  kMicroBatch,  // over several actions of one stage and micro-batch
  kUnsharded,   // from kUnshard to kReshard of a stage
  kStep,        // over several of the actions that run once a step
};

class Placer {
 public:
  Placer(std::vector<Storage>& storages, const PlaceArgs& args, std::vector<Slots>& slots, std::vector<Region>& regions)
      : storages_(storages), args_(args), stations_(args.stations), slots_(slots), regions_(regions) {}

  absl::Status Run() {
    for (const Storage& s : storages_) {
      if (!s.used() || s.kind != Storage::kScratch) continue;
      ASSIGN_OR_RETURN(lives_[&s - storages_.data()], LifeOf(s));
    }
    PlaceMicroBatches();
    PlaceSegments();
    const int16_t outputs = AddRegion(Region::kStatic, "outputs");
    regions_[outputs].bytes = Pack(
        outputs, [](size_t, const Storage& s) { return s.kind == Storage::kOutput; }, Together);
    PlaceOnce();
    regions_[AddRegion(Region::kWorkspace, "workspace")].bytes = AlignUp(args_.workspace_bytes);
    return absl::OkStatus();
  }

 private:
  using Interval = std::pair<int, int>;
  static Interval Together(const Storage&) { return {0, 0}; }

  absl::StatusOr<Life> LifeOf(const Storage& s) const {
    const int first = s.first.first, last = s.last.first;
    if (first == last && (first == stations_.update() || stations_.StationOf(first) != Stations::kUnshard)) {
      return Life::kSegment;
    }
    if (stations_.OnceAStep(first) && stations_.OnceAStep(last)) return Life::kStep;
    const bool together = stations_.StageOf(first) == stations_.StageOf(last);
    if (together && stations_.OfMicroBatch(last)) {
      return stations_.OfMicroBatch(first) ? Life::kMicroBatch : Life::kUnsharded;
    }
    if (together && first == last) return Life::kUnsharded;
    return absl::InternalError("a value of a micro-batch is read once a step, or of a step by a micro-batch");
  }
  bool Lives(size_t i, Life life) const {
    return storages_[i].kind == Storage::kScratch && storages_[i].used() && lives_[i] == life;
  }

  int16_t AddRegion(Region::Kind kind, const std::string& what) {
    regions_.push_back({.kind = kind, .name = args_.program + " " + what});
    return static_cast<int16_t>(regions_.size() - 1);
  }

  // Packs the storages of `select`, needed from step to step of the interval that `when` gives; returns the bytes.
  template <typename Select, typename When>
  int64_t Pack(int16_t region, Select select, When when) {
    std::vector<strata::Interval> intervals;
    std::vector<size_t> which;
    for (size_t i = 0; i < storages_.size(); ++i) {
      if (!storages_[i].used() || !select(i, storages_[i])) continue;
      const auto [first, last] = when(storages_[i]);
      intervals.push_back({storages_[i].bytes, first, last});
      which.push_back(i);
    }
    const int64_t total = PackIntervals(intervals);
    for (size_t k = 0; k < which.size(); ++k) storages_[which[k]].ref = {region, intervals[k].offset};
    return total;
  }

  std::string StageName(int stage) const {
    if (stations_.num_stages() == 1 && stations_.stage(0) == 0) return "";
    std::string name = absl::StrFormat("stage %d ", stations_.stage(stage));
    if (stations_.replica(stage) > 0) name += absl::StrFormat("replica %d ", stations_.replica(stage));
    return name;
  }

  void PlaceMicroBatches() {
    std::vector<int> begin;  // of a position: steps of those before it
    int steps = 0;
    for (int n : args_.num_steps) {
      begin.push_back(steps);
      steps += n;
    }
    const auto when = [&](const Storage& s) {
      return Interval{begin[s.first.first] + s.first.second, begin[s.last.first] + s.last.second};
    };
    const int n = stations_.num_stages();
    for (int i = 0; i < 2 * n; ++i) {  // activations of all stages, then what arrived
      const int stage = i % n;
      const auto select = [&](size_t k, const Storage& s) {
        const bool arrived = stations_.StationOf(s.first.first) == Stations::kReceiveActivation;
        return Lives(k, Life::kMicroBatch) && stations_.StageOf(s.first.first) == stage && arrived == (i >= n);
      };
      const auto region = static_cast<int16_t>(regions_.size());
      if (i >= n && !Any(select)) continue;
      AddRegion(Region::kSlot, StageName(stage) + (i < n ? "activations" : "input"));
      regions_[region].bytes = Pack(region, select, when);
      regions_[region].slots = NumSlots(slots_[i]);
      slots_[i].region = region;
    }
  }

  void PlaceSegments() {
    const int16_t region = AddRegion(Region::kTransient, "transient");
    for (int position = 0; position < stations_.num_positions(); ++position) {
      const auto select = [&](size_t i, const Storage& s) {
        return Lives(i, Life::kSegment) && s.first.first == position;
      };
      const auto when = [](const Storage& s) { return Interval{s.first.second, s.last.second}; };
      regions_[region].bytes = std::max(regions_[region].bytes, Pack(region, select, when));
    }
  }

  void PlaceOnce() {
    const auto once = [&](size_t i, const Storage&) { return Lives(i, Life::kStep); };
    if (Any(once)) {
      const int16_t region = AddRegion(Region::kTransient, "step");
      regions_[region].bytes = Pack(region, once, Together);
    }
    if (!Any([&](size_t i, const Storage&) { return Lives(i, Life::kUnsharded); })) return;
    const int16_t region = AddRegion(Region::kSlot, "unsharded");
    for (int stage = 0; stage < stations_.num_stages(); ++stage) {
      const auto select = [&](size_t i, const Storage& s) {
        return Lives(i, Life::kUnsharded) && stations_.StageOf(s.first.first) == stage;
      };
      regions_[region].bytes = std::max(regions_[region].bytes, Pack(region, select, Together));
    }
    regions_[region].slots = NumSlots(slots_.back());
    slots_.back().region = region;
  }
  template <typename Select>
  bool Any(Select select) const {
    for (size_t i = 0; i < storages_.size(); ++i) {
      if (select(i, storages_[i])) return true;
    }
    return false;
  }

  std::vector<Storage>& storages_;
  const PlaceArgs& args_;
  const Stations& stations_;
  std::vector<Slots>& slots_;
  std::vector<Region>& regions_;
  std::vector<Life> lives_ = std::vector<Life>(storages_.size());
};

}  // namespace

absl::Status PlaceStorages(std::vector<Storage>& storages, const PlaceArgs& args, std::vector<Slots>& slots,
                           std::vector<Region>& regions) {
  return Placer(storages, args, slots, regions).Run();
}

}  // namespace strata
