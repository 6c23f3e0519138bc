#include <cstdio>

#include "launch/cli/cli.h"
#include "launch/cli/exit_codes.h"
#include "launch/verbs/verbs.h"

int main(int argc, char** argv) {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    std::fputs("strata needs a CPU with AVX2 and FMA (x86-64-v3); build with -DSTRATA_MARCH=x86-64 for others\n",
               stderr);
    return strata::kExitFailure;
  }
  return strata::Main(argc, argv,
                      {.train = strata::RunTrain,
                       .launch = strata::RunLaunch,
                       .launch_rank = strata::RunLaunchRank,
                       .plan = strata::RunPlan,
                       .bench_step = strata::RunBenchStep,
                       .bench_gemm = strata::RunBenchGemm,
                       .bench_attention = strata::RunBenchAttention,
                       .bench_collectives = strata::RunBenchCollectives,
                       .data_build = strata::RunDataBuild,
                       .data_inspect = strata::RunDataInspect,
                       .data_verify = strata::RunDataVerify,
                       .data_baselines = strata::RunDataBaselines,
                       .tokenizer_train = strata::RunTokenizerTrain,
                       .tokenizer_encode = strata::RunTokenizerEncode,
                       .tokenizer_decode = strata::RunTokenizerDecode,
                       .tokenizer_verify = strata::RunTokenizerVerify,
                       .generate = strata::RunGenerate,
                       .eval = strata::RunEval,
                       .convert = strata::RunConvert,
                       .ckpt_ls = strata::RunCkptList,
                       .ckpt_verify = strata::RunCkptVerify,
                       .ckpt_diff = strata::RunCkptDiff,
                       .ckpt_reshard = strata::RunCkptReshard,
                       .doctor = strata::RunDoctor});
}
