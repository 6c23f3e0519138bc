#pragma once
// The command line: verbs, their options, and the exit code. What a verb does is given to Main as a function.

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "parallel/comm/comm_config.h"

namespace strata {

// Options named `set` are values over those of the config file: "optim.lr=0.1".
struct TrainOptions {
  std::string config;
  std::vector<std::string> set;
  std::string resume =
      "auto";  // auto: from the newest valid checkpoint of run.out, if any; never; or a checkpoint's folder
  bool print_config = false;  // print the effective config and stop
};
struct LaunchOptions {
  std::vector<std::string> command;  // "train", its config, its options
  int64_t ranks = 0;                 // 0: as many as the config says
  std::string log_dir;               // empty: run.out/logs
  std::string show = "0";            // whose log goes to the console: "0", "all", "failed"
  int64_t grace = 120;               // seconds
  bool dry_run = false;
};
struct LaunchRankOptions {
  std::vector<std::string> command;
  std::string log_dir;
};
struct PlanVerbOptions {
  std::string config;
  std::vector<std::string> set;
  bool steps = false;  // list every step of the plan
  // Pipeline schedules instead, by simulation.
  std::string schedule;  // all, a name, or a file FILE.csv; empty: not asked for
  int64_t pp = 0, virtual_stages = 0;
  double tflops = 0;  // of a rank; 0: measured here
  double link_gbps = 5, link_us = 10;
  std::string durations, gantt, trace, dump;  // files, or empty
};
struct BenchOptions {
  std::string config;
  std::vector<std::string> set;
  int64_t steps = 20;  // timed, after warm-up
  bool table = false;
  std::string trace, timeline;  // files, or empty
  bool scaling = false;         // and how many times as fast as one rank
  double one_rank = 0;          // its tokens a second; 0: measured
  bool simulate = false;        // the pipeline, with its measured chunks
  std::string durations_out;    // a file for them, or empty
};
struct BenchCollectivesOptions {
  int64_t ranks = 2;            // threads; under mpirun as many as there are processes
  std::string device = "auto";  // cpu, cuda
  std::string dtype = "float32";
  std::string min = "4KiB", max;  // empty: 1 GiB on GPUs, 64 MiB on CPUs
  int64_t factor = 4, warmup = 5, iterations = 20;
  std::vector<std::string> only;  // collectives; empty: all
  CommConfig comm;                // nccl_ctas 0: NCCL's choice
  bool trace = true;              // with the watch over hangs
};
struct DataBuildOptions {
  std::vector<std::string> text, jsonl;  // files; at least one
  std::string field = "text";            // of a JSON line: its text
  std::string out;                       // folder
  int64_t vocab = 0;                     // of the tokenizer to train; 0 only where `tokenizer` is given
  double valid = 0.05;                   // part of the text kept for validation
  std::string tokenizer;                 // an existing one; empty: train one
  bool force = false;                    // replace what is in `out`
};
struct DataInspectOptions {
  std::string path;            // prefix of token files, or a folder made by data build
  int64_t begin = 0, end = 0;  // documents to print; none where they are equal
  std::string tokenizer;       // empty: that beside the token files
  bool pieces = false;         // each piece of the documents on a line of its own
};
struct DataVerifyOptions {
  std::string path;  // as of DataInspectOptions
};
struct DataBaselinesOptions {
  std::string data;  // folder made by data build
};
struct TokenizerTrainOptions {
  std::vector<std::string> text;
  std::string out;  // the model file
  int64_t vocab = 0;
};
struct TokenizerEncodeOptions {
  std::string tokenizer, text;
  bool bos = false;     // with what the tokenizer puts before a text
  bool pieces = false;  // a line for each, with its text
};
struct TokenizerDecodeOptions {
  std::string tokenizer;
  std::vector<int64_t> ids;
};
struct TokenizerVerifyOptions {
  std::string tokenizer;
  std::vector<std::string> text;       // files to encode and decode
  std::vector<std::string> reference;  // files of JSON lines: texts and their ids
};
struct GenerateOptions {
  std::string config, prompt;
  std::vector<std::string> set;
  int64_t tokens = 0;
  double temperature = 1.0;  // 0: always the likeliest token
  int64_t top_k = 0;         // 0: any token
  double top_p = 1.0;        // 1: any token
  int64_t seed = 1;
  std::string checkpoint;  // folder; empty: the newest valid of run.out
};
struct EvalOptions {
  std::string config;
  std::vector<std::string> set;
  std::string checkpoint;  // folder; empty: the newest valid of run.out
  std::string data;        // prefix of token files; empty: data.valid
};
struct ConvertOptions {
  std::string from, to;  // one of them "hf:DIR"
  bool verify = false;
};
struct CkptListOptions {
  std::string folder;
};
struct CkptVerifyOptions {
  std::string folder;
};
struct CkptDiffOptions {
  std::string a, b;  // folders of checkpoints
};
struct CkptReshardOptions {
  std::string from, to;  // folders of checkpoints; `to` is made
  std::string like;      // config: as this job would save it
  std::vector<std::string> set;
  int files = 1;  // where `like` is empty
};
struct DoctorOptions {
  std::string folder = ".";  // whose disk is looked at
};

struct Verbs {  // all must be set
  std::function<absl::Status(const TrainOptions&)> train;
  std::function<absl::Status(const LaunchOptions&)> launch;
  std::function<absl::Status(const LaunchRankOptions&)> launch_rank;  // what launch starts, once a rank
  std::function<absl::Status(const PlanVerbOptions&)> plan;
  std::function<absl::Status(const BenchOptions&)> bench_step, bench_gemm, bench_attention;
  std::function<absl::Status(const BenchCollectivesOptions&)> bench_collectives;
  std::function<absl::Status(const DataBuildOptions&)> data_build;
  std::function<absl::Status(const DataInspectOptions&)> data_inspect;
  std::function<absl::Status(const DataVerifyOptions&)> data_verify;
  std::function<absl::Status(const DataBaselinesOptions&)> data_baselines;
  std::function<absl::Status(const TokenizerTrainOptions&)> tokenizer_train;
  std::function<absl::Status(const TokenizerEncodeOptions&)> tokenizer_encode;
  std::function<absl::Status(const TokenizerDecodeOptions&)> tokenizer_decode;
  std::function<absl::Status(const TokenizerVerifyOptions&)> tokenizer_verify;
  std::function<absl::Status(const GenerateOptions&)> generate;
  std::function<absl::Status(const EvalOptions&)> eval;
  std::function<absl::Status(const ConvertOptions&)> convert;
  std::function<absl::Status(const CkptListOptions&)> ckpt_ls;
  std::function<absl::Status(const CkptVerifyOptions&)> ckpt_verify;
  std::function<absl::Status(const CkptDiffOptions&)> ckpt_diff;
  std::function<absl::Status(const CkptReshardOptions&)> ckpt_reshard;
  std::function<absl::Status(const DoctorOptions&)> doctor;
};

// The options of a `train` command that another one is given: "train", its config, its options. InvalidArgument.
absl::StatusOr<TrainOptions> ParseTrain(const std::vector<std::string>& command);

// Whether `words`, what follows "strata", are a command. Runs nothing. InvalidArgument.
absl::Status CheckCommand(const std::vector<std::string>& words);

// Parses, calls one verb, prints its error to stderr, returns the exit code (exit_codes.h).
int Main(int argc, const char* const* argv, const Verbs& verbs);

}  // namespace strata
