#include "launch/cli/cli.h"

#include <cstdio>
#include <map>
#include <memory>
#include <span>
#include <utility>

#include <CLI/CLI.hpp>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "core/base/check.h"
#include "launch/cli/exit_codes.h"

namespace strata {
namespace {

using Run = std::function<absl::Status()>;

template <class Options>
CLI::Option* AddSet(CLI::App* verb, Options* o) {
  return verb->add_option("--set", o->set, "A value over that of the file, such as optim.lr=0.001; may be given again")
      ->type_name("KEY=VALUE")
      ->allow_extra_args(false);
}

template <class Options>
void AddConfig(CLI::App* verb, Options* o, const std::string& doc = "TOML file") {
  verb->add_option("config", o->config, doc)->required();
  AddSet(verb, o);
}

void AddTrainOptions(CLI::App* verb, TrainOptions* o) {
  AddConfig(verb, o);
  verb->add_option("--resume", o->resume,
                   "auto: from the newest valid checkpoint of run.out, if any; never; or the folder of a checkpoint")
      ->type_name("auto|never|DIR")
      ->capture_default_str();
  verb->add_flag("--print-config", o->print_config, "Print every value and where it came from, and stop");
}

// "A:B", 0 <= A < B. Throws, as CLI11 wants it.
void ParseRange(const std::string& text, int64_t* begin, int64_t* end) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(text, absl::MaxSplits(':', 1));
  if (absl::SimpleAtoi(parts.first, begin) && absl::SimpleAtoi(parts.second, end) && 0 <= *begin && *begin < *end) {
    return;
  }
  throw CLI::ValidationError("--documents", "expected A:B with 0 <= A < B, not " + text);
}

// The verb that the arguments name, ready to run once parsing is done.
class CommandLine {
 public:
  explicit CommandLine(const Verbs& verbs) : verbs_(verbs) {
    app_.require_subcommand(1);
    app_.footer(
        "Exit codes: 0 done, 64 wrong arguments or config, 69 lost a peer, 75 interrupted and saved, 124 hung, 1 other "
        "failures.");
    AddTrain();
    AddLaunch();
    AddPlan();
    AddBench();
    AddData();
    AddTokenizer();
    AddGenerate();
    AddEval();
    AddConvert();
    AddCkpt();
    AddDoctor();
  }

  CLI::App& app() { return app_; }
  absl::Status RunParsed() const {
    for (const auto& [verb, run] : runs_) {
      if (verb->parsed()) return run();
    }
    return absl::InvalidArgumentError("no command given");
  }

 private:
  // A command that fills an Options and hands it to `run`.
  template <class Options>
  std::pair<CLI::App*, Options*> Add(CLI::App& parent, const std::string& name, const std::string& doc,
                                     const std::function<absl::Status(const Options&)>& run) {
    auto options = std::make_shared<Options>();
    CLI::App* verb = parent.add_subcommand(name, doc);
    runs_.push_back({verb, [options, &run] {
                       STRATA_CHECK(run != nullptr);
                       return run(*options);
                     }});
    return {verb, options.get()};
  }
  CLI::App& Group(const std::string& name, const std::string& doc) {
    CLI::App* group = app_.add_subcommand(name, doc);
    group->require_subcommand(1);
    return *group;
  }

  void AddTrain() {
    auto [verb, o] = Add(app_, "train", "Train a model as a config file says", verbs_.train);
    AddTrainOptions(verb, o);
  }

  void AddLaunch() {
    auto [verb, o] = Add(app_, "launch", "Train with one process a rank, on this machine, with mpirun", verbs_.launch);
    verb->add_option("-n,--ranks", o->ranks, "Processes; without it as many as the config has ranks")
        ->type_name("N")
        ->check(CLI::Range(int64_t{1}, int64_t{4096}));
    verb->add_option("--log-dir", o->log_dir, "Folder for a log of each rank; without it run.out/logs")
        ->type_name("DIR");
    verb->add_option("--show", o->show, "Whose log goes to the console: rank 0's, all, or only those that fail")
        ->check(CLI::IsMember({"0", "all", "failed"}))
        ->capture_default_str();
    verb->add_option("--grace", o->grace, "Seconds from Ctrl-C or SIGTERM to the end of all ranks")
        ->type_name("SECONDS")
        ->check(CLI::Range(int64_t{0}, int64_t{1'000'000}))
        ->capture_default_str();
    verb->add_flag("--dry-run", o->dry_run, "Print the command that would be run, and stop");
    verb->add_option("command", o->command, "After --: train, its config and its options")->required();

    auto [rank, r] = Add(app_, "launch-rank", "One rank of launch", verbs_.launch_rank);
    rank->group("");  // not in the help
    rank->add_option("--log-dir", r->log_dir)->required();
    rank->add_option("command", r->command)->required();
  }

