// What the forward and the backward of the token-pixel operators share: sizes, packed operands, tiles of pixels.
//
// Rows are the R = H * L tokens of all heads; a tile is up to kTile pixels. Scores are kept transposed, S[row][pixel] with
// row stride kStride (no power of two, so that the rows of one pixel do not share a cache set): vectors run across pixels, so
// no softmax needs a sum across lanes per pixel, and no head needs padding to whole vectors. Heads are taken in groups of about kGroupRows rows, so that the score tiles stay in cache.

constexpr i64 kTile = 128;
constexpr i64 kStride = 144;
constexpr i64 kGroupRows = 256;
constexpr i64 kSpread = 160;
constexpr i64 kDepth = 256;  // channels summed from zero before they are added to the score: shorter chains, less rounding

// Numbers that one lane of an operand carries: 2 where bf16 is multiplied in pairs (bfloat16_operands.h).
#ifdef RRSIS_BFLOAT16_PAIRS
constexpr i64 kPerLane = 2;
#else
constexpr i64 kPerLane = 1;
#endif
// Lanes that n numbers take.
constexpr i64 in_lanes(i64 n) { return (n + kPerLane - 1) / kPerLane; }
// Channels of a padded row: whole vectors of the compute type and of the operands.
template <class T>
constexpr i64 padded_channels(i64 channels) {
  return round_up(channels, Types<T>::lanes * kPerLane);
}

template <class T>
struct Shape {
  static constexpr i64 lanes = Types<T>::lanes, width = kPanel * Types<T>::lanes;
  i64 R, Cp, Dp;            // padded to whole vectors
  i64 c_vectors, d_vectors;
  i64 group_heads, groups;
  bool plain_pixels, plain_painted;  // rows of these can be read and written in place

  explicit Shape(const TokenPixelArgs& a) {
    R = a.H * a.L;
    Cp = padded_channels<T>(a.C), Dp = padded_channels<T>(a.D);
    c_vectors = Cp / lanes, d_vectors = Dp / lanes;
    const i64 parts = larger(1, (R + kGroupRows - 1) / kGroupRows);
    group_heads = larger(1, (a.H + parts - 1) / parts);
    groups = larger(1, (a.H + group_heads - 1) / group_heads);  // without heads, one empty group still writes zeros
    plain_pixels = a.dtype == DTypeOf<T>::value && a.C == Cp;
    plain_painted = a.dtype == DTypeOf<T>::value && a.D == Dp;
  }
  i64 group_rows(const TokenPixelArgs& a) const { return smaller(group_heads, a.H) * a.L; }
  // Panel-packed operands are stored group after group, `stack` matrices on top of each other; rows before a group count.
  static i64 packed(i64 vectors, i64 rows) { return round_up(vectors, kPanel) * lanes * rows; }
};

struct Group {
  i64 head0, heads, row0, rows;
};
template <class T>
RRSIS_INLINE Group group_of(const TokenPixelArgs& a, const Shape<T>& s, i64 g) {
  const i64 head0 = g * s.group_heads, heads = smaller(s.group_heads, a.H - head0);
  return {head0, heads, head0 * a.L, heads * a.L};
}

// The same place in the accumulators of another chunk.
template <class T>
RRSIS_INLINE T* at_chunk(T* first, size_t bytes, i64 chunk) {
  return (T*)((char*)first + chunk * bytes);
}

struct Span {
  i64 begin, end;
};
// Pixels of one chunk: even shares, with boundaries where no tile of a longer chunk leaves a panel half empty, on any width.
RRSIS_INLINE Span chunk_span(const TokenPixelArgs& a, i64 chunk) {
  const i64 step = a.N >= 256 * a.chunks ? 64 : 16;
  const i64 begin = chunk == 0 ? 0 : a.N * chunk / a.chunks / step * step;
  const i64 end = chunk + 1 == a.chunks ? a.N : a.N * (chunk + 1) / a.chunks / step * step;
  return {begin, end};
}
// Tiles of a chunk are of nearly equal length for the same reason.
RRSIS_INLINE i64 tile_length(i64 pixels, i64 lanes) {
  const i64 tiles = (pixels + kTile - 1) / kTile;
  return tiles <= 1 ? pixels : smaller(kTile, round_up((pixels + tiles - 1) / tiles, kPanel * lanes));
}

RRSIS_INLINE const void* token_row(const TokenView* banks, const TokenPixelArgs& a, i64 sample, i64 head, i64 l, int dtype) {
  const TokenView& v = banks[head / a.bank_heads];
  if (!v.data) return nullptr;
  return element(v.data, sample * v.batch + (head % a.bank_heads) * v.head + l * v.row, dtype);
}

