// The operands of the token-pixel products as pairs of bf16 (bfloat16.h), in place of the fp32 forms in token_pixel.h. Inputs
// are pairs as they lie in memory; what is computed, weights and slopes, is rounded once. The sums, the softmax and
// everything else stay as they are.
//
//   product   K runs over        A                                        B
//   score     pairs of channels  token rows, in place                     pixel rows, transposed by whole lanes
//   gather    pairs of pixels    score rows rounded, in place             two pixel rows, channels interleaved
//   spread    pairs of rows      two score rows rounded, interleaved      two token rows, channels interleaved
//
// Where the count of K is odd, B ends in zeros.

RRSIS_INLINE Halves load_halves(const float* p) { return (Halves)load<float>(p); }
RRSIS_INLINE void store_halves(float* p, Halves v) { store<float>(p, (Vec<float>)v); }

// `channels` bf16 and zeros up to whole vectors of pairs; a null src reads as zeros.
RRSIS_INLINE void load_pairs(float* dst, const void* src, i64 channels) {
  const i64 bytes = src ? 2 * channels : 0;
  __builtin_memcpy(dst, src ? src : dst, bytes);
  __builtin_memset((char*)dst + bytes, 0, 2 * padded_channels<float>(channels) - bytes);
}

// Whether rows of bf16 that lie `row` numbers apart can be read as lanes in place.
RRSIS_INLINE bool readable_as_pairs(const void* data, i64 row, i64 channels) {
  return channels == padded_channels<float>(channels) && row % 2 == 0 && (uintptr_t)data % 4 == 0;
}

template <>
Rows<float> token_rows<float>(const TokenView* banks, const TokenPixelArgs& a, i64 sample, i64 channels, float* copy, bool fill) {
  const TokenView& v = banks[0];
  const void* data = v.data ? element(v.data, sample * v.batch, a.dtype) : nullptr;
  if (data && a.banks == 1 && (a.H <= 1 || v.head == a.L * v.row) && readable_as_pairs(data, v.row, channels))
    return {(const float*)data, v.row / 2};
  const i64 ld = padded_channels<float>(channels) / 2;
  for (i64 row = 0; fill && row < a.H * a.L; ++row)
    load_pairs(copy + row * ld, token_row(banks, a, sample, row / a.L, row % a.L, a.dtype), channels);
  return {copy, ld};
}

// Two rows of pairs of channels, `second` null where there is none, into one row of column panels.
RRSIS_INLINE void pack_two_rows(float* dst, i64 panel_stride, const float* first, const float* second, i64 vectors) {
  typedef MakeIndices<2 * Types<float>::lanes>::type All;
  constexpr i64 lanes = Types<float>::lanes;
  for (i64 v = 0; v < vectors; v += 2) {  // a panel is a whole number of two vectors
    const Halves x = load_halves(first + v / 2 * lanes), y = second ? load_halves(second + v / 2 * lanes) : Halves{};
    float* to = dst + v / kPanel * panel_stride + v % kPanel * lanes;
    store_halves(to, interleave<false>(x, y, All()));
    store_halves(to + lanes, interleave<true>(x, y, All()));
  }
}

template <>
void load_tile<float>(const RowView& v, const TokenPixelArgs& a, bool, i64 sample, i64 n0, i64 count, i64 channels, float* copy,
                      float* transposed, float* panels, bool keep) {
  constexpr i64 lanes = Types<float>::lanes, width = Shape<float>::width;
  const i64 words = padded_channels<float>(channels) / 2, vectors = 2 * words / lanes;
  const void* first = v.data ? element(v.data, sample * v.batch + n0 * v.row, a.dtype) : nullptr;
  Rows<float> rows{copy, words};
  if (first && readable_as_pairs(first, v.row, channels)) {
    rows = {(const float*)first, v.row / 2};
  } else {
    for (i64 n = 0; n < count; ++n) load_pairs(copy + n * words, first ? element(first, n * v.row, a.dtype) : nullptr, channels);
  }
  transpose_tile<float, false>(rows.data, rows.ld, count, words, transposed, nullptr, 0);
  for (i64 n = 0; keep && n < count; n += 2) {
    const float* row = rows.data + n * rows.ld;
    pack_two_rows(panels + n / 2 * width, in_lanes(kTile) * width, row, n + 1 < count ? row + rows.ld : nullptr, vectors);
  }
}