  void AddPlan() {
    auto [verb, o] =
        Add(app_, "plan", "Print what training would need: parameters, memory, communication", verbs_.plan);
    AddConfig(verb, o);
    verb->add_flag("--steps", o->steps, "List every step of the plan");
    AddScheduleOptions(verb, o);
  }

  static void AddScheduleOptions(CLI::App* verb, PlanVerbOptions* o) {
    CLI::Option* schedule =
        verb->add_option("--schedule", o->schedule, "Compare pipeline schedules by simulation: all, or one");
    schedule->type_name("all|NAME|FILE.csv");
    const auto add = [&](const char* name, auto& value, const char* type, const char* doc) {
      return verb->add_option(name, value, doc)->type_name(type)->needs(schedule);
    };
    add("--pp", o->pp, "N", "Ranks of the pipeline")->check(CLI::Range(1, 4096));
    add("--virtual", o->virtual_stages, "V", "Stages a rank; without it what is usual, and 4")
        ->check(CLI::Range(1, 64));
    add("--tflops", o->tflops, "X", "TFLOP/s of a rank; without it as measured here")->check(CLI::PositiveNumber);
    add("--link-gbps", o->link_gbps, "X", "GB/s between two ranks")->check(CLI::PositiveNumber)->capture_default_str();
    add("--link-us", o->link_us, "X", "Latency of a transfer")->check(CLI::NonNegativeNumber)->capture_default_str();
    add("--durations", o->durations, "FILE", "Measured seconds of each stage: stage,forward,input_grad,weight_grad");
    add("--gantt", o->gantt, "FILE", "Write a Gantt chart, HTML");
    add("--trace", o->trace, "FILE", "Write a Chrome trace");
    add("--dump", o->dump, "FILE", "Write the schedule as text, FILE.csv, to be changed by hand");
  }

  void AddBench() {
    CLI::App& bench = Group("bench", "Measurements of a config's training step on random tokens");
    const auto add = [&](const char* name, const char* what, const auto& run) {
      auto [verb, o] = Add(bench, name, what, run);
      AddConfig(verb, o);
      verb->add_option("--steps", o->steps, "Timed steps, after warm-up")
          ->check(CLI::Range(1, 100000))
          ->capture_default_str();
      verb->add_option("--trace", o->trace, "Write a Chrome trace of one step")->type_name("FILE");
      return std::pair(verb, o);
    };
    auto [step, o] = add("step", "Tokens/s, MFU, where the time goes, memory; one JSON line", verbs_.bench_step);
    step->add_flag("--table", o->table, "The time of every kind of kernel first");
    step->add_option("--timeline", o->timeline, "Write a Gantt chart of one step, planned and measured, HTML")
        ->type_name("FILE");
    step->add_flag("--simulate", o->simulate, "A pipeline's step beside the simulator's, fed with the measured chunks");
    step->add_option("--durations-out", o->durations_out, "Write the measured chunks for plan --schedule --durations")
        ->type_name("FILE");
    step->add_flag("--scaling", o->scaling, "And tokens/s on n ranks by n times those of one, which is measured too");
    step->add_option("--one-rank", o->one_rank, "Tokens/s of one rank, for --scaling")->check(CLI::PositiveNumber);
    add("gemm", "Time and FLOP/s of every matrix product in the step, and their sum; a table, then one JSON line",
        verbs_.bench_gemm);
    add("attention", "The same of every attention", verbs_.bench_attention);
    AddBenchCollectives(bench);
  }

  // An option whose values are names[0], names[1], ...
  template <class E>
  static void AddChoice(CLI::App* verb, const std::string& option, E& value, std::span<const std::string_view> names,
                        const std::string& doc) {
    std::map<std::string, E> values;
    for (size_t i = 0; i < names.size(); ++i) values.emplace(std::string(names[i]), static_cast<E>(i));
    const auto set = [&value, values](const std::string& s) { value = values.at(s); };
    verb->add_option_function<std::string>(option, set, doc)
        ->check(CLI::IsMember(std::vector<std::string>(names.begin(), names.end())));
  }