// Token rows as the products read them: the tensor itself where it can be read in place, else a copy of padded rows.
template <class T>
struct Rows {
  const T* data;
  i64 ld;
};
template <class T>
RRSIS_INLINE bool plain_tokens(const TokenView& v, const TokenPixelArgs& a, i64 channels) {
  return v.data && a.banks == 1 && a.dtype == DTypeOf<T>::value && channels % Types<T>::lanes == 0 && (a.H <= 1 || v.head == a.L * v.row);
}
template <class T>
Rows<T> token_rows(const TokenView* banks, const TokenPixelArgs& a, i64 sample, i64 channels, T* copy, bool fill) {
  if (plain_tokens<T>(banks[0], a, channels)) return {(const T*)banks[0].data + sample * banks[0].batch, banks[0].row};
  const i64 padded = padded_channels<T>(channels);
  for (i64 row = 0; fill && row < a.H * a.L; ++row)
    load_row<T>(copy + row * padded, token_row(banks, a, sample, row / a.L, row % a.L, a.dtype), a.dtype, channels, padded);
  return {copy, padded};
}
// One token row in the compute type, padded with zeros: in place where it can be, else through `copy`.
template <class T>
const T* token_row_as(const TokenView* banks, const TokenPixelArgs& a, i64 sample, i64 row, i64 channels, T* copy) {
  const void* src = token_row(banks, a, sample, row / a.L, row % a.L, a.dtype);
  if (src && a.dtype == DTypeOf<T>::value && channels % Types<T>::lanes == 0) return (const T*)src;
  load_row<T>(copy, src, a.dtype, channels, padded_channels<T>(channels));
  return copy;
}
template <class T>
i64 token_copy_size(const TokenView* banks, const TokenPixelArgs& a, i64 channels) {
  return plain_tokens<T>(banks[0], a, channels) ? 0 : a.H * a.L * padded_channels<T>(channels);
}

template <class T>
void load_key_bias(T* dst, const TokenPixelArgs& a, i64 sample) {
  const TokenView& v = a.key_bias;
  for (i64 h = 0; h < a.H; ++h)
    for (i64 l = 0; l < a.L; ++l, ++dst)
      load_row<T>(dst, v.data ? element(v.data, sample * v.batch + h * v.head + l * v.row, a.dtype) : nullptr, a.dtype, 1, 1);
}

RRSIS_INLINE void load_token_mask(uint8_t* dst, const TokenPixelArgs& a, i64 sample) {
  const uint8_t* mask = (const uint8_t*)a.token_mask.data;
  for (i64 l = 0; l < a.L; ++l) dst[l] = mask ? mask[sample * a.token_mask.batch + l] != 0 : 1;
}

// A tile of pixels in the two layouts that the products read: channels by pixels for scores, pixels by channels (where
// `keep`) for sums over pixels. Rows that cannot be read in place are converted through `copy`.
template <class T>
void load_tile(const RowView& v, const TokenPixelArgs& a, bool plain, i64 sample, i64 n0, i64 count, i64 channels, T* copy,
               T* transposed, T* panels, bool keep) {
  const i64 padded = padded_channels<T>(channels);
  const T* data = copy;
  i64 ld = padded;
  if (plain && v.data) {
    data = (const T*)v.data + sample * v.batch + n0 * v.row, ld = v.row;
  } else {
    for (i64 n = 0; n < count; ++n) {
      const void* src = v.data ? element(v.data, sample * v.batch + (n0 + n) * v.row, a.dtype) : nullptr;
      load_row<T>(copy + n * padded, src, a.dtype, channels, padded);
    }
  }
  if (keep) {
    transpose_tile<T, true>(data, ld, count, padded, transposed, panels, kTile);
  } else {
    transpose_tile<T, false>(data, ld, count, padded, transposed, panels, kTile);
  }
}

// What the pool adds to each pixel's scores: -inf where a pixel is masked or absent, log sigma(+-gate) for twin streams.
// Null when there is nothing to add. Two rows of kTile when there is a gate, else one that serves every head.
template <class T>
struct PixelBias {
  T* data;       // null: nothing to add
  i64 stride;    // between banks
};
template <class T>
PixelBias<T> pixel_bias(const TokenPixelArgs& a, T* out, i64 sample, i64 n0, i64 count) {
  constexpr i64 lanes = Types<T>::lanes;
  const i64 padded = round_up(count, lanes);
  if (!a.gate.data && !a.pixel_mask.data && padded == count) return {nullptr, 0};
  const i64 banks = a.gate.data ? 2 : 1;
  for (i64 bank = 0; bank < banks; ++bank) {
    T* row = out + bank * kStride;
    if (a.gate.data) {
      load_row<T>(row, element(a.gate.data, sample * a.gate.batch + n0, a.gate_dtype), a.gate_dtype, count, padded);
      for (i64 n = 0; n < padded; n += lanes) {
        const Vec<T> g = load<T>(row + n);
        store<T>(row + n, -sigmoid<T>(bank ? g : -g).softplus);
      }
    } else {
      for (i64 n = 0; n < count; ++n) row[n] = 0;
    }
    if (a.pixel_mask.data) {
      const uint8_t* mask = (const uint8_t*)a.pixel_mask.data + sample * a.pixel_mask.batch + n0;
      for (i64 n = 0; n < count; ++n) row[n] = mask[n] ? row[n] : negative_infinity<T>();
    }
    for (i64 n = count; n < padded; ++n) row[n] = negative_infinity<T>();
  }
  return {out, a.gate.data ? kStride : 0};
}

