#pragma once
// Transports treat what goes between pipeline stages apart from collectives of groups, and know it by its communicator's name.

#include <string_view>

namespace strata {

inline constexpr std::string_view kEdgePrefix = "edge ";  // ToString(Edge) in core/plan/plan.h begins so
inline bool NamesEdge(std::string_view communicator) { return communicator.starts_with(kEdgePrefix); }

}  // namespace strata
