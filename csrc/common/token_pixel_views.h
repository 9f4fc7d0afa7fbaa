// The tensors of both token-pixel operators as the kernels of every device see them. As views.h, without the standard library.
#pragma once

#include "views.h"

namespace rrsis_kernels {

// Token tensors come in one bank (spatial correlation) or two (twin stream); a bank holds `bank_heads` heads, and kernels
// see H = banks * bank_heads heads of L rows.
struct TokenPixelViews {
  int64_t B, N, C, D, H, L;
  int banks;
  int64_t bank_heads;
  int dtype;           // of pixels, tokens and their outputs

  RowView pixels;
  TokenView keys[2];
  TokenView values;
  TokenView key_bias;  // (B, H, L): `row` is the stride of l
  RowView token_mask;  // (B, L) bool
  RowView pixel_mask;  // (B, N) bool
  RowView gate;        // (B, N): its log-sigmoid is added in the first bank, that of its negative in the second
  int gate_dtype;
};

}  // namespace rrsis_kernels
