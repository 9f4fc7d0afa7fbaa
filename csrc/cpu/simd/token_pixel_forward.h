// Forward of bidirectional spatial correlation and of twin-stream attention: each pixel is read once.

template <class T>
struct ForwardSample {  // packed operands of one sample
  T *keys, *values, *bias;
  uint8_t* kept;
  ForwardSample(const TokenPixelArgs& a, const Shape<T>& s, Bump& m) {
    keys = m.take<T>(token_copy_size<T>(a.keys, a, a.C));
    values = m.take<T>(a.paint ? s.packed(s.d_vectors, s.R) : 0);
    bias = m.take<T>(s.R);
    kept = m.take<uint8_t>(a.L);
  }
};

template <class T>
struct PoolPartial {  // running softmax over the pixels of one chunk
  T *sums, *maximum, *total;
  PoolPartial(const TokenPixelArgs& a, const Shape<T>& s, Bump& m) {
    sums = m.take<T>(a.pool ? s.R * s.Cp : 0);
    maximum = m.take<T>(a.pool ? s.R : 0);
    total = m.take<T>(a.pool ? s.R : 0);
  }
};

template <class T>
struct ForwardTile {
  T *pixels, *transposed, *panels, *scores, *weights, *painted, *bias, *lse, *row;
  ForwardTile(const TokenPixelArgs& a, const Shape<T>& s, Bump& m) {
    const i64 rows = s.group_rows(a);
    pixels = m.take<T>(s.plain_pixels ? 0 : kTile * s.Cp);
    transposed = m.take<T>(round_up(kTile, s.width) * s.Cp);
    panels = m.take<T>(a.pool ? s.packed(s.c_vectors, kTile) : 0);
    scores = m.take<T>(rows * kStride);
    weights = a.paint && a.pool ? m.take<T>(rows * kStride) : scores;
    painted = m.take<T>(a.paint && !s.plain_painted ? kTile * s.Dp : 0);
    bias = m.take<T>(2 * kStride);
    lse = m.take<T>(kStride);
    row = m.take<T>(larger(s.Cp, s.Dp));
  }
};

template <class T>
WorkSizes forward_sizes(const TokenPixelArgs& a) {
  const Shape<T> s(a);
  Bump sample{nullptr, 0}, partial{nullptr, 0}, thread{nullptr, 0};
  ForwardSample<T>(a, s, sample);
  PoolPartial<T>(a, s, partial);
  ForwardTile<T>(a, s, thread);
  return {sample.used, partial.used, thread.used};
}

// The values of one group of heads, packed for `spread`; `row` is room for one of them.
template <class T>
void pack_values(const TokenPixelArgs& a, const Shape<T>& s, const Group& r, i64 sample, T* dst, T* row) {
  for (i64 i = 0; i < r.rows; ++i)
    pack_row<T>(dst + i * s.width, r.rows * s.width, token_row_as<T>(&a.values, a, sample, r.row0 + i, a.D, row), s.d_vectors);
}

template <class T>
void forward_prepare(const TokenPixelArgs& a, i64 sample, const WorkMemory& w) {
  const Shape<T> s(a);
  Bump ms{w.samples, 0}, mt{w.thread, 0};
  const ForwardSample<T> p(a, s, ms);
  const ForwardTile<T> t(a, s, mt);
  token_rows<T>(a.keys, a, sample, a.C, p.keys, true);
  load_key_bias<T>(p.bias, a, sample);
  load_token_mask(p.kept, a, sample);
  for (i64 g = 0; a.paint && g < s.groups; ++g) {
    const Group r = group_of(a, s, g);
    pack_values<T>(a, s, r, sample, p.values + s.packed(s.d_vectors, r.row0), t.row);
  }
}

// Moves the running maximum of a pooled row, from which its weights are measured; its total and sums move along.
template <class T>
RRSIS_INLINE void move_maximum(const Shape<T>& s, const PoolPartial<T>& pool, i64 row, T now) {
  const T before = pool.maximum[row];
  if (now == before) return;
  pool.maximum[row] = now;
  if (before == negative_infinity<T>()) return;
  const T factor = exponential_of<T>(before - now);
  pool.total[row] *= factor;
  T* sums = pool.sums + row * s.Cp;
  for (i64 c = 0; c < s.Cp; c += s.lanes) store<T>(sums + c, load<T>(sums + c) * factor);
}

