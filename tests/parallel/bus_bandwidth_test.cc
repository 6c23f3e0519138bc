#include "parallel/comm/bus_bandwidth.h"

#include <gtest/gtest.h>

namespace strata {
namespace {

TEST(BusBandwidth, FactorsAreThoseOfTheRings) {
  EXPECT_EQ(BusFactor(Collective::kAllReduce, 4), 1.5);
  EXPECT_EQ(BusFactor(Collective::kAllGather, 4), 0.75);
  EXPECT_EQ(BusFactor(Collective::kReduceScatter, 8), 0.875);
  EXPECT_EQ(BusFactor(Collective::kAllToAll, 2), 0.5);
  EXPECT_EQ(BusFactor(Collective::kBroadcast, 8), 1);
  EXPECT_EQ(BusFactor(Collective::kSend, 2), 1);
}

// What a ring sends of a call is its size times the factor, but for a broadcast, whose links carry it once.
TEST(BusBandwidth, SizesAreThoseOfTheLargerBuffer) {
  for (const Collective::Kind kind : {Collective::kAllReduce, Collective::kReduceScatter, Collective::kAllGather,
                                      Collective::kAllToAll, Collective::kBroadcast, Collective::kSend}) {
    for (const int n : {1, 2, 3, 8}) {
      for (const DType t : {DType::kF32, DType::kBF16, DType::kF64}) {
        const Collective call = CallOfSize(kind, t, 4096, n);
        EXPECT_LE(BytesOf(call, n), 4096);
        EXPECT_GT(BytesOf(call, n), 4096 - n * SizeOf(t));
        EXPECT_DOUBLE_EQ(BytesSent(call, n), static_cast<double>(BytesOf(call, n)) * BusFactor(kind, n)) << Name(kind);
      }
    }
  }
  EXPECT_EQ(CallOfSize(Collective::kAllGather, DType::kF32, 10, 4).count, 0);
  EXPECT_EQ(CallOfSize(Collective::kReduceScatter, DType::kF32, 4096, 3).count % 3, 0);
}

}  // namespace
}  // namespace strata
