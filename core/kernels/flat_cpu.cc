// pack: out = zeros, but for part i from element offsets[i] on. Parts that lie there already are left alone; float32 ones of a
// bf16 tensor are rounded.

#include "core/ops/flat.h"

#include <cstring>

#include "core/kernels/cpu_kernels.h"
#include "core/kernels/cpu_util.h"

namespace strata {
namespace {

absl::Status RunPack(const KernelArgs& a) {
  const std::vector<int64_t>& offsets = static_cast<const PackOp&>(a.op).offsets();
  const int64_t size = SizeOf(a.out[0].dtype);
  std::byte* const out = a.out[0].as<std::byte>();
  int64_t end = 0;  // of the parts so far
  for (size_t i = 0; i <= a.in.size(); ++i) {
    const int64_t begin = (i < a.in.size() ? offsets[i] : a.out[0].shape.elements()) * size;
    std::memset(out + end, 0, static_cast<size_t>(begin - end));
    if (i == a.in.size()) break;
    if (a.in[i].dtype != a.out[0].dtype) {
      const float* const in = a.in[i].as<const float>();
      BF16* const part = a.out[0].as<BF16>() + offsets[i];
      ForTiles(a.pool, a.in[i].shape.elements(), kFlatTile, [&](int64_t from, int64_t to) {
        for (int64_t j = from; j < to; ++j) part[j] = BF16(in[j]);
      });
    } else if (a.in[i].data != out + begin) {
      const std::byte* const in = a.in[i].as<const std::byte>();
      ForTiles(a.pool, a.in[i].bytes(), int64_t{1} << 20,
               [&](int64_t from, int64_t to) { std::memcpy(out + begin + from, in + from, to - from); });
    }
    end = begin + a.in[i].shape.elements() * size;
  }
  return absl::OkStatus();
}

}  // namespace

void AddFlatKernels(KernelTable& table) {
  for (const DType t : {DType::kF64, DType::kF32, DType::kBF16}) table.Add("pack", t, {.run = RunPack});
}

}  // namespace strata
