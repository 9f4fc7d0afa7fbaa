// What the forward and the backward of the token-pixel operators share: sizes, packed operands, tiles of pixels.
//
// Rows are the R = H * L tokens of all heads; a tile is up to kTile pixels. Scores are kept transposed, S[row][pixel] with
// row stride kTile: vectors run across pixels, so no softmax needs a sum across lanes per pixel, and no head needs
// padding to whole vectors. Heads are taken in groups of about kGroupRows rows, so that the score tiles stay in cache.

constexpr i64 kTile = 112;
constexpr i64 kGroupRows = 256;
constexpr i64 kDepth = 256;  // channels summed from zero before they are added to the score: shorter chains, less rounding

template <class T>
struct Shape {
  static constexpr i64 lanes = Types<T>::lanes, width = kPanel * Types<T>::lanes;
  i64 R, Cp, Dp;            // padded to whole vectors
  i64 c_vectors, d_vectors;
  i64 group_heads, groups;
  bool plain_pixels, plain_painted;  // rows of these can be read and written in place

  explicit Shape(const TokenPixelArgs& a) {
    R = a.H * a.L;
    Cp = round_up(a.C, lanes), Dp = round_up(a.D, lanes);
    c_vectors = Cp / lanes, d_vectors = Dp / lanes;
    const i64 parts = larger(1, (R + kGroupRows - 1) / kGroupRows);
    group_heads = larger(1, (a.H + parts - 1) / parts);
    groups = (a.H + group_heads - 1) / group_heads;
    plain_pixels = a.dtype == DTypeOf<T>::value && a.C == Cp;
    plain_painted = a.dtype == DTypeOf<T>::value && a.D == Dp;
  }
  i64 group_rows(const TokenPixelArgs& a) const { return smaller(group_heads, a.H) * a.L; }
  // Panel-packed operands are stored group after group, `stack` matrices on top of each other.
  static i64 panels(i64 vectors) { return (vectors + kPanel - 1) / kPanel; }
  i64 packed_size(i64 vectors, i64 stack) const { return panels(vectors) * width * R * stack; }
};

struct Group {
  i64 head0, heads, row0, rows;
};
template <class T>
RRSIS_INLINE Group group_of(const TokenPixelArgs& a, const Shape<T>& s, i64 g) {
  const i64 head0 = g * s.group_heads, heads = smaller(s.group_heads, a.H - head0);
  return {head0, heads, head0 * a.L, heads * a.L};
}

struct Span {
  i64 begin, end;
};
// Pixels of one chunk: even shares with boundaries on multiples of 8, whatever the vector width.
RRSIS_INLINE Span chunk_span(const TokenPixelArgs& a, i64 chunk) {
  const i64 begin = chunk == 0 ? 0 : (a.N * chunk / a.chunks) & ~(i64)7;
  const i64 end = chunk + 1 == a.chunks ? a.N : (a.N * (chunk + 1) / a.chunks) & ~(i64)7;
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

template <class T>
void load_tokens(T* dst, i64 padded, const TokenView* banks, const TokenPixelArgs& a, i64 sample, i64 channels) {
  for (i64 h = 0; h < a.H; ++h)
    for (i64 l = 0; l < a.L; ++l, dst += padded)
      load_row<T>(dst, token_row(banks, a, sample, h, l, a.dtype), a.dtype, channels, padded);
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

// Rows of a tile that the products can read: the tensor itself where dtype and width allow it, else a copy.
template <class T>
struct Rows {
  const T* data;
  i64 ld;
};
template <class T>
Rows<T> tile_rows(const RowView& v, bool plain, T* copy, i64 sample, i64 n0, i64 count, i64 channels, i64 padded, int dtype) {
  if (plain) return {(const T*)v.data + sample * v.batch + n0 * v.row, v.row};
  for (i64 n = 0; n < count; ++n)
    load_row<T>(copy + n * padded, element(v.data, sample * v.batch + (n0 + n) * v.row, dtype), dtype, channels, padded);
  return {copy, padded};
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
    T* row = out + bank * kTile;
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
  return {out, a.gate.data ? kTile : 0};
}

// rows x pixels scores of natural token rows against a transposed tile.
template <class T>
void score(const T* tokens, i64 rows, i64 channels, const T* transposed, i64 vectors, T* out) {
  constexpr i64 width = Shape<T>::width;
  if (channels == 0) {
    for (i64 i = 0; i < rows * kTile; ++i) out[i] = 0;
    return;
  }
  for (i64 c = 0; c < channels; c += kDepth)
    product<T, along_k>(rows, vectors, smaller(kDepth, channels - c), tokens + c, channels, transposed + c * width,
                        channels * width, width, out, kTile, c > 0);
}
