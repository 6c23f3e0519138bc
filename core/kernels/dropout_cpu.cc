// y = x / (1 - rate) where a 32-bit random word is at least rate 2^32, else 0. With k = Philox(seed, key, step)[0..1] as the
// key, feature f of a token has word f % 4 of the block with counter (f / 4, position, sample id, 0).
#include "core/base/philox.h"
#include "core/kernels/cpu_kernels.h"
#include "core/kernels/cpu_util.h"
#include "core/ops/dropout.h"

namespace strata {
namespace {

constexpr int64_t kTokens = 16;  // a tile

template <typename T>
absl::Status RunDropout(const KernelArgs& a) {
  using C = ComputeType<T>;
  const DropoutSpec& spec = DropoutSpecOf(a.op);
  const PhiloxBlock seed = Philox(a.scalars->seed, spec.key.value_or(a.key), a.scalars->step);
  const auto threshold = static_cast<uint32_t>(spec.rate * 0x1p32);
  const C scale = static_cast<C>(1 / (1 - spec.rate));
  const int64_t S = a.in[0].shape[1], E = a.in[0].shape[2], first = a.in[0].origin[2];
  const int32_t *samples = a.in[1].as<const int32_t>(), *positions = a.in[2].as<const int32_t>();
  ForTiles(a.pool, a.in[0].shape[0] * S, kTokens, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const auto position = static_cast<uint32_t>(positions[t % S]), sample = static_cast<uint32_t>(samples[t / S]);
      const T* x = a.in[0].as<const T>() + t * E;
      T* y = a.out[0].as<T>() + t * E;
      for (int64_t block = first / 4; 4 * block < first + E; ++block) {
        const PhiloxBlock words = Philox4x32({static_cast<uint32_t>(block), position, sample, 0}, {seed[0], seed[1]});
        for (int64_t word = 0; word < 4; ++word) {
          const int64_t e = 4 * block + word - first;
          if (e < 0 || e >= E) continue;
          y[e] = words[word] >= threshold ? static_cast<T>(static_cast<C>(x[e]) * scale) : T{};
        }
      }
    }
  });
  return absl::OkStatus();
}

}  // namespace

void AddDropoutKernels(KernelTable& table) {
  AddForFloats(table, "dropout", []<typename T>() { return Kernel{RunDropout<T>, nullptr, StreamingCost}; });
}

}  // namespace strata
