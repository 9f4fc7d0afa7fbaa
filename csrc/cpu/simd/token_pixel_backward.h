// Backward of both operators. Scores are recomputed tile by tile; with P the softmax over tokens (renormalised here, not
// rebuilt from a stored logsumexp), Q the softmax over pixels, dP = dO V^T and dQ = dY X^T:
//   dS = P (dP - sum_l P dP + dlse) + Q (dQ - <dY, Y>)
//   dX = dS^T K + Q^T dY      dK = dS X      dV = P dO      dbias = sum_n P (dP - sum_l P dP + dlse)

template <class T>
struct BackwardSample {
  T *keys, *values, *grads, *stacked, *bias, *maximum, *inverse, *delta;
  uint8_t* kept;
  BackwardSample(const TokenPixelArgs& a, const Shape<T>& s, Bump& m) {
    keys = m.take<T>(token_copy_size<T>(a.keys, a, a.C));
    values = m.take<T>(a.paint ? token_copy_size<T>(&a.values, a, a.D) : 0);
    grads = m.take<T>(a.pool ? token_copy_size<T>(a.grad_pooled, a, a.C) : 0);
    stacked = m.take<T>(s.packed(s.c_vectors, s.R * (a.pool ? 2 : 1)));
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
  T *pixels, *transposed, *panels, *painted_t, *painted_panels, *probability, *slope, *pulled, *out, *bias, *lse, *gate, *row;
  T* words;  // dS as the gathering product reads it, where that is another form
  BackwardTile(const TokenPixelArgs& a, const Shape<T>& s, Bump& m) {
    const i64 scores = s.group_rows(a) * kStride, tile = round_up(kTile, s.width);
    pixels = m.take<T>(kTile * larger(s.Cp, s.Dp));
    transposed = m.take<T>(tile * s.Cp);
    panels = m.take<T>(s.packed(s.c_vectors, kTile));
    painted_t = m.take<T>(a.paint ? tile * s.Dp : 0);
    painted_panels = m.take<T>(a.paint ? s.packed(s.d_vectors, kTile) : 0);
    probability = m.take<T>(scores);
    slope = m.take<T>(2 * scores);  // dS, and behind it the pool's weights: one operand of the pixels' gradient
    pulled = m.take<T>(a.pool ? scores : 0);
    out = m.take<T>(s.plain_pixels ? 0 : kTile * s.Cp);
    bias = m.take<T>(2 * kStride);
    lse = m.take<T>(a.H * kStride);
    gate = m.take<T>(2 * kStride);
    row = m.take<T>(2 * larger(s.Cp, s.Dp));
    words = m.take<T>(kPerLane > 1 ? scores : 0);
  }
};

template <class T>
WorkSizes backward_sizes(const TokenPixelArgs& a) {
  const Shape<T> s(a);
  Bump sample{nullptr, 0}, partial{nullptr, 0}, thread{nullptr, 0};
  BackwardSample<T>(a, s, sample);
  BackwardPartial<T>(a, s, partial);
  BackwardTile<T>(a, s, thread);
  return {sample.used, partial.used, thread.used};
}

// <dY, Y>, the maximum and the inverse total of every pooled row.
template <class T>
void load_pool_rows(const TokenPixelArgs& a, const Shape<T>& s, const BackwardSample<T>& p, T* scratch, i64 sample) {
  for (i64 row = 0; row < s.R; ++row) {
    const T* stats = (const T*)a.pool_stats + (sample * s.R + row) * 2;
    p.maximum[row] = stats[0];
    p.inverse[row] = stats[1] == 0 ? 0 : (T)1 / stats[1];
    const T* y = token_row_as<T>(a.pooled_view, a, sample, row, a.C, scratch);
    const T* dy = token_row_as<T>(a.grad_pooled, a, sample, row, a.C, scratch + s.Cp);
    Vec<T> sum{};
    for (i64 c = 0; c < s.Cp; c += s.lanes) sum += load<T>(y + c) * load<T>(dy + c);
    p.delta[row] = reduce_add<T>(sum);
  }
}

// Keys of one group of heads and, where `stack` is 2, below them the gradients of what they pooled, packed for `spread`.
template <class T>
void pack_stacked(const Shape<T>& s, const Group& r, i64 stack, const Rows<T>& keys, const Rows<T>& grads, T* dst) {
  const i64 stride = stack * r.rows * s.width;
  for (i64 i = 0; i < r.rows; ++i) {
    const i64 row = r.row0 + i;
    pack_row<T>(dst + i * s.width, stride, keys.data + row * keys.ld, s.c_vectors);
    if (stack > 1) pack_row<T>(dst + (r.rows + i) * s.width, stride, grads.data + row * grads.ld, s.c_vectors);
  }
}

template <class T>
void backward_prepare(const TokenPixelArgs& a, i64 sample, const WorkMemory& w) {
  const Shape<T> s(a);
  Bump ms{w.samples, 0}, mt{w.thread, 0};
  const BackwardSample<T> p(a, s, ms);
  const BackwardTile<T> t(a, s, mt);
  const Rows<T> keys = token_rows<T>(a.keys, a, sample, a.C, p.keys, true);
  load_key_bias<T>(p.bias, a, sample);
  load_token_mask(p.kept, a, sample);
  if (a.paint) token_rows<T>(&a.values, a, sample, a.D, p.values, true);
  Rows<T> grads{nullptr, 0};
  if (a.pool) {
    grads = token_rows<T>(a.grad_pooled, a, sample, a.C, p.grads, true);
    load_pool_rows<T>(a, s, p, t.row, sample);
  }
  const i64 stack = a.pool ? 2 : 1;
  for (i64 g = 0; g < s.groups; ++g) {
    const Group r = group_of(a, s, g);
    pack_stacked<T>(s, r, stack, keys, grads, p.stacked + s.packed(s.c_vectors, r.row0 * stack));
  }
}

// weights = Q and slope = Q (dQ - delta); the gate's gradient gathers the slopes of each stream.
template <class T>
void pool_slope(const TokenPixelArgs& a, const Group& r, const BackwardSample<T>& p, const BackwardTile<T>& t,
                const PixelBias<T>& extra, T* weights, T* slopes, i64 padded) {
  constexpr i64 lanes = Types<T>::lanes;
  for (i64 i = 0; i < r.rows; ++i) {
    const i64 row = r.row0 + i, bank = (r.head0 + i / a.L) / a.bank_heads;
    const T *in = t.probability + i * kStride, *pulled = t.pulled + i * kStride;
    const T* add = extra.data ? extra.data + bank * extra.stride : nullptr;
    T *q = weights + i * kStride, *slope = slopes + i * kStride, *gate = a.gate.data ? t.gate + bank * kStride : nullptr;
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
    for (i64 l = 0; l < L; ++l) delta += load<T>(scores + l * kStride + n) * load<T>(slope + l * kStride + n);
    delta -= load<T>(grad_lse + n);
    for (i64 l = 0; l < L; ++l) {
      const i64 at = l * kStride + n;
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
    load_row<T>(out + h * kStride, src, DTypeOf<T>::value, count, padded);
  }
}

template <class T>
void store_grad_gate(const TokenPixelArgs& a, const BackwardTile<T>& t, i64 sample, i64 n0, i64 count) {
  constexpr i64 lanes = Types<T>::lanes;
  const i64 padded = round_up(count, lanes);
  load_row<T>(t.bias, element(a.gate.data, sample * a.gate.batch + n0, a.gate_dtype), a.gate_dtype, count, padded);
  for (i64 n = 0; n < padded; n += lanes) {
    const Sigmoid<T> s = sigmoid<T>(load<T>(t.bias + n));
    store<T>(t.bias + n, load<T>(t.gate + n) * s.complement - load<T>(t.gate + kStride + n) * s.value);
  }
  store_row<T>(element(a.grad_gate, sample * a.N + n0, a.gate_dtype), t.bias, a.gate_dtype, count);
}

// The token-side operands of one sample, as the score products read them.
template <class T>
struct BackwardTokens {
  Rows<T> keys, values, grads;
  BackwardTokens(const TokenPixelArgs& a, const BackwardSample<T>& p, i64 sample) {
    keys = token_rows<T>(a.keys, a, sample, a.C, p.keys, false);
    if (a.paint) values = token_rows<T>(&a.values, a, sample, a.D, p.values, false);
    if (a.pool) grads = token_rows<T>(a.grad_pooled, a, sample, a.C, p.grads, false);
  }
};

// Scores and the slopes of one head group over one tile.
template <class T>
void backward_scores(const TokenPixelArgs& a, const Shape<T>& s, const Group& r, const BackwardSample<T>& p,
                     const BackwardTokens<T>& tokens, const BackwardPartial<T>& out, const BackwardTile<T>& t,
                     const PixelBias<T>& extra, i64 padded) {
  const i64 vectors = padded / s.lanes;
  score<T>(tokens.keys, r.row0, r.rows, s.Cp, t.transposed, vectors, t.probability);
  if (a.pool) {
    score<T>(tokens.grads, r.row0, r.rows, s.Cp, t.transposed, vectors, t.pulled);
    // With paint, dP needs the slope's place: the pool's share waits where dQ was.
    pool_slope<T>(a, r, p, t, extra, t.slope + r.rows * kStride, a.paint ? t.pulled : t.slope, padded);
  }
  if (a.paint) {
    score<T>(tokens.values, r.row0, r.rows, s.Dp, t.painted_t, vectors, t.slope);
    for (i64 h = 0; h < r.heads; ++h) {
      const i64 at = h * a.L * kStride, row = r.row0 + h * a.L;
      paint_slope<T>(t.probability + at, t.slope + at, a.pool ? t.pulled + at : nullptr, p.bias + row, p.kept,
                     t.lse + (r.head0 + h) * kStride, a.L, padded, out.bias + row * s.lanes);
    }
  }
}

template <class T>
void backward_tile(const TokenPixelArgs& a, const Shape<T>& s, const BackwardSample<T>& p, const BackwardTokens<T>& tokens,
                   const BackwardPartial<T>& out, const BackwardTile<T>& t, i64 sample, i64 n0, i64 count, bool first) {
  const i64 padded = round_up(count, s.lanes);
  load_tile<T>(a.pixels, a, s.plain_pixels, sample, n0, count, a.C, t.pixels, t.transposed, t.panels, true);
  if (a.paint) {
    load_tile<T>(a.grad_painted, a, s.plain_painted, sample, n0, count, a.D, t.pixels, t.painted_t, t.painted_panels, true);
    load_grad_lse<T>(a, t.lse, sample, n0, count, padded);
  }
  const PixelBias<T> extra = a.pool ? pixel_bias<T>(a, t.bias, sample, n0, count) : PixelBias<T>{nullptr, 0};
  if (a.gate.data) __builtin_memset(t.gate, 0, 2 * kStride * sizeof(T));
  T* grad = s.plain_pixels ? (T*)a.grad_pixels + (sample * a.N + n0) * a.C : t.out;
  const i64 stack = a.pool ? 2 : 1;
  const Output output = output_of<T>(a, grad, s.plain_pixels, stack * s.R, a.C);
  Ahead pixels = next_tile<T>(a.pixels, a, s, sample, n0, count, s.c_vectors);
  Ahead painted = next_tile<T>(a.grad_painted, a, s, sample, n0, count, s.d_vectors);
  for (i64 g = 0; g < s.groups; ++g) {
    const Group r = group_of(a, s, g);
    backward_scores<T>(a, s, r, p, tokens, out, t, extra, padded);
    const T* slope = along_pixels<T>(t.slope, r.rows, count, t.words);
    spread<T>(along_rows<T>(t.slope, stack * r.rows, count), count, stack * r.rows,
              p.stacked + s.packed(s.c_vectors, r.row0 * stack), s.c_vectors, grad, g > 0 ? added : output);
    gather<T>(slope, r.rows, count, t.panels, s.c_vectors, out.keys + r.row0 * s.Cp, !first, &pixels);
    if (!a.paint) continue;
    const T* probability = along_pixels<T>(t.probability, r.rows, count, t.probability);
    gather<T>(probability, r.rows, count, t.painted_panels, s.d_vectors, out.values + r.row0 * s.Dp, !first, &painted);
  }
  if (a.gate.data) store_grad_gate<T>(a, t, sample, n0, count);
  if (!s.plain_pixels) store_tile<T>(element(a.grad_pixels, (sample * a.N + n0) * a.C, a.dtype), t.out, a, count, a.C);
}

template <class T>
void backward_chunk(const TokenPixelArgs& a, i64 sample, i64 chunk, const WorkMemory& w) {
  const Shape<T> s(a);
  Bump ms{w.samples, 0}, mp{w.partials, 0}, mt{w.thread, 0};
  const BackwardSample<T> p(a, s, ms);
  const BackwardPartial<T> out(a, s, mp);
  const BackwardTile<T> t(a, s, mt);
  const BackwardTokens<T> tokens(a, p, sample);
  if (a.paint) __builtin_memset(out.bias, 0, s.R * s.lanes * sizeof(T));
  const Span span = chunk_span(a, chunk);
  const i64 step = tile_length(span.end - span.begin, s.lanes);
  for (i64 n = span.begin; n < span.end; n += step)
    backward_tile<T>(a, s, p, tokens, out, t, sample, n, smaller(step, span.end - n), n == span.begin);
  finish_stores();
}

// out = the chunks' rows at `first`, added in their order; zeros without chunks.
template <class T>
void add_chunks(const TokenPixelArgs& a, const T* first, size_t bytes, i64 channels, T* copy, void* out) {
  constexpr i64 lanes = Types<T>::lanes;
  if (a.chunks == 0) {
    __builtin_memset(out, 0, channels * item_bytes(a.dtype));
    return;
  }
  const bool plain = a.dtype == DTypeOf<T>::value && channels % lanes == 0;
  T* sums = plain ? (T*)out : copy;
  for (i64 c = 0; c < channels; c += lanes) {
    Vec<T> sum = load<T>(first + c);
    for (i64 i = 1; i < a.chunks; ++i) sum += load<T>(at_chunk(first + c, bytes, i));
    store<T>(sums + c, sum);
  }
  if (!plain) store_row<T>(out, sums, a.dtype, channels);
}

template <class T>
void backward_finish(const TokenPixelArgs& a, i64 sample, const WorkMemory& w) {
  const Shape<T> s(a);
  const size_t bytes = backward_sizes<T>(a).partial;
  Bump mp{w.partials, 0}, mt{w.thread, 0};
  const BackwardPartial<T> first(a, s, mp);
  const BackwardTile<T> t(a, s, mt);
  for (i64 row = 0; row < s.R; ++row) {
    const i64 head = row / a.L, bank = head / a.bank_heads;
    void* keys = element(a.grad_keys[bank], ((sample * a.bank_heads + head % a.bank_heads) * a.L + row % a.L) * a.C, a.dtype);
    add_chunks<T>(a, first.keys + row * s.Cp, bytes, a.C, t.row, keys);
    if (!a.paint) continue;
    add_chunks<T>(a, first.values + row * s.Dp, bytes, a.D, t.row, element(a.grad_values, (sample * s.R + row) * a.D, a.dtype));
    Vec<T> bias{};
    for (i64 i = 0; i < a.chunks; ++i) bias += load<T>(at_chunk(first.bias + row * s.lanes, bytes, i));
    const T sum = reduce_add<T>(bias);
    store_row<T>(element(a.grad_key_bias, sample * s.R + row, a.dtype), &sum, a.dtype, 1);
  }
}
