// bench collectives: every collective at many sizes, between threads or processes, on CPUs or GPUs, by the method of NCCL's own
// tests: warm-up, then calls back to back on one stream and one wait, averaged over the ranks; results are checked before.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <optional>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/bytes.h"
#include "core/base/status.h"
#include "core/exec/cpu_device.h"
#include "core/exec/cuda_device.h"
#include "launch/rendezvous/environment.h"
#include "launch/rendezvous/run_world.h"
#include "launch/verbs/verbs.h"
#include "parallel/comm/bus_bandwidth.h"
#include "parallel/comm/device_world.h"

namespace strata {
namespace {

using Clock = std::chrono::steady_clock;
double Seconds(Clock::time_point since) { return std::chrono::duration<double>(Clock::now() - since).count(); }

constexpr Collective::Kind kKinds[] = {Collective::kAllReduce, Collective::kReduceScatter, Collective::kAllGather,
                                       Collective::kAllToAll,  Collective::kBroadcast,     Collective::kSend};
const char* NameOf(Collective::Kind kind) { return kind == Collective::kSend ? "send-recv" : Name(kind); }

constexpr int64_t kPeriod = 7, kBlock = kPeriod << 15;  // elements: of the pattern, of a copy when it is written
constexpr int64_t kWindow = 1 << 16;                    // elements looked at, at the beginning and the end of a result

// Element i of rank r's input: small whole numbers, whose sums are exact.
double Pattern(int64_t i, int r) { return static_cast<double>((3 * i + 5 * r) % kPeriod); }

// Element i of what a call makes on member `me`.
double Expected(const Collective& c, int64_t i, int me, int n) {
  const auto sum = [&](int64_t at) {
    double total = 0;
    for (int r = 0; r < n; ++r) total += Pattern(at, r);
    return total;
  };
  const int64_t part = c.count / n;
  switch (c.kind) {
    case Collective::kAllReduce: return sum(i);
    case Collective::kReduceScatter: return sum(me * part + i);
    case Collective::kAllGather: return Pattern(i % c.count, static_cast<int>(i / c.count));
    case Collective::kAllToAll: return Pattern(me * part + i % part, static_cast<int>(i / part));
    case Collective::kBroadcast: return Pattern(i, 0);
    default: return Pattern(i, (me + n - 1) % n);
  }
}

int64_t OutputElements(const Collective& c, int n) {
  if (c.kind == Collective::kReduceScatter) return c.count / n;
  return c.kind == Collective::kAllGather ? c.count * n : c.count;
}

void Put(void* p, DType t, int64_t i, double v) {
  if (t == DType::kF64) static_cast<double*>(p)[i] = v;
  if (t == DType::kF32) static_cast<float*>(p)[i] = static_cast<float>(v);
  if (t == DType::kBF16) static_cast<BF16*>(p)[i] = BF16(static_cast<float>(v));
}
double Get(const void* p, DType t, int64_t i) {
  if (t == DType::kF64) return static_cast<const double*>(p)[i];
  if (t == DType::kF32) return static_cast<const float*>(p)[i];
  return static_cast<float>(static_cast<const BF16*>(p)[i]);
}

struct Timing {
  double seconds = 0;        // of a call
  double issue_seconds = 0;  // of that, until Issue() returned
};
struct Row {
  Collective call;
  Timing apart, in_place;  // in_place.seconds = 0: not possible
};

struct Setting {
  bool cuda = false;
  DType dtype = DType::kF32;
  int64_t min = 0, max = 0;
  std::vector<Collective::Kind> kinds;
  ProcessPlace place;
};

// One rank.
class Bench {
 public:
  Bench(const BenchCollectivesOptions& options, const Setting& setting, World& host)
      : options_(options), setting_(setting), host_(host) {}

  absl::Status Go() {
    RETURN_IF_ERROR(Open());
    std::vector<Row> rows;
    for (const Collective::Kind kind : setting_.kinds) {
      for (int64_t bytes = setting_.min; bytes <= setting_.max; bytes *= options_.factor) {
        Row row{CallOfSize(kind, setting_.dtype, bytes, n()), {}, {}};
        if (row.call.count == 0) continue;
        ASSIGN_OR_RETURN(row.apart, Measure(row.call, false));
        const bool can = kind != Collective::kAllToAll && kind != Collective::kSend;
        if (can) {
          ASSIGN_OR_RETURN(row.in_place, Measure(row.call, true));
        }
        if (me() == 0) Print(row, rows.empty());
        rows.push_back(row);
      }
    }
    if (me() == 0) PrintJson(rows);
    RETURN_IF_ERROR(comm_->Close());
    RETURN_IF_ERROR(control_->Close());
    return device_->Close();
  }

 private:
  int n() const { return host_.size(); }
  int me() const { return host_.rank(); }

