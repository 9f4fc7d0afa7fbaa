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

// weights[row] = exp(score + biases - maximum); the running maximum, total and sums of the rows move along.
template <class T>
void pool_weights(const TokenPixelArgs& a, const Shape<T>& s, const Group& r, const ForwardSample<T>& p, const ForwardTile<T>& t,
                  const PoolPartial<T>& pool, const PixelBias<T>& extra, i64 padded) {
  constexpr i64 lanes = Types<T>::lanes;
  for (i64 i = 0; i < r.rows; ++i) {
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
      const Vec<T> e = as_operand<T>(exponential(load<T>(out + n) - shift));
      store<T>(out + n, e);
      total += e;
    }
    pool.maximum[row] = now;
    if (now != before && before != negative_infinity<T>()) {
      const T factor = exponential_of<T>(before - shift);
      pool.total[row] *= factor;
      T* sums = pool.sums + row * s.Cp;
      for (i64 c = 0; c < s.Cp; c += lanes) store<T>(sums + c, load<T>(sums + c) * factor);
    }
    pool.total[row] += reduce_add<T>(total);
  }
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

template <class T>
void forward_tile(const TokenPixelArgs& a, const Shape<T>& s, const ForwardSample<T>& p, const ForwardTile<T>& t,
                  const PoolPartial<T>& pool, i64 sample, i64 n0, i64 count, bool first) {
  const i64 padded = round_up(count, s.lanes);
  load_tile<T>(a.pixels, a, s.plain_pixels, sample, n0, count, a.C, t.pixels, t.transposed, t.panels, a.pool);
  const Rows<T> keys = token_rows<T>(a.keys, a, sample, a.C, p.keys, false);
  const PixelBias<T> extra = a.pool ? pixel_bias<T>(a, t.bias, sample, n0, count) : PixelBias<T>{nullptr, 0};
  T* painted = s.plain_painted ? (T*)a.painted + (sample * a.N + n0) * a.D : t.painted;
  const Output output = output_of<T>(a, painted, s.plain_painted, s.R, a.D);
  Ahead ahead = next_tile<T>(a.pixels, a, s, s.plain_pixels, sample, n0, count, s.c_vectors);
  for (i64 g = 0; g < s.groups; ++g) {
    const Group r = group_of(a, s, g);
    score<T>(keys, r.row0, r.rows, s.Cp, t.transposed, padded / s.lanes, t.scores);
    if (a.pool) {
      pool_weights<T>(a, s, r, p, t, pool, extra, padded);
      gather<T>(along_pixels<T>(t.weights, r.rows, count, t.weights), r.rows, count, t.panels, s.c_vectors,
                pool.sums + r.row0 * s.Cp, !first, &ahead);
    }
    if (a.paint) {
      for (i64 h = 0; h < r.heads; ++h) {
        paint_softmax<T>(t.scores + h * a.L * kStride, p.bias + r.row0 + h * a.L, p.kept, a.L, padded, t.lse);
        T* lse = (T*)a.pixel_lse + (sample * a.H + r.head0 + h) * a.N + n0;
        for (i64 n = 0; n < count; ++n) lse[n] = t.lse[n];
      }
      spread<T>(along_rows<T>(t.scores, r.rows, count), count, r.rows, p.values + s.packed(s.d_vectors, r.row0), s.d_vectors,
                painted, g > 0 ? added : output);
    }
  }
  if (a.paint && !s.plain_painted)
    for (i64 n = 0; n < count; ++n)
      store_row<T>(element(a.painted, (sample * a.N + n0 + n) * a.D, a.dtype), t.painted + n * s.Dp, a.dtype, a.D);
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
