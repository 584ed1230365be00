// What every vector header shares.
//
// A vector header defines, in namespace strobe::cpu::STROBE_ISA: F32 (kLanes floats), Mask, the functions below, the
// register tile of the products (kTileRows x kTileVectors), and kBf16PerUnit. A *unit* is one 32-bit lane of a packed
// operand: one float, or where the instruction set multiplies bf16 itself a pair of bf16 that are neighbours along the
// summed dimension (kBf16PerUnit = 2; then Dot<2> exists).
#pragma once

#include <cstdint>

namespace strobe::cpu::STROBE_ISA {

struct Bf16 {
  uint16_t bits;
};

/// c + a * b over the elements of each unit; the specialisations name the elements of a unit.
template <int kPerUnit>
struct Dot;

}  // namespace strobe::cpu::STROBE_ISA
