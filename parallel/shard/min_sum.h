#pragma once
// Minimizes a sum of tables over discrete variables, exactly: eliminates one variable after the other, the one with the
// smallest joint table first (bucket elimination; Dechter, "Bucket elimination", 1999).

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"

namespace strata {

inline constexpr double kForbidden = 1e30;  // the cost of what must not be

class MinSum {
 public:
  int AddVariable(int domain);
  // `costs` is row-major over the domains of `variables`, which are distinct.
  void AddTable(const std::vector<int>& variables, std::vector<double> costs);
  // A value per variable. Ties go to the smaller value, in a fixed order of variables: the same on every rank.
  // Errors: ResourceExhausted if a joint table would be too wide.
  absl::StatusOr<std::vector<int>> Solve() &&;

 private:
  struct Table {
    std::vector<int> variables;
    std::vector<double> costs;
  };
  std::vector<int> Neighbours(int variable) const;  // sorted, without itself
  int64_t Width(int variable) const;

  std::vector<int> domain_;
  std::vector<Table> tables_;
  std::vector<std::vector<int>> tables_of_;  // by variable, tables that are alive
};

}  // namespace strata
