#include "parallel/comm/comm_config.h"

#include <gtest/gtest.h>

namespace strata {
namespace {

TEST(CommConfig, KeysOfNcclThatHaveNoEffectAreNamed) {
  CommConfig c;
  EXPECT_EQ(NoteOnUnusedKeys(c, Transport::kPeers), "");
  c.nccl_ctas = 8;
  EXPECT_EQ(NoteOnUnusedKeys(c, Transport::kNccl), "");
  EXPECT_EQ(NoteOnUnusedKeys(c, Transport::kPeers),
            "parallel.nccl_ctas has no effect: the transport is \"peers\"; parallel.transport = \"nccl\" takes NCCL");
  c.launch = NcclLaunch::kDirect;
  c.buffers = NcclBuffers::kSymmetric;
  EXPECT_EQ(NoteOnUnusedKeys(c, Transport::kHost),
            "parallel.nccl_ctas, parallel.nccl_launch, parallel.nccl_buffers have no effect: the transport is "
            "\"host\"; parallel.transport = \"nccl\" takes NCCL");
}

}  // namespace
}  // namespace strata
