// Backward of both operators. Scores are recomputed tile by tile; with P the softmax over tokens (renormalised here, not
// rebuilt from a stored logsumexp), Q the softmax over pixels, dP = dO V^T and dQ = dY X^T:
//   dS = P (dP - sum_l P dP + dlse) + Q (dQ - <dY, Y>)
//   dX = dS^T K + Q^T dY      dK = dS X      dV = P dO      dbias = sum_n P (dP - sum_l P dP + dlse)

template <class T>
struct BackwardSample {
  T *keys, *values, *grads, *stacked, *bias, *maximum, *inverse, *delta;
  uint8_t* kept;
  BackwardSample(const TokenPixelArgs& a, const Shape<T>& s, Bump& m) {
    keys = m.take<T>(s.R * s.Cp);
    values = m.take<T>(a.paint ? s.R * s.Dp : 0);
    grads = m.take<T>(a.pool ? s.R * s.Cp : 0);
    stacked = m.take<T>(s.packed_size(s.c_vectors, a.pool ? 2 : 1));
    bias = m.take<T>(s.R);
    maximum = m.take<T>(s.R), inverse = m.take<T>(s.R), delta = m.take<T>(s.R);
    kept = m.take<uint8_t>(a.L);
  }
};

template <class T>
struct BackwardPartial {
  T *keys, *values, *bias;
  BackwardPartial(const TokenPixelArgs& a, const Shape<T>& s, Bump& m) {
    keys = m.take<T>(s.R * s.Cp);
    values = m.take<T>(a.paint ? s.R * s.Dp : 0);
    bias = m.take<T>(a.paint ? s.R * s.lanes : 0);
  }
};

template <class T>
struct BackwardTile {
  T *pixels, *painted, *pixels_t, *painted_t, *probability, *slope, *pulled, *out, *bias, *lse, *gate;
  BackwardTile(const TokenPixelArgs& a, const Shape<T>& s, Bump& m) {
    const i64 scores = s.group_rows(a) * kTile, tile = round_up(kTile, s.width);
    pixels = m.take<T>(s.plain_pixels ? 0 : kTile * s.Cp);
    painted = m.take<T>(a.paint && !s.plain_painted ? kTile * s.Dp : 0);
    pixels_t = m.take<T>(tile * s.Cp);
    painted_t = m.take<T>(a.paint ? tile * s.Dp : 0);
    probability = m.take<T>(scores);
    slope = m.take<T>(2 * scores);  // dS, and behind it the pool's weights: one operand of the pixels' gradient
    pulled = m.take<T>(a.pool ? scores : 0);
    out = m.take<T>(s.plain_pixels ? 0 : kTile * s.Cp);
    bias = m.take<T>(2 * kTile);
    lse = m.take<T>(a.H * kTile);
    gate = m.take<T>(2 * kTile);
  }
};

template <class T>
WorkSizes backward_sizes(const TokenPixelArgs& a) {
  const Shape<T> s(a);
  Bump sample{nullptr, 0}, partial{nullptr, 0}, thread{nullptr, 0};
  BackwardSample<T>(a, s, sample);
  BackwardPartial<T>(a, s, partial);
  BackwardTile<T>(a, s, thread);
  const size_t row = (size_t)(s.Cp + s.lanes) * sizeof(T) + 128;  // forward's results, one at a time, while preparing
  return {sample.used, partial.used, thread.used > row ? thread.used : row};
}

// <dY, Y>, the maximum and the inverse total of every pooled row.
template <class T>
void load_pool_rows(const TokenPixelArgs& a, const Shape<T>& s, const BackwardSample<T>& p, T* scratch, i64 sample) {
  for (i64 row = 0; row < s.R; ++row) {
    const T* stats = (const T*)a.pool_stats + (sample * s.R + row) * 2;
    p.maximum[row] = stats[0];
    p.inverse[row] = stats[1] == 0 ? 0 : (T)1 / stats[1];
    load_row<T>(scratch, token_row(a.pooled_view, a, sample, row / a.L, row % a.L, a.dtype), a.dtype, a.C, s.Cp);
    Vec<T> sum{};
    for (i64 c = 0; c < s.Cp; c += s.lanes) sum += load<T>(scratch + c) * load<T>(p.grads + row * s.Cp + c);
    p.delta[row] = reduce_add<T>(sum);
  }
}