// weights = exp(score + biases - maximum) of row i of a group; the running maximum, total and sums of the row move along.
template <class T>
void pool_weights(const TokenPixelArgs& a, const Shape<T>& s, const Group& r, i64 i, const ForwardSample<T>& p,
                  const ForwardTile<T>& t, const PoolPartial<T>& pool, const PixelBias<T>& extra, i64 padded) {
  constexpr i64 lanes = Types<T>::lanes;
  const i64 row = r.row0 + i;
  const T *in = t.scores + i * kStride, *add = extra.data ? extra.data + (r.head0 + i / a.L) / a.bank_heads * extra.stride : nullptr;
  T* out = t.weights + i * kStride;
  const Vec<T> bias = splat<T>(p.bias[row]);
  Vec<T> top = splat<T>(negative_infinity<T>());
  if (add) {
    for (i64 n = 0; n < padded; n += lanes) {
      const Vec<T> v = load<T>(in + n) + bias + load<T>(add + n);
      store<T>(out + n, v);
      top = maximum<T>(top, v);
    }
  } else {
    for (i64 n = 0; n < padded; n += lanes) {
      const Vec<T> v = load<T>(in + n) + bias;
      store<T>(out + n, v);
      top = maximum<T>(top, v);
    }
  }
  const T before = pool.maximum[row], tile_top = reduce_max<T>(top), now = tile_top > before ? tile_top : before;
  const T shift = now == negative_infinity<T>() ? 0 : now;
  Vec<T> total{};
  for (i64 n = 0; n < padded; n += lanes) {
    total += store_weights<T>(out, n, exponential(load<T>(out + n) - shift));
  }
  move_maximum<T>(s, pool, row, now);
  pool.total[row] += reduce_add<T>(total);
}

// Scores of one head become the softmax over its kept tokens, for each pixel; a pixel without tokens gets zeros.
template <class T>
void paint_softmax(T* scores, const T* bias, const uint8_t* kept, i64 L, i64 padded, T* lse) {
  constexpr i64 lanes = Types<T>::lanes;
  const T low = negative_infinity<T>();
  for (i64 n = 0; n < padded; n += lanes) {
    Vec<T> top = splat<T>(low);
    for (i64 l = 0; l < L; ++l)
      if (kept[l]) top = maximum<T>(top, load<T>(scores + l * kStride + n) + bias[l]);
    const Vec<T> shift = finite_or_zero<T>(top);
    Vec<T> total{};
    for (i64 l = 0; l < L; ++l) {
      T* at = scores + l * kStride + n;
      const Vec<T> e = kept[l] ? exponential((load<T>(at) + bias[l]) - shift) : Vec<T>{};
      store<T>(at, e);
      total += e;
    }
    const Vec<T> inverse = total == 0 ? Vec<T>{} : (T)1 / total;
    for (i64 l = 0; l < L; ++l) {
      T* at = scores + l * kStride + n;
      store<T>(at, load<T>(at) * inverse);
    }
    if (lse) store<T>(lse + n, total == 0 ? splat<T>(low) : shift + logarithm(total));
  }
}

// Where the scores of a head lie close together over a tile, one exponential serves both softmaxes: measured from one number
// for all rows, no weight comes near the smallest float. Wider, or with a masked pixel, each row and pixel needs its own.
template <class T>
struct Joint {
  static constexpr T kRange = 30;  // from the largest score down to the smallest
  static constexpr T kLead = 8;    // that much a score may lie above the number: moving it rescales sums
  T shift;
  bool possible;
};

template <class T>
__attribute__((noinline)) Joint<T> joint_shift(const T* scores, const T* bias, const uint8_t* kept, const T* maxima, i64 L, i64 padded) {
  constexpr i64 lanes = Types<T>::lanes;
  const Vec<T> low = splat<T>(negative_infinity<T>());
  Vec<T> top[2] = {low, low}, bottom[2] = {-low, -low};
  T before = negative_infinity<T>();
  bool any = false;
  for (i64 l = 0; l < L; ++l) {
    if (!kept[l]) continue;
    any = true;
    before = maxima[l] > before ? maxima[l] : before;
    const T* in = scores + l * kStride;
    for (i64 n = 0; n < padded; n += lanes) {
      const i64 k = n / lanes % 2;
      const Vec<T> v = load<T>(in + n) + bias[l];
      top[k] = maximum<T>(top[k], v);
      bottom[k] = minimum<T>(bottom[k], v);
    }
  }
  const T most = reduce_max<T>(maximum<T>(top[0], top[1])), least = reduce_min<T>(minimum<T>(bottom[0], bottom[1]));
  const T shift = most <= before + Joint<T>::kLead ? before : most;
  return {shift, any && shift - least <= Joint<T>::kRange};
}

