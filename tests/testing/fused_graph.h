#pragma once
// What tests of fusions ask of a graph: its outputs on one CPU, and how often each op is there.

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "core/plan/fuse.h"
#include "tests/testing/interpreter.h"

namespace strata::testing {

// The outputs by name; ops that have no CPU kernel run as the ops that they stand for.
inline std::map<std::string, Tensor> OutputsOf(const Graph& whole, std::map<std::string, Tensor> bindings) {
  const KernelTable cpu = CpuKernels();
  const auto graph = DecomposeOps(whole, [&](const Op& op) {
    return !op.IsView() && op.name() != "input" && op.name() != "read" && !cpu.Has(op.name());
  });
  EXPECT_TRUE(graph.ok()) << graph.status();
  const auto values = Evaluate(*graph, bindings);
  EXPECT_TRUE(values.ok()) << values.status();
  std::map<std::string, Tensor> out;
  for (const auto& [name, v] : graph->outputs) out[name] = (*values)[v.node][v.output];
  return out;
}

inline std::map<std::string, int> OpCounts(const Graph& graph) {
  std::map<std::string, int> ops;
  for (const Node& n : graph.nodes) ++ops[std::string(n.op->name())];
  return ops;
}

}  // namespace strata::testing