// rows x pixels scores of token rows against a transposed tile.
template <class T>
void score(const Rows<T>& tokens, i64 row0, i64 rows, i64 channels, const T* transposed, i64 vectors, T* out) {
  constexpr i64 width = Shape<T>::width;
  const T* first = tokens.data + row0 * tokens.ld;
  const i64 depth = in_lanes(channels);
  if (channels == 0) {
    for (i64 i = 0; i < rows * kStride; ++i) out[i] = 0;
    return;
  }
  for (i64 c = 0; c < depth; c += kDepth)
    product<T, along_k>(rows, vectors, smaller(kDepth, depth - c), first + c, tokens.ld, transposed + c * width,
                        depth * width, width, out, kStride, c > 0 ? added : fresh);
}

// Scores as the products read them, K running over pixels or over rows: as they are. Specialised with the operands.
template <class T>
RRSIS_INLINE const T* along_pixels(const T* scores, i64, i64, T*) {
  return scores;
}
template <class T>
RRSIS_INLINE const T* along_rows(T* scores, i64, i64) {
  return scores;
}
// Stores weights of a row, from its pixel n on, as the products read them. Returns them as stored: what their sum has to add up.
template <class T>
RRSIS_INLINE Vec<T> store_weights(T* row, i64 n, Vec<T> weights) {
  store<T>(row + n, weights);
  return weights;
}

// sums (+)= weights x tile, the tile kept by load_tile: one row of `channels` per score row.
template <class T>
void gather(const T* weights, i64 rows, i64 count, const T* panels, i64 vectors, T* sums, bool accumulate,
            Ahead* ahead = nullptr) {
  constexpr i64 width = Shape<T>::width;
  product<T, along_k>(rows, vectors, in_lanes(count), weights, kStride, panels, in_lanes(kTile) * width, width, sums,
                      vectors * Types<T>::lanes, accumulate ? added : fresh, ahead);
}

// The rows after a tile, to be fetched while a product of R rows and `vectors` runs.
template <class T>
Ahead next_tile(const RowView& v, const TokenPixelArgs& a, const Shape<T>& s, i64 sample, i64 n0, i64 count, i64 vectors) {
  const i64 blocks = (s.R + kBlockRows - 1) / kBlockRows * ((vectors + kPanel - 1) / kPanel), left = a.N - n0 - count;
  Ahead ahead;
  if (!v.data || left <= 0 || blocks == 0) return ahead;
  const i64 bytes = smaller(count, left) * v.row * item_bytes(a.dtype);
  ahead.next = (const char*)element(v.data, sample * v.batch + (n0 + count) * v.row, a.dtype);
  ahead.end = ahead.next + bytes;
  ahead.lines = (bytes / kLine + blocks - 1) / blocks;
  return ahead;
}

// Rows of the compute type, padded, to their place in an output of another type or width.
template <class T>
void store_tile(void* out, const T* rows, const TokenPixelArgs& a, i64 count, i64 channels) {
  const i64 padded = padded_channels<T>(channels);
  for (i64 n = 0; n < count; ++n) store_row<T>(element(out, n * channels, a.dtype), rows + n * padded, a.dtype, channels);
}

// How `spread` writes a tile: past the caches where `rows` token rows make one step, lines are whole, and the output is large.
template <class T>
Output output_of(const TokenPixelArgs& a, const T* tile, bool plain, i64 rows, i64 channels) {
  const i64 row_bytes = channels * (i64)sizeof(T);
  const bool once = plain && rows <= kSpread, lines = row_bytes % kLine == 0 && (uintptr_t)tile % kLine == 0;
  return once && lines && a.B * a.N * row_bytes >= kLarge ? streamed : fresh;
}

// pixels (+)= scores^T x packed token rows, in steps of at most kSpread rows: a panel and the scores of a block of pixels,
// which use a third of each line that they touch, then stay in the first-level cache together.
template <class T>
void spread(const T* scores, i64 count, i64 rows, const T* packed, i64 vectors, T* pixels, Output output) {
  constexpr i64 width = Shape<T>::width;
  const i64 depth = in_lanes(rows), steps = larger(1, (depth + kSpread - 1) / kSpread);
  for (i64 i = 0; i < steps; ++i) {
    const i64 begin = depth * i / steps, end = depth * (i + 1) / steps;
    product<T, along_m>(count, vectors, end - begin, scores + begin * kStride, kStride, packed + begin * width, depth * width, width,
                        pixels, vectors * Types<T>::lanes, i > 0 ? added : output);
  }
}
