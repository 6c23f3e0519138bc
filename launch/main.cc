#include "launch/cli/cli.h"
#include "launch/verbs/verbs.h"

int main(int argc, char** argv) {
  return strata::Main(argc, argv,
                      {.train = strata::RunTrain,
                       .plan = strata::RunPlan,
                       .data_build = strata::RunDataBuild,
                       .data_baselines = strata::RunDataBaselines,
                       .tokenizer_train = strata::RunTokenizerTrain,
                       .tokenizer_encode = strata::RunTokenizerEncode,
                       .tokenizer_decode = strata::RunTokenizerDecode,
                       .generate = strata::RunGenerate,
                       .ckpt_ls = strata::RunCkptList,
                       .ckpt_verify = strata::RunCkptVerify});
}
