// Everything that is compiled once per instruction set, in an anonymous namespace: two sets never share a symbol. The
// including file sets RRSIS_VECTOR_BYTES, RRSIS_PANEL (vectors of a column panel) and RRSIS_BLOCK_ROWS; with
// RRSIS_BFLOAT16_PAIRS what is compiled is for bf16 inputs alone, multiplied as bf16.
#if defined(__GNUC__) && !defined(__clang__)
// The kernels are vectorised by hand. GCC's straight-line vectoriser would turn neighbouring scalar broadcasts into a vector load
// and shuffles, and spill the accumulators.
#pragma GCC optimize("no-tree-slp-vectorize")
#endif

namespace rrsis_kernels {
namespace {

constexpr int64_t kPanel = RRSIS_PANEL;
constexpr int64_t kBlockRows = RRSIS_BLOCK_ROWS;

#include "vec.h"
#include "convert.h"
#include "gemm.h"
#ifdef RRSIS_BFLOAT16_PAIRS
#include "bfloat16.h"
#endif
#include "token_pixel.h"
#include "token_pixel_forward.h"
#include "token_pixel_backward.h"
#ifdef RRSIS_BFLOAT16_PAIRS
#include "bfloat16_operands.h"
#endif
#include "mask_statistics.h"
#include "masked_cosine.h"
#include "table.h"

}  // namespace
}  // namespace rrsis_kernels