template <class T>
void backward_prepare(const TokenPixelArgs& a, i64 sample, const WorkMemory& w) {
  const Shape<T> s(a);
  Bump ms{w.samples, 0};
  const BackwardSample<T> p(a, s, ms);
  load_tokens<T>(p.keys, s.Cp, a.keys, a, sample, a.C);
  load_key_bias<T>(p.bias, a, sample);
  load_token_mask(p.kept, a, sample);
  if (a.paint) load_tokens<T>(p.values, s.Dp, &a.values, a, sample, a.D);
  if (a.pool) {
    load_tokens<T>(p.grads, s.Cp, a.grad_pooled, a, sample, a.C);
    load_pool_rows<T>(a, s, p, (T*)w.thread, sample);
  }
  const i64 stack = a.pool ? 2 : 1;
  for (i64 g = 0; g < s.groups; ++g) {
    const Group r = group_of(a, s, g);
    T* dst = p.stacked + s.panels(s.c_vectors) * s.width * r.row0 * stack;
    const i64 stride = stack * r.rows * s.width;
    pack_panels<T>(dst, stride, 0, p.keys + r.row0 * s.Cp, s.Cp, r.rows, s.c_vectors);
    if (a.pool) pack_panels<T>(dst, stride, r.rows, p.grads + r.row0 * s.Cp, s.Cp, r.rows, s.c_vectors);
  }
}

// weights = Q and slope = Q (dQ - delta); the gate's gradient gathers the slopes of each stream.
template <class T>
void pool_slope(const TokenPixelArgs& a, const Group& r, const BackwardSample<T>& p, const BackwardTile<T>& t,
                const PixelBias<T>& extra, T* weights, T* slopes, i64 padded) {
  constexpr i64 lanes = Types<T>::lanes;
  for (i64 i = 0; i < r.rows; ++i) {
    const i64 row = r.row0 + i, bank = (r.head0 + i / a.L) / a.bank_heads;
    const T *in = t.probability + i * kTile, *pulled = t.pulled + i * kTile;
    const T* add = extra.data ? extra.data + bank * extra.stride : nullptr;
    T *q = weights + i * kTile, *slope = slopes + i * kTile, *gate = a.gate.data ? t.gate + bank * kTile : nullptr;
    const T bias = p.bias[row], top = p.maximum[row], inverse = p.inverse[row], delta = p.delta[row];
    for (i64 n = 0; n < padded; n += lanes) {
      Vec<T> v = load<T>(in + n) + bias;
      if (add) v += load<T>(add + n);
      const Vec<T> weight = exponential(v - top) * inverse;
      const Vec<T> d = weight * (load<T>(pulled + n) - delta);
      store<T>(q + n, weight);
      store<T>(slope + n, d);
      if (gate) store<T>(gate + n, load<T>(gate + n) + d);
    }
  }
}

// One head: scores become P, `slope` (holding dP) becomes P (dP - delta + dlse), its sums over pixels go to the bias.
// `pooled` is what the pool sends to the same scores, or null.
template <class T>
void paint_slope(T* scores, T* slope, const T* pooled, const T* bias, const uint8_t* kept, const T* grad_lse, i64 L, i64 padded,
                 T* grad_bias) {
  constexpr i64 lanes = Types<T>::lanes;
  paint_softmax<T>(scores, bias, kept, L, padded, nullptr);
  for (i64 n = 0; n < padded; n += lanes) {
    Vec<T> delta{};
    for (i64 l = 0; l < L; ++l) delta += load<T>(scores + l * kTile + n) * load<T>(slope + l * kTile + n);
    delta -= load<T>(grad_lse + n);
    for (i64 l = 0; l < L; ++l) {
      const i64 at = l * kTile + n;
      const Vec<T> d = load<T>(scores + at) * (load<T>(slope + at) - delta);
      store<T>(grad_bias + l * lanes, load<T>(grad_bias + l * lanes) + d);
      store<T>(slope + at, pooled ? d + load<T>(pooled + at) : d);
    }
  }
}

