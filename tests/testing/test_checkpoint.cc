#include "tests/testing/test_checkpoint.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_format.h"
#include "checkpoint/reader.h"
#include "core/base/philox.h"
#include "core/base/status.h"

namespace strata::testing {
namespace {

// [begin, end) of `total` for rank r of n; sizes differ by at most one.
std::pair<int64_t, int64_t> Share(int64_t total, int r, int n) { return {total * r / n, total * (r + 1) / n}; }

void AddPart(RankBoxes& out, const TestTensor& t, int64_t step, int dim, int rank, int num_ranks) {
  const auto [begin, end] = Share(t.shape[dim], rank, num_ranks);
  if (begin == end) return;
  Shape offset = t.shape, size = t.shape;
  std::fill_n(offset.dim, offset.rank, 0);
  offset[dim] = begin;
  size[dim] = end - begin;
  out.Add(t, step, offset, size);
}

// A flat range of a matrix: the rest of a row, whole rows, the start of a row.
void AddFlat(RankBoxes& out, const TestTensor& t, int64_t step, int rank, int num_ranks) {
  const int64_t columns = t.shape[1];
  auto [begin, end] = Share(t.shape.elements(), rank, num_ranks);
  while (begin < end) {
    const int64_t row = begin / columns, column = begin % columns, left = end - begin;
    if (column == 0 && left >= columns) {
      out.Add(t, step, {row, 0}, {left / columns, columns});
      begin += left / columns * columns;
    } else {
      const int64_t n = std::min(left, columns - column);
      out.Add(t, step, {row, column}, {1, n});
      begin += n;
    }
  }
}

}  // namespace

const std::vector<TestTensor>& TestTensors() {
  static const std::vector<TestTensor> tensors = {
      {"step_count", DType::kI64, {}},
      {"embed.weight", DType::kF32, {13, 6}},
      {"blocks.0.attn.wq", DType::kBF16, {8, 12}},
      {"blocks.0.attn.wq.moment1", DType::kF32, {7, 11}},
      {"blocks.0.ffn.bias", DType::kF64, {29}},
      {"blocks.1.experts", DType::kF32, {5, 4, 3, 2}},
      {"tokens", DType::kI32, {2, 9}},
      {"flags", DType::kU8, {3, 5, 7}},
  };
  return tensors;
}

std::vector<std::byte> TestContent(const TestTensor& tensor, int64_t step) {
  std::vector<std::byte> bytes(tensor.shape.elements() * SizeOf(tensor.dtype));
  for (size_t i = 0; i < bytes.size(); i += sizeof(PhiloxBlock)) {
    const PhiloxBlock block = Philox(static_cast<uint64_t>(step), HashName(tensor.name), i);
    std::memcpy(&bytes[i], block.data(), std::min(sizeof block, bytes.size() - i));
  }
  return bytes;
}

std::vector<std::byte> CutBox(const std::vector<std::byte>& whole, DType dtype, const Shape& shape, const Shape& offset,
                              const Shape& size) {
  const int64_t element = SizeOf(dtype);
  const Shape stride = RowMajorStrides(shape);
  std::vector<std::byte> out(size.elements() * element);
  for (int64_t i = 0; i < size.elements(); ++i) {
    int64_t rest = i, at = 0;
    for (int d = size.rank - 1; d >= 0; --d) {
      at += (offset[d] + rest % size[d]) * stride[d];
      rest /= size[d];
    }
    std::memcpy(&out[i * element], &whole[at * element], element);
  }
  return out;
}

void RankBoxes::Add(const TestTensor& tensor, int64_t step, const Shape& offset, const Shape& size) {
  memory.push_back(CutBox(TestContent(tensor, step), tensor.dtype, tensor.shape, offset, size));
  boxes.push_back({{tensor.name, tensor.dtype, tensor.shape, offset, size}, memory.back().data()});
}

RankBoxes TestBoxes(int rank, int num_ranks, int64_t step) {
  RankBoxes out;
  const auto& tensors = TestTensors();
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TestTensor& t = tensors[i];
    if (t.shape.rank == 0) {
      if (rank == 0) out.Add(t, step, {}, {});
    } else if (t.shape.rank == 2 && i % 2 == 1) {
      AddFlat(out, t, step, rank, num_ranks);
    } else {
      AddPart(out, t, step, static_cast<int>(i + 1) % t.shape.rank, rank, num_ranks);
    }
  }
  return out;
}

CheckpointMeta TestMeta(int64_t step) {
  return {"dp=2 tp=2", step * 64, 0xfedcba9876543210u, absl::StrFormat("[run]\nname = \"caf\u00e9 \\ %d\"\n", step)};
}

absl::StatusOr<Committed> SaveTestCheckpoint(Env& env, const std::string& root, int64_t step, int num_ranks, int keep) {
  ASSIGN_OR_RETURN(const std::string tmp_dir, BeginSave(env, root, step));
  std::vector<ShardRecord> records;
  for (int rank = 0; rank < num_ranks; ++rank) {
    const RankBoxes mine = TestBoxes(rank, num_ranks, step);
    ASSIGN_OR_RETURN(ShardRecord record, WriteShard(env, tmp_dir, rank, mine.boxes));
    records.push_back(std::move(record));
  }
  return CommitCheckpoint(env, root, step, tmp_dir, records, TestMeta(step), keep);
}

absl::Status CheckTestCheckpoint(Env& env, const std::string& dir, int64_t step) {
  ASSIGN_OR_RETURN(CheckpointReader reader, CheckpointReader::Open(env, dir));
  const CheckpointMeta want = TestMeta(step), &got = reader.meta();
  if (reader.step() != step || got.mesh != want.mesh || got.next_sample != want.next_sample || got.seed != want.seed ||
      got.config != want.config) {
    return absl::DataLossError(dir + ": other step or meta data");
  }
  if (reader.tensors().size() != TestTensors().size()) return absl::DataLossError(dir + ": other tensors");
  for (const TestTensor& t : TestTensors()) {
    const std::vector<std::byte> content = TestContent(t, step);
    std::vector<std::byte> out(content.size());
    Shape origin;
    origin.rank = t.shape.rank;
    RETURN_IF_ERROR(reader.Read({t.name, t.dtype, t.shape, origin, t.shape}, out));
    if (out != content) return absl::DataLossError(absl::StrFormat("%s: %s differs", dir, t.name));
  }
  return absl::OkStatus();
}

}  // namespace strata::testing