  void AddBenchCollectives(CLI::App& bench) {
    auto [verb, o] =
        Add(bench, "collectives",
            "Time and bandwidth of every collective at many sizes, as NCCL's own tests tell them; a table, "
            "then one JSON line",
            verbs_.bench_collectives);
    const auto number = [&, verb = verb](const char* name, int64_t& value, int64_t min, int64_t max, const char* doc) {
      verb->add_option(name, value, doc)->check(CLI::Range(min, max))->capture_default_str();
    };
    number("-n,--ranks", o->ranks, 1, 64, "Ranks, threads of this process; under mpirun its processes are the ranks");
    verb->add_option("--device", o->device, "cpu, cuda, or auto: GPUs where there are enough")
        ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
        ->capture_default_str();
    verb->add_option("--dtype", o->dtype, "float32, bfloat16 or float64")
        ->check(CLI::IsMember({"float32", "bfloat16", "float64"}))
        ->capture_default_str();
    verb->add_option("--min", o->min, "Smallest size, of a rank's larger buffer")
        ->type_name("BYTES")
        ->capture_default_str();
    verb->add_option("--max", o->max, "Largest size; without it 1GiB on GPUs, 64MiB on CPUs")->type_name("BYTES");
    number("--factor", o->factor, 2, 1024, "From one size to the next");
    number("--warmup", o->warmup, 0, 100'000, "Calls before the timed ones");
    number("--iters", o->iterations, 1, 1'000'000, "Timed calls");
    verb->add_option("--only", o->only, "These collectives only")
        ->check(CLI::IsMember({"all-reduce", "reduce-scatter", "all-gather", "all-to-all", "broadcast", "send-recv"}));
    AddChoice(verb, "--transport", o->comm.transport, kTransportNames, "Between GPUs, as parallel.transport");
    AddChoice(verb, "--launch", o->comm.launch, kNcclLaunchNames, "As parallel.nccl_launch");
    AddChoice(verb, "--buffers", o->comm.buffers, kNcclBuffersNames, "As parallel.nccl_buffers");
    number("--ctas", o->comm.nccl_ctas, 0, 64, "Thread blocks of the GPU that a collective may take; 0: NCCL's choice");
    verb->add_flag("!--no-watch", o->trace, "Without the watch over hangs, to see what it costs");
  }

  void AddData() {
    CLI::App& data = Group("data", "Token files");
    auto [build, o] = Add(data, "build", "Turn text into training and validation tokens", verbs_.data_build);
    CLI::Option* text = build->add_option("--text", o->text, "Text files, a document each")->type_name("FILE");
    CLI::Option* jsonl = build->add_option("--jsonl", o->jsonl, "Files of JSON lines, a document a line");
    jsonl->type_name("FILE");
    build->add_option("--field", o->field, "Field of a JSON line that holds its text")
        ->type_name("NAME")
        ->capture_default_str();
    build->add_option("--out", o->out, "Folder for the token files")->required()->type_name("DIR");
    CLI::Option* vocab = build->add_option("--vocab", o->vocab, "Vocabulary of the tokenizer to train");
    vocab->type_name("N")->check(CLI::Range(int64_t{2}, int64_t{1} << 24));
    build->add_option("--valid", o->valid, "Part of the text kept for validation")
        ->type_name("PART")
        ->check(CLI::Range(0.0, 0.9))
        ->capture_default_str();
    CLI::Option* tokenizer = build->add_option(
        "--tokenizer", o->tokenizer, "Use this tokenizer, train none: a file, or a folder that has a tokenizer.json");
    tokenizer->type_name("PATH");
    build->add_flag("--force", o->force, "Replace what is in the folder");
    build->callback([text, jsonl, vocab, tokenizer] {
      if (text->count() + jsonl->count() == 0) throw CLI::RequiredError("--text or --jsonl");
      if (vocab->count() + tokenizer->count() == 0) throw CLI::RequiredError("--vocab or --tokenizer");
    });

    auto [inspect, i] = Add(data, "inspect", "Say what token files hold", verbs_.data_inspect);
    inspect->add_option("path", i->path, "PREFIX of token files, or folder made by data build")->required();
    inspect
        ->add_option_function<std::string>(
            "--documents", [i = i](const std::string& range) { ParseRange(range, &i->begin, &i->end); },
            "Print documents A to B - 1 as text")
        ->type_name("A:B");
    inspect->add_option("--tokenizer", i->tokenizer, "For --documents; without it the tokenizer beside the files")
        ->type_name("PATH");
    inspect->add_flag("--pieces", i->pieces, "For --documents: each token on a line, with its id");

    auto [verify, v] =
        Add(data, "verify", "Check every byte of token files; exit code 1 if one is wrong", verbs_.data_verify);
    verify->add_option("path", v->path, "PREFIX of token files, or folder made by data build")->required();

    auto [baselines, b] =
        Add(data, "baselines", "Loss of unigram and bigram counts on the validation tokens", verbs_.data_baselines);
    baselines->add_option("--data", b->data, "Folder made by data build")->required()->type_name("DIR");
  }

  void AddTokenizer() {
    CLI::App& tokenizer = Group("tokenizer", "Text to tokens and back");
    auto [train, t] = Add(tokenizer, "train", "Train a tokenizer on text", verbs_.tokenizer_train);
    train->add_option("--text", t->text, "Text files")->required()->type_name("FILE");
    train->add_option("--out", t->out, "The tokenizer file to write")->required()->type_name("PATH");
    train->add_option("--vocab", t->vocab, "Vocabulary size")
        ->required()
        ->type_name("N")
        ->check(CLI::Range(int64_t{2}, int64_t{1} << 24));

    auto [encode, e] = Add(tokenizer, "encode", "Print the token ids of a text", verbs_.tokenizer_encode);
    encode->add_option("--tokenizer", e->tokenizer, "Tokenizer file, or a folder that has one")
        ->required()
        ->type_name("PATH");
    encode->add_option("text", e->text, "Text")->required();
    encode->add_flag("--bos", e->bos, "With what the tokenizer puts before a text");
    encode->add_flag("--pieces", e->pieces, "Each token on a line, with its text");

    auto [decode, d] = Add(tokenizer, "decode", "Print the text of token ids", verbs_.tokenizer_decode);
    decode->add_option("--tokenizer", d->tokenizer, "Tokenizer file, or a folder that has one")
        ->required()
        ->type_name("PATH");
    decode->add_option("ids", d->ids, "Token ids")->required();

    auto [verify, v] = Add(tokenizer, "verify", "Check a tokenizer on texts, and against ids of another program",
                           verbs_.tokenizer_verify);
    verify->add_option("--tokenizer", v->tokenizer, "Tokenizer file, or a folder that has one")
        ->required()
        ->type_name("PATH");
    verify->add_option("--text", v->text, "Text files to encode and decode")->type_name("FILE");
    verify->add_option("--reference", v->reference, "Files of JSON lines, {\"text\": ..., \"ids\": [...]}")
        ->type_name("FILE");
  }

  void AddGenerate() {
    auto [verb, o] = Add(app_, "generate", "Continue a text with a trained model", verbs_.generate);
    AddConfig(verb, o, "TOML file that the model was trained with");
    verb->add_option("--prompt", o->prompt, "Text to continue")->required()->type_name("TEXT");
    verb->add_option("--tokens", o->tokens, "Tokens to generate")
        ->required()
        ->type_name("N")
        ->check(CLI::Range(int64_t{1}, int64_t{1} << 24));
    verb->add_option("--temperature", o->temperature, "0 = always the likeliest token")
        ->type_name("T")
        ->check(CLI::Range(0.0, 100.0))
        ->capture_default_str();
    verb->add_option("--top-k", o->top_k, "Choose among the K likeliest; 0 = all")
        ->type_name("K")
        ->check(CLI::Range(int64_t{0}, int64_t{1} << 24))
        ->capture_default_str();
    verb->add_option("--top-p", o->top_p, "Choose among the likeliest that together have probability P; 1 = all")
        ->type_name("P")
        ->check(CLI::Range(0.0, 1.0))
        ->capture_default_str();
    verb->add_option("--seed", o->seed, "Seed of the choices")
        ->type_name("S")
        ->check(CLI::NonNegativeNumber)
        ->capture_default_str();
    verb->add_option("--checkpoint", o->checkpoint, "Use this one, not the newest of run.out")->type_name("DIR");
  }

  void AddEval() {
    auto [verb, o] = Add(app_, "eval", "Validation loss and perplexity of a checkpoint", verbs_.eval);
    AddConfig(verb, o, "TOML file that the model was trained with");
    verb->add_option("--checkpoint", o->checkpoint, "Use this one, not the newest of run.out")->type_name("DIR");
    verb->add_option("--data", o->data, "Use these token files, not data.valid")->type_name("PREFIX");
  }

  void AddConvert() {
    auto [verb, o] =
        Add(app_, "convert", "Turn a Hugging Face model into a checkpoint, or a checkpoint into one", verbs_.convert);
    verb->add_option("from", o->from, "hf:DIR, the folder of a Hugging Face model; or a checkpoint, or a run's folder")
        ->required();
    verb->add_option("to", o->to, "A folder that is not there yet; or hf:DIR for one in Hugging Face's form")
        ->required();
    verb->add_flag("--verify", o->verify, "Compare every tensor bit for bit, and the loss on fixed tokens");
    verb->footer("hf:DIR needs config.json and model.safetensors (or its parts and their index). docs/huggingface.md");
  }

  void AddCkpt() {
    CLI::App& ckpt = Group("ckpt", "Checkpoints");
    auto [ls, l] = Add(ckpt, "ls", "List the checkpoints of a run", verbs_.ckpt_ls);
    ls->add_option("dir", l->folder, "Folder of the run")->required();
    auto [verify, v] = Add(ckpt, "verify", "Check every byte of a checkpoint", verbs_.ckpt_verify);
    verify->add_option("dir", v->folder, "Folder of the checkpoint, or of the run for all of them")->required();
    auto [diff, d] = Add(ckpt, "diff", "Say how two checkpoints differ; exit code 1 if they do", verbs_.ckpt_diff);
    diff->add_option("a", d->a, "Folder of a checkpoint")->required();
    diff->add_option("b", d->b, "Folder of the other")->required();
    auto [reshard, r] = Add(ckpt, "reshard", "Rewrite a checkpoint as another job would save it, or as so many files",
                            verbs_.ckpt_reshard);
    reshard->add_option("from", r->from, "Folder of a checkpoint")->required();
    reshard->add_option("to", r->to, "Folder to write; must not exist")->required();
    CLI::Option* like =
        reshard->add_option("--like", r->like, "TOML file of a job of the same model: a file for each rank");
    like->type_name("JOB.toml");
    AddSet(reshard, r)->needs(like);
    reshard->add_option("--files", r->files, "Files of equal size")
        ->type_name("N")
        ->check(CLI::Range(1, 100000))
        ->capture_default_str()
        ->excludes(like);
  }

  void AddDoctor() {
    auto [verb, o] = Add(app_, "doctor", "Say whether this machine is ready, and what to do if not", verbs_.doctor);
    verb->add_option("--dir", o->folder, "Folder for data and checkpoints: its disk is looked at")
        ->type_name("DIR")
        ->capture_default_str();
  }

  const Verbs& verbs_;
  CLI::App app_{"Strata trains language models that are larger than one device's memory.", "strata"};
  std::vector<std::pair<CLI::App*, Run>> runs_;
};

void PrintError(const absl::Status& status) {
  const std::string message(status.message());
  const bool formatted = absl::StartsWith(message, "error[");  // by launch/config/errors.h
  absl::FPrintF(stderr, "%s%s\n", formatted ? "" : "error: ", message);
}

}  // namespace

absl::StatusOr<TrainOptions> ParseTrain(const std::vector<std::string>& command) {
  if (command.empty() || command[0] != "train") {
    return absl::InvalidArgumentError("what comes after -- must be a train command: train job.toml ...");
  }
  CLI::App app("", "train");
  TrainOptions options;
  AddTrainOptions(&app, &options);
  try {
    app.parse(std::vector<std::string>(command.rbegin(), command.rend() - 1));  // CLI11 takes the last word first
  } catch (const CLI::Error& error) {
    return absl::InvalidArgumentError(absl::StrFormat("train: %s", error.what()));
  }
  return options;
}

absl::Status CheckCommand(const std::vector<std::string>& words) {
  const Verbs none;
  CommandLine line(none);
  try {
    line.app().parse(std::vector<std::string>(words.rbegin(), words.rend()));
  } catch (const CLI::Success&) {
    return absl::OkStatus();  // --help
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(error.what());
  }
  return absl::OkStatus();
}

int Main(int argc, const char* const* argv, const Verbs& verbs) {
  CommandLine line(verbs);
  try {
    line.app().parse(argc, argv);
  } catch (const CLI::Success& help) {
    line.app().exit(help);
    return kExitOk;
  } catch (const CLI::ParseError& error) {
    line.app().exit(error);
    return kExitUsage;
  }
  const absl::Status status = line.RunParsed();
  if (!status.ok()) PrintError(status);
  return ExitCode(status);
}

}  // namespace strata