// Both softmaxes of one head from one exponential. `extra` is null, or hides the pixels that fill the last vector.
template <class T>
__attribute__((noinline)) void joint_softmax(const TokenPixelArgs& a, const Shape<T>& s, const Group& r, i64 first, const ForwardSample<T>& p,
                   const ForwardTile<T>& t, const PoolPartial<T>& pool, const PixelBias<T>& extra, T shift, i64 padded) {
  constexpr i64 lanes = Types<T>::lanes;
  for (i64 i = first; i < first + a.L; ++i) {
    const i64 row = r.row0 + i;
    T *in = t.scores + i * kStride, *out = t.weights + i * kStride;
    if (!p.kept[i - first]) {  // it pools all the same
      pool_weights<T>(a, s, r, i, p, t, pool, extra, padded);
      for (i64 n = 0; n < padded; n += lanes) store<T>(in + n, Vec<T>{});
      continue;
    }
    move_maximum<T>(s, pool, row, shift);
    const Vec<T> bias = splat<T>(p.bias[row]);
    Vec<T> total{};
    for (i64 n = 0; n < padded; n += lanes) {
      const Vec<T> e = exponential((load<T>(in + n) + bias) - shift);
      store<T>(in + n, e);
      total += store_weights<T>(out, n, extra.data ? (load<T>(extra.data + n) == 0 ? e : Vec<T>{}) : e);
    }
    pool.total[row] += reduce_add<T>(total);
  }
  for (i64 n = 0; n < padded; n += lanes) {
    T* column = t.scores + first * kStride + n;
    Vec<T> sum{};
    for (i64 l = 0; l < a.L; ++l) sum += load<T>(column + l * kStride);
    const Vec<T> inverse = (T)1 / sum;
    for (i64 l = 0; l < a.L; ++l) store<T>(column + l * kStride, load<T>(column + l * kStride) * inverse);
    store<T>(t.lse + n, shift + logarithm(sum));
  }
}

template <class T>
__attribute__((noinline)) bool every_pixel_real(const TokenPixelArgs& a, i64 sample, i64 n0, i64 count) {
  const uint8_t* mask = (const uint8_t*)a.pixel_mask.data;
  bool real = true;
  if (mask)
    for (i64 n = 0; n < count; ++n) real &= mask[sample * a.pixel_mask.batch + n0 + n] != 0;
  return real;
}

// Scores of one group of heads become the weights of both softmaxes, t.scores painting and t.weights pooling.
template <class T>
__attribute__((noinline)) void forward_weights(const TokenPixelArgs& a, const Shape<T>& s, const Group& r, const ForwardSample<T>& p, const ForwardTile<T>& t,
                     const PoolPartial<T>& pool, const PixelBias<T>& extra, i64 sample, i64 n0, i64 count, bool real) {
  const i64 padded = round_up(count, s.lanes);
  for (i64 h = 0; h < r.heads; ++h) {
    const i64 first = h * a.L, row = r.row0 + first;
    T* scores = t.scores + first * kStride;
    const Joint<T> joint = real ? joint_shift<T>(scores, p.bias + row, p.kept, pool.maximum + row, a.L, padded) : Joint<T>{0, false};
    if (joint.possible) {
      joint_softmax<T>(a, s, r, first, p, t, pool, extra, joint.shift, padded);
    } else {
      for (i64 i = first; a.pool && i < first + a.L; ++i) pool_weights<T>(a, s, r, i, p, t, pool, extra, padded);
      if (a.paint) paint_softmax<T>(scores, p.bias + row, p.kept, a.L, padded, t.lse);
    }
    if (!a.paint) continue;
    T* lse = (T*)a.pixel_lse + (sample * a.H + r.head0 + h) * a.N + n0;
    for (i64 n = 0; n < count; ++n) lse[n] = t.lse[n];
  }
}