template <>
void pack_values<float>(const TokenPixelArgs& a, const Shape<float>& s, const Group& r, i64 sample, float* dst, float* row) {
  const auto value = [&](i64 i, float* copy) {
    const void* src = token_row(&a.values, a, sample, (r.row0 + i) / a.L, (r.row0 + i) % a.L, a.dtype);
    if (src && readable_as_pairs(src, 0, a.D)) return (const float*)src;
    load_pairs(copy, src, a.D);
    return (const float*)copy;
  };
  for (i64 i = 0; i < r.rows; i += 2) {
    const float *first = value(i, row), *second = i + 1 < r.rows ? value(i + 1, row + s.Dp / 2) : nullptr;
    pack_two_rows(dst + i / 2 * s.width, in_lanes(r.rows) * s.width, first, second, s.d_vectors);
  }
}

template <>
void pack_stacked<float>(const Shape<float>& s, const Group& r, i64 stack, const Rows<float>& keys, const Rows<float>& grads,
                         float* dst) {
  const i64 rows = stack * r.rows;
  const auto row = [&](i64 i) {
    const Rows<float>& from = i < r.rows ? keys : grads;
    return i < rows ? from.data + (r.row0 + i % r.rows) * from.ld : nullptr;
  };
  for (i64 i = 0; i < rows; i += 2)
    pack_two_rows(dst + i / 2 * s.width, in_lanes(rows) * s.width, row(i), row(i + 1), s.c_vectors);
}

// Rounded rows, a score row's in the first half of its place in `out`, which may be `scores`.
template <>
RRSIS_INLINE const float* along_pixels<float>(const float* scores, i64 rows, i64 count, float* out) {
  constexpr i64 lanes = Types<float>::lanes;
  for (i64 i = 0; i < rows; ++i) {
    const float* in = scores + i * kStride;
    float* to = out + i * kStride;
    for (i64 n = 0; n < count; n += 2 * lanes) store_halves(to + n / 2, narrow(load<float>(in + n), load<float>(in + n + lanes)));
  }
  return out;
}

// Two rows at a time, rounded and interleaved, into the place of the first ones: row i takes those of 2i and 2i + 1.
template <>
RRSIS_INLINE const float* along_rows<float>(float* scores, i64 rows, i64 count) {
  typedef MakeIndices<2 * Types<float>::lanes>::type All;
  constexpr i64 lanes = Types<float>::lanes;
  for (i64 i = 0; i < rows; i += 2)
    for (i64 n = 0; n < count; n += lanes) {
      const float* in = scores + i * kStride + n;
      const Halves two = narrow(load<float>(in), i + 1 < rows ? load<float>(in + kStride) : Vec<float>{});
      store_halves(scores + i / 2 * kStride + n, interleave_halves(two, All()));
    }
  return scores;
}

template <>
RRSIS_INLINE Vec<float> store_weights<float>(float* row, i64 n, Vec<float> weights) {
  const Rounded r = rounded(weights);
  store_rounded((char*)row + 2 * n, r);
  return widened(r);
}

// Whole lines, past the caches where the output is large.
template <>
void store_tile<float>(void* out, const float* rows, const TokenPixelArgs& a, i64 count, i64 channels) {
  constexpr i64 lanes = Types<float>::lanes;
  const i64 padded = padded_channels<float>(channels);
  if (channels != padded) {
    for (i64 n = 0; n < count; ++n) store_row<float>(element(out, n * channels, a.dtype), rows + n * padded, a.dtype, channels);
    return;
  }
  const bool stream = (uintptr_t)out % kLine == 0 && a.B * a.N * channels * item_bytes(a.dtype) >= kLarge;
  for (i64 i = 0; i < count * channels; i += 2 * lanes) {
    const Halves line = narrow(load<float>(rows + i), load<float>(rows + i + lanes));
    float* to = (float*)element(out, i, a.dtype);
    if (stream) {
      store_past_caches<float>(to, (Vec<float>)line);
    } else {
      store_halves(to, line);
    }
  }
}