  absl::Status Open() {
    std::vector<int> all(n());
    std::iota(all.begin(), all.end(), 0);
    ASSIGN_OR_RETURN(control_, host_.Connect({"control", all}));
    World* world = &host_;
    if (setting_.cuda) {
      const int gpu = setting_.place.alone() ? me() : setting_.place.local_rank;
      ASSIGN_OR_RETURN(std::unique_ptr<CudaDevice> device, CudaDevice::Open(gpu));
      description_ = device->description();
      NcclWorldOptions o = OptionsOf(options_.comm, std::chrono::seconds(60));
      o.collective_ctas = o.edge_ctas = static_cast<int>(options_.comm.nccl_ctas);  // 0 is NCCL's choice here
      o.trace = options_.trace ? NcclTrace::kCalls : NcclTrace::kNone;
      ASSIGN_OR_RETURN(DeviceWorld made, MakeDeviceWorld(host_, *device, options_.comm.transport, o));
      device_world_ = std::move(made.world);
      carrier_ = std::move(made.carrier);
      device_ = std::move(device);
      world = device_world_.get();
    } else {
      device_ = std::make_unique<CpuDevice>();
    }
    ASSIGN_OR_RETURN(stream_, device_->NewStream("bench", Priority::kNormal));
    ASSIGN_OR_RETURN(in_, device_->Reserve(Tier::kDevice, setting_.max));
    ASSIGN_OR_RETURN(out_, device_->Reserve(Tier::kDevice, setting_.max));
    ASSIGN_OR_RETURN(comm_, world->Connect({"bench", all}));
    block_.resize(static_cast<size_t>(kBlock * SizeOf(setting_.dtype)));
    for (int64_t i = 0; i < kBlock; ++i) Put(block_.data(), setting_.dtype, i, Pattern(i, me()));
    return absl::OkStatus();
  }

  absl::Status Barrier() {
    RETURN_IF_ERROR(device_->Drain());
    const Collective barrier;
    return control_->Issue({&barrier, 1}, Stream{});
  }

  absl::StatusOr<Timing> Measure(const Collective& call, bool in_place) {
    Collective c = call;
    const int64_t shard = me() * (c.kind == Collective::kAllGather ? c.count : c.count / n()) * SizeOf(c.dtype);
    c.in = in_;
    c.out = in_place ? in_ : out_;
    if (in_place && c.kind == Collective::kAllGather) c.in = in_ + shard;
    if (in_place && c.kind == Collective::kReduceScatter) c.out = in_ + shard;
    std::vector<Collective> calls = {c};
    if (c.kind == Collective::kSend) {
      calls[0].peer = (me() + 1) % n();
      calls.push_back(c);
      calls[1].kind = Collective::kRecv;
      calls[1].peer = (me() + n() - 1) % n();
    }
    RETURN_IF_ERROR(Check(calls));
    for (int64_t i = 0; i < options_.warmup; ++i) RETURN_IF_ERROR(comm_->Issue(calls, stream_));
    RETURN_IF_ERROR(Barrier());
    const Clock::time_point begun = Clock::now();
    for (int64_t i = 0; i < options_.iterations; ++i) RETURN_IF_ERROR(comm_->Issue(calls, stream_));
    const double issued = Seconds(begun);
    RETURN_IF_ERROR(device_->Drain(stream_));
    double times[] = {Seconds(begun), issued};
    RETURN_IF_ERROR(comm_->Poll());
    const Collective sum{.kind = Collective::kAllReduce, .dtype = DType::kF64, .count = 2, .in = times, .out = times};
    RETURN_IF_ERROR(control_->Issue({&sum, 1}, Stream{}));
    const double calls_in_all = static_cast<double>(options_.iterations) * n();
    return Timing{times[0] / calls_in_all, times[1] / calls_in_all};
  }

  // One call on a known input.
  absl::Status Check(const std::vector<Collective>& calls) {
    const Collective& c = calls[0];
    const int64_t element = SizeOf(c.dtype);
    auto* const in = static_cast<std::byte*>(const_cast<void*>(c.in));
    for (int64_t first = 0; first < c.count; first += kBlock) {
      RETURN_IF_ERROR(
          device_->Copy(in + first * element, block_.data(), std::min(kBlock, c.count - first) * element, stream_));
    }
    RETURN_IF_ERROR(comm_->Issue(calls, stream_));
    const int64_t size = OutputElements(c, n()), window = std::min(size, kWindow);
    std::vector<std::byte> seen(static_cast<size_t>(window * element));
    const std::byte* const out = static_cast<const std::byte*>(calls.back().out);
    for (const int64_t first : {int64_t{0}, size - window}) {
      RETURN_IF_ERROR(device_->Copy(seen.data(), out + first * element, window * element, stream_));
      RETURN_IF_ERROR(device_->Drain(stream_));
      for (int64_t i = 0; i < window; ++i) {
        const double got = Get(seen.data(), c.dtype, i), want = Expected(c, first + i, me(), n());
        if (got == want) continue;
        return absl::DataLossError(absl::StrFormat("%s of %d bytes: element %d is %g, should be %g", NameOf(c.kind),
                                                   BytesOf(c, n()), first + i, got, want));
      }
    }
    return absl::OkStatus();
  }