template <class T>
void forward_tile(const TokenPixelArgs& a, const Shape<T>& s, const ForwardSample<T>& p, const ForwardTile<T>& t,
                  const PoolPartial<T>& pool, i64 sample, i64 n0, i64 count, bool first) {
  const i64 padded = round_up(count, s.lanes);
  load_tile<T>(a.pixels, a, s.plain_pixels, sample, n0, count, a.C, t.pixels, t.transposed, t.panels, a.pool);
  const Rows<T> keys = token_rows<T>(a.keys, a, sample, a.C, p.keys, false);
  const PixelBias<T> extra = a.pool ? pixel_bias<T>(a, t.bias, sample, n0, count) : PixelBias<T>{nullptr, 0};
  T* painted = s.plain_painted ? (T*)a.painted + (sample * a.N + n0) * a.D : t.painted;
  const Output output = output_of<T>(a, painted, s.plain_painted, s.R, a.D);
  const bool real = a.paint && a.pool && every_pixel_real<T>(a, sample, n0, count);
  Ahead ahead = next_tile<T>(a.pixels, a, s, sample, n0, count, s.c_vectors);
  for (i64 g = 0; g < s.groups; ++g) {
    const Group r = group_of(a, s, g);
    score<T>(keys, r.row0, r.rows, s.Cp, t.transposed, padded / s.lanes, t.scores);
    forward_weights<T>(a, s, r, p, t, pool, extra, sample, n0, count, real);
    if (a.pool)
      gather<T>(t.weights, r.rows, count, t.panels, s.c_vectors, pool.sums + r.row0 * s.Cp, !first, &ahead);
    if (a.paint)
      spread<T>(along_rows<T>(t.scores, r.rows, count), count, r.rows, p.values + s.packed(s.d_vectors, r.row0), s.d_vectors,
                painted, g > 0 ? added : output);
  }
  if (a.paint && !s.plain_painted) store_tile<T>(element(a.painted, (sample * a.N + n0) * a.D, a.dtype), t.painted, a, count, a.D);
}

template <class T>
void forward_chunk(const TokenPixelArgs& a, i64 sample, i64 chunk, const WorkMemory& w) {
  const Shape<T> s(a);
  Bump ms{w.samples, 0}, mp{w.partials, 0}, mt{w.thread, 0};
  const ForwardSample<T> p(a, s, ms);
  const PoolPartial<T> pool(a, s, mp);
  const ForwardTile<T> t(a, s, mt);
  for (i64 i = 0; a.pool && i < s.R; ++i) pool.maximum[i] = negative_infinity<T>(), pool.total[i] = 0;
  const Span span = chunk_span(a, chunk);
  const i64 step = tile_length(span.end - span.begin, s.lanes);
  for (i64 n = span.begin; n < span.end; n += step)
    forward_tile<T>(a, s, p, t, pool, sample, n, smaller(step, span.end - n), n == span.begin);
  finish_stores();
}

// Combines the chunks of a sample, in their order, into the pooled tokens; a token without pixels gets zeros.
template <class T>
void forward_finish(const TokenPixelArgs& a, i64 sample, const WorkMemory& w) {
  if (!a.pool) return;
  const Shape<T> s(a);
  const size_t bytes = forward_sizes<T>(a).partial;
  Bump mp{w.partials, 0}, mt{w.thread, 0};
  const PoolPartial<T> first(a, s, mp);
  const ForwardTile<T> t(a, s, mt);
  const bool plain = s.plain_pixels;  // pooled rows are as wide as pixels
  for (i64 row = 0; row < s.R; ++row) {
    T top = negative_infinity<T>(), total = 0, factors[kMostChunks];
    for (i64 i = 0; i < a.chunks; ++i) {
      const T v = *at_chunk(first.maximum + row, bytes, i);
      top = v > top ? v : top;
    }
    const T shift = top == negative_infinity<T>() ? 0 : top;
    for (i64 i = 0; i < a.chunks; ++i) {
      factors[i] = exponential_of<T>(*at_chunk(first.maximum + row, bytes, i) - shift);
      total += *at_chunk(first.total + row, bytes, i) * factors[i];
    }
    T* stats = (T*)a.pool_stats + (sample * s.R + row) * 2;
    stats[0] = shift;
    stats[1] = total;
    const i64 head = row / a.L, bank = head / a.bank_heads;
    void* out = element(a.pooled[bank], ((sample * a.bank_heads + head % a.bank_heads) * a.L + row % a.L) * a.C, a.dtype);
    if (total == 0) {
      __builtin_memset(out, 0, a.C * item_bytes(a.dtype));
      continue;
    }
    for (i64 i = 0; i < a.chunks; ++i) factors[i] /= total;
    T* sums = plain ? (T*)out : t.row;
    for (i64 c = 0; c < s.Cp; c += s.lanes) {
      Vec<T> sum{};
      for (i64 i = 0; i < a.chunks; ++i) sum += load<T>(at_chunk(first.sums + row * s.Cp + c, bytes, i)) * factors[i];
      store<T>(sums + c, sum);
    }
    if (!plain) store_row<T>(out, sums, a.dtype, a.C);
  }
}