template <class T>
void load_grad_lse(const TokenPixelArgs& a, T* out, i64 sample, i64 n0, i64 count, i64 padded) {
  for (i64 h = 0; h < a.H; ++h) {
    const void* src = a.grad_lse.data
                          ? (const void*)((const T*)a.grad_lse.data + sample * a.grad_lse.batch + h * a.grad_lse.head + n0)
                          : nullptr;
    load_row<T>(out + h * kTile, src, DTypeOf<T>::value, count, padded);
  }
}

template <class T>
void store_grad_gate(const TokenPixelArgs& a, const BackwardTile<T>& t, i64 sample, i64 n0, i64 count) {
  constexpr i64 lanes = Types<T>::lanes;
  const i64 padded = round_up(count, lanes);
  load_row<T>(t.bias, element(a.gate.data, sample * a.gate.batch + n0, a.gate_dtype), a.gate_dtype, count, padded);
  for (i64 n = 0; n < padded; n += lanes) {
    const Sigmoid<T> s = sigmoid<T>(load<T>(t.bias + n));
    store<T>(t.bias + n, load<T>(t.gate + n) * s.complement - load<T>(t.gate + kTile + n) * s.value);
  }
  store_row<T>(element(a.grad_gate, sample * a.N + n0, a.gate_dtype), t.bias, a.gate_dtype, count);
}

// Scores and the slopes of one head group over one tile.
template <class T>
void backward_scores(const TokenPixelArgs& a, const Shape<T>& s, const Group& r, const BackwardSample<T>& p,
                     const BackwardPartial<T>& out, const BackwardTile<T>& t, const PixelBias<T>& extra, i64 padded) {
  const i64 vectors = padded / s.lanes;
  T* weights = t.slope + r.rows * kTile;
  score<T>(p.keys + r.row0 * s.Cp, r.rows, s.Cp, t.pixels_t, vectors, t.probability);
  if (a.pool) {
    score<T>(p.grads + r.row0 * s.Cp, r.rows, s.Cp, t.pixels_t, vectors, t.pulled);
    // With paint, dP needs the slope's place: the pool's share waits where dQ was.
    pool_slope<T>(a, r, p, t, extra, weights, a.paint ? t.pulled : t.slope, padded);
  }
  if (a.paint) {
    score<T>(p.values + r.row0 * s.Dp, r.rows, s.Dp, t.painted_t, vectors, t.slope);
    for (i64 h = 0; h < r.heads; ++h) {
      const i64 at = h * a.L * kTile, row = r.row0 + h * a.L;
      paint_slope<T>(t.probability + at, t.slope + at, a.pool ? t.pulled + at : nullptr, p.bias + row, p.kept,
                     t.lse + (r.head0 + h) * kTile, a.L, padded, out.bias + row * s.lanes);
    }
  }
}

template <class T>
void backward_tile(const TokenPixelArgs& a, const Shape<T>& s, const BackwardSample<T>& p, const BackwardPartial<T>& out,
                   const BackwardTile<T>& t, i64 sample, i64 n0, i64 count) {
  const i64 padded = round_up(count, s.lanes);
  const Rows<T> x = tile_rows<T>(a.pixels, s.plain_pixels, t.pixels, sample, n0, count, a.C, s.Cp, a.dtype);
  transpose_tile<T>(x.data, x.ld, count, s.Cp, t.pixels_t);
  Rows<T> y{nullptr, 0};
  if (a.paint) {
    y = tile_rows<T>(a.grad_painted, s.plain_painted && a.grad_painted.data, t.painted, sample, n0, count, a.D, s.Dp, a.dtype);
    transpose_tile<T>(y.data, y.ld, count, s.Dp, t.painted_t);
    load_grad_lse<T>(a, t.lse, sample, n0, count, padded);
  }
  const PixelBias<T> extra = a.pool ? pixel_bias<T>(a, t.bias, sample, n0, count) : PixelBias<T>{nullptr, 0};
  if (a.gate.data) __builtin_memset(t.gate, 0, 2 * kTile * sizeof(T));
  T* grad = s.plain_pixels ? (T*)a.grad_pixels + (sample * a.N + n0) * a.C : t.out;
  const i64 stack = a.pool ? 2 : 1;
  for (i64 g = 0; g < s.groups; ++g) {
    const Group r = group_of(a, s, g);
    backward_scores<T>(a, s, r, p, out, t, extra, padded);
    product<T, along_m>(count, s.c_vectors, stack * r.rows, t.slope, kTile,
                        p.stacked + s.panels(s.c_vectors) * s.width * r.row0 * stack, stack * r.rows * s.width, s.width, grad, s.Cp,
                        g > 0);
    product<T, along_k>(r.rows, s.c_vectors, count, t.slope, kTile, x.data, s.width, x.ld, out.keys + r.row0 * s.Cp, s.Cp, true);
    if (a.paint && a.grad_painted.data)
      product<T, along_k>(r.rows, s.d_vectors, count, t.probability, kTile, y.data, s.width, y.ld, out.values + r.row0 * s.Dp, s.Dp, true);
  }
  if (a.gate.data) store_grad_gate<T>(a, t, sample, n0, count);
  if (!s.plain_pixels)
    for (i64 n = 0; n < count; ++n)
      store_row<T>(element(a.grad_pixels, (sample * a.N + n0 + n) * a.C, a.dtype), t.out + n * s.Cp, a.dtype, a.C);
}

