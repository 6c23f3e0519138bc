#pragma once
// Elementwise ops. Operands have one shape and one dtype (Accumulate: see there); nothing is broadcast.
// Sharding: every dim may be sharded. Partial passes through the linear ones: Add, Scale, Identity, Accumulate.

#include "core/graph/builder.h"
#include "core/graph/op.h"

namespace strata {

Value Add(GraphBuilder& g, Value a, Value b, SourceLoc loc = SourceLoc::Here());
Value Mul(GraphBuilder& g, Value a, Value b, SourceLoc loc = SourceLoc::Here());
Value Scale(GraphBuilder& g, Value a, double factor, SourceLoc loc = SourceLoc::Here());

// a itself, as a value that can be named and pinned. A view; its gradient is an Identity too.
Value Identity(GraphBuilder& g, Value a, SourceLoc loc = SourceLoc::Here());

// a * sigmoid(a). SiluDx: its gradient times dy. Source: Elfwing et al., arXiv:1702.03118.
Value Silu(GraphBuilder& g, Value a, SourceLoc loc = SourceLoc::Here());
Value SiluDx(GraphBuilder& g, Value dy, Value a, SourceLoc loc = SourceLoc::Here());

// silu(gate) * up, rounded once. Source: Shazeer, "GLU Variants Improve Transformer", arXiv:2002.05202.
Value Swiglu(GraphBuilder& g, Value gate, Value up, SourceLoc loc = SourceLoc::Here());
struct SwigluGrads {
  Value gate, up;
};
SwigluGrads SwigluDx(GraphBuilder& g, Value dy, Value gate, Value up, SourceLoc loc = SourceLoc::Here());

// acc + x in acc's storage; x alone where KernelArgs::overwrite is set (first micro-batch). acc's dtype is
// AccumulatorOf(x's dtype): gradients of bf16 parameters add up in f32. Or bf16, for what is added once: x, f32 or bf16, is
// rounded. Not differentiable.
Value Accumulate(GraphBuilder& g, Value acc, Value x, SourceLoc loc = SourceLoc::Here());

double ScaleFactor(const Op& scale);  // of an op named "scale": for its kernel

}  // namespace strata