  double Algorithm(const Row& row, const Timing& t) const {
    return static_cast<double>(BytesOf(row.call, n())) / t.seconds / 1e9;
  }
  double Bus(const Row& row, const Timing& t) const { return Algorithm(row, t) * BusFactor(row.call.kind, n()); }

  void Print(const Row& row, bool first) const {
    if (first) {
      absl::PrintF("%d ranks, %s, %s\n%-15s %12s %10s %10s %9s %9s %10s %9s %9s\n", n(), description_,
                   Name(row.call.dtype), "", "bytes", "us", "GB/s", "bus GB/s", "issue us", "in place us", "GB/s",
                   "bus GB/s");
    }
    absl::PrintF("%-15s %12d %10.1f %10.2f %9.2f %9.1f", NameOf(row.call.kind), BytesOf(row.call, n()),
                 row.apart.seconds * 1e6, Algorithm(row, row.apart), Bus(row, row.apart),
                 row.apart.issue_seconds * 1e6);
    if (row.in_place.seconds > 0) {
      absl::PrintF(" %11.1f %9.2f %9.2f", row.in_place.seconds * 1e6, Algorithm(row, row.in_place),
                   Bus(row, row.in_place));
    }
    absl::PrintF("\n");
    std::fflush(stdout);
  }

  void PrintJson(const std::vector<Row>& rows) const {
    const std::string list = absl::StrJoin(rows, ", ", [&](std::string* text, const Row& r) {
      absl::StrAppendFormat(text,
                            "{\"collective\": \"%s\", \"bytes\": %d, \"us\": %.3f, \"gb_per_s\": %.4f, "
                            "\"bus_gb_per_s\": %.4f, \"issue_us\": %.3f",
                            NameOf(r.call.kind), BytesOf(r.call, n()), r.apart.seconds * 1e6, Algorithm(r, r.apart),
                            Bus(r, r.apart), r.apart.issue_seconds * 1e6);
      if (r.in_place.seconds > 0) {
        absl::StrAppendFormat(text, ", \"in_place_us\": %.3f, \"in_place_bus_gb_per_s\": %.4f",
                              r.in_place.seconds * 1e6, Bus(r, r.in_place));
      }
      *text += "}";
    });
    absl::PrintF(
        "{\"engine\": \"strata\", \"device\": \"%s\", \"ranks\": %d, \"processes\": %d, \"transport\": \"%s\", "
        "\"dtype\": "
        "\"%s\", \"iterations\": %d, \"rows\": [%s]}\n",
        description_, n(), setting_.place.alone() ? 1 : n(), carrier_, Name(setting_.dtype), options_.iterations, list);
  }

  const BenchCollectivesOptions& options_;
  const Setting& setting_;
  World& host_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<World> device_world_;
  std::unique_ptr<Communicator> control_, comm_;
  Stream stream_;
  std::byte *in_ = nullptr, *out_ = nullptr;
  std::vector<std::byte> block_;  // of the pattern
  std::string description_ = "cpu", carrier_ = "host";
};

absl::StatusOr<Setting> SettingOf(const BenchCollectivesOptions& o) {
  Setting s;
  ASSIGN_OR_RETURN(s.place, ReadPlace(EnvironmentVariables()));
  const int gpus_needed = s.place.alone() ? static_cast<int>(o.ranks) : s.place.local_size;
  s.cuda = o.device == "cuda" || (o.device == "auto" && CudaDeviceCount() >= gpus_needed);
  if (s.cuda && CudaDeviceCount() < gpus_needed) {
    return absl::InvalidArgumentError(absl::StrFormat("--device cuda: %d GPUs needed, %d found: %s", gpus_needed,
                                                      CudaDeviceCount(), CudaStatusLine()));
  }
  s.dtype = o.dtype == "bfloat16" ? DType::kBF16 : o.dtype == "float64" ? DType::kF64 : DType::kF32;
  ASSIGN_OR_RETURN(s.min, ParseBytes(o.min));
  ASSIGN_OR_RETURN(s.max, ParseBytes(!o.max.empty() ? o.max : s.cuda ? "1GiB" : "64MiB"));
  if (s.min < SizeOf(s.dtype) || s.max < s.min) {
    return absl::InvalidArgumentError(
        absl::StrFormat("--min %d, --max %d bytes: --min is at least one element and at most "
                        "--max",
                        s.min, s.max));
  }
  for (const Collective::Kind kind : kKinds) {
    if (o.only.empty() || std::find(o.only.begin(), o.only.end(), NameOf(kind)) != o.only.end())
      s.kinds.push_back(kind);
  }
  return s;
}

}  // namespace

absl::Status RunBenchCollectives(const BenchCollectivesOptions& options) {
  ASSIGN_OR_RETURN(const Setting setting, SettingOf(options));
  const int ranks = setting.place.alone() ? static_cast<int>(options.ranks) : setting.place.size;
  return RunWorld(setting.place, ranks, std::chrono::seconds(60),
                  [&](World& world) { return Bench(options, setting, world).Go(); });
}

}  // namespace strata