template <class T>
void backward_chunk(const TokenPixelArgs& a, i64 sample, i64 chunk, const WorkMemory& w) {
  const Shape<T> s(a);
  Bump ms{w.samples, 0}, mp{w.partials, 0}, mt{w.thread, 0};
  const BackwardSample<T> p(a, s, ms);
  const BackwardPartial<T> out(a, s, mp);
  const BackwardTile<T> t(a, s, mt);
  __builtin_memset(w.partials, 0, mp.used);
  const Span span = chunk_span(a, chunk);
  const i64 step = tile_length(span.end - span.begin, s.lanes);
  for (i64 n = span.begin; n < span.end; n += step) backward_tile<T>(a, s, p, out, t, sample, n, smaller(step, span.end - n));
}

// sums[0..n) = the chunks' rows at `offset` (in bytes from the start of a partial), added in their order.
template <class T>
T* add_chunks(char* partials, size_t bytes, i64 chunks, size_t offset, i64 n) {
  T* sums = (T*)(partials + offset);
  for (i64 i = 1; i < chunks; ++i) {
    const T* from = (const T*)(partials + i * bytes + offset);
    for (i64 c = 0; c < n; c += Types<T>::lanes) store<T>(sums + c, load<T>(sums + c) + load<T>(from + c));
  }
  return sums;
}

template <class T>
void backward_finish(const TokenPixelArgs& a, i64 sample, const WorkMemory& w) {
  const Shape<T> s(a);
  const size_t bytes = backward_sizes<T>(a).partial;
  Bump m{w.partials, 0};
  const BackwardPartial<T> first(a, s, m);
  for (i64 row = 0; row < s.R; ++row) {
    const i64 head = row / a.L, bank = head / a.bank_heads;
    void* keys = element(a.grad_keys[bank], ((sample * a.bank_heads + head % a.bank_heads) * a.L + row % a.L) * a.C, a.dtype);
    if (a.chunks == 0) {
      __builtin_memset(keys, 0, a.C * item_bytes(a.dtype));
    } else {
      const size_t offset = (char*)(first.keys + row * s.Cp) - w.partials;
      store_row<T>(keys, add_chunks<T>(w.partials, bytes, a.chunks, offset, s.Cp), a.dtype, a.C);
    }
    if (!a.paint) continue;
    void* values = element(a.grad_values, (sample * s.R + row) * a.D, a.dtype);
    void* bias = element(a.grad_key_bias, sample * s.R + row, a.dtype);
    if (a.chunks == 0) {
      __builtin_memset(values, 0, a.D * item_bytes(a.dtype));
      __builtin_memset(bias, 0, item_bytes(a.dtype));
      continue;
    }
    const size_t offset = (char*)(first.values + row * s.Dp) - w.partials;
    store_row<T>(values, add_chunks<T>(w.partials, bytes, a.chunks, offset, s.Dp), a.dtype, a.D);
    const size_t at = (char*)(first.bias + row * s.lanes) - w.partials;
    const T sum = reduce_add<T>(load<T>(add_chunks<T>(w.partials, bytes, a.chunks, at, s.lanes)));
    store_row<T>(bias, &sum, a.dtype, 1);
  }
}
