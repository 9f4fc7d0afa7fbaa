// Sums over the full-resolution pixels of two low-resolution logit maps, interpolated row by row and never stored.

enum Column { kBceJoint, kBceTarget, kBceBackground, kProbability, kProbabilityMask, kMask, kCount, kIntersection, kUnion, kColumns };

template <class T>
struct MaskRows {  // row buffers of one thread
  T *low_target, *low_background;      // a row interpolated vertically, low resolution
  T *target, *background, *mask, *valid;  // full width
  T *grad_target, *grad_background;    // backward: full width; then gathered to low resolution in `low_*`
  T *raw[4];                           // low-resolution rows in the compute type
  MaskRows(const MaskStatisticsArgs& a, Bump& m) {
    const i64 lanes = Types<T>::lanes, w = round_up(a.w + 1, lanes), wide = round_up(a.Wm, lanes);
    low_target = m.take<T>(w), low_background = m.take<T>(w);
    target = m.take<T>(wide), background = m.take<T>(wide), mask = m.take<T>(wide), valid = m.take<T>(wide);
    grad_target = m.take<T>(wide), grad_background = m.take<T>(wide);
    for (int i = 0; i < 4; ++i) raw[i] = m.take<T>(w);
  }
};

template <class T>
size_t mask_statistics_thread_bytes(const MaskStatisticsArgs& a) {
  Bump m{nullptr, 0};
  MaskRows<T>(a, m);
  return m.used;
}

RRSIS_INLINE const void* map_row(const RowView& v, i64 sample, i64 row, int dtype) {
  return element(v.data, sample * v.batch + row * v.row, dtype);
}

// One full-resolution row of both logit maps, the mask and the validity (0 past the width).
template <class T>
void expand_row(const MaskStatisticsArgs& a, const MaskRows<T>& r, i64 sample, i64 y) {
  constexpr i64 lanes = Types<T>::lanes;
  const i64 w = round_up(a.w, lanes), wide = round_up(a.Wm, lanes);
  const T high = ((const T*)a.y_weight)[y], low = 1 - high;
  const RowView* maps[2] = {&a.target, &a.background};
  T* lows[2] = {r.low_target, r.low_background};
  T* fulls[2] = {r.target, r.background};
  const T* x_weight = (const T*)a.x_weight;
  for (int i = 0; i < 2; ++i) {
    T *top = r.raw[2 * i], *bottom = r.raw[2 * i + 1], *mixed = lows[i];
    load_row<T>(top, map_row(*maps[i], sample, a.y_lo[y], a.dtype), a.dtype, a.w, w);
    load_row<T>(bottom, map_row(*maps[i], sample, a.y_hi[y], a.dtype), a.dtype, a.w, w);
    for (i64 x = 0; x < w; x += lanes) store<T>(mixed + x, load<T>(top + x) * low + load<T>(bottom + x) * high);
    T* full = fulls[i];
    for (i64 x = 0; x < a.Wm; ++x) full[x] = mixed[a.x_lo[x]] * (1 - x_weight[x]) + mixed[a.x_hi[x]] * x_weight[x];
    for (i64 x = a.Wm; x < wide; ++x) full[x] = 0;
  }
  load_row<T>(r.mask, map_row(a.mask, sample, y, a.mask_dtype), a.mask_dtype, a.Wm, wide);
  if (a.valid.data) {
    const uint8_t* valid = (const uint8_t*)map_row(a.valid, sample, y, kUInt8);
    for (i64 x = 0; x < a.Wm; ++x) r.valid[x] = valid[x] ? 1 : 0;
  } else {
    for (i64 x = 0; x < a.Wm; ++x) r.valid[x] = 1;
  }
  for (i64 x = a.Wm; x < wide; ++x) r.valid[x] = 0;
}

template <class T>
void mask_statistics_forward(const MaskStatisticsArgs& a, i64 sample, i64 band, char* thread) {
  typedef Vec<T> V;
  constexpr i64 lanes = Types<T>::lanes;
  Bump m{thread, 0};
  const MaskRows<T> r(a, m);
  double sums[kColumns] = {};
  const T scale = (T)a.joint_scale;
  for (i64 y = a.Hm * band / a.bands; y < a.Hm * (band + 1) / a.bands; ++y) {
    expand_row<T>(a, r, sample, y);
    V acc[kColumns] = {};
    for (i64 x = 0; x < a.Wm; x += lanes) {
      const V zt = load<T>(r.target + x), zb = load<T>(r.background + x), t = load<T>(r.mask + x), v = load<T>(r.valid + x);
      const V z = (zt - zb) * scale, zero = {}, one = splat<T>(1);
      const Sigmoid<T> joint = sigmoid<T>(z);
      const Sigmoid<T> target = sigmoid<T>(zt), background = sigmoid<T>(zb);
      acc[kBceJoint] += v != 0 ? joint.softplus - z * t : zero;
      acc[kBceTarget] += v != 0 ? target.softplus - zt * t : zero;
      acc[kBceBackground] += v != 0 ? background.softplus - zb * (one - t) : zero;
      acc[kProbability] += v != 0 ? joint.value : zero;
      acc[kProbabilityMask] += v != 0 ? joint.value * t : zero;
      acc[kMask] += v != 0 ? t : zero;
      acc[kCount] += v;
      const V hit = z > 0 ? v : zero, real = t > (T)0.5 ? v : zero;
      acc[kIntersection] += hit * real;
      acc[kUnion] += maximum<T>(hit, real);
    }
    for (int c = 0; c < kColumns; ++c) sums[c] += (double)reduce_add<T>(acc[c]);
  }
  double* out = a.band_sums + (sample * a.bands + band) * kColumns;
  for (int c = 0; c < kColumns; ++c) out[c] = sums[c];
}

// Full-width gradients of a row, gathered onto the low-resolution columns: out[x'] = sum of (1 - weight) over columns whose
// lo index is x', plus sum of weight over columns whose hi index is x'. x_first bounds the columns of each lo index.
template <class T>
void gather_columns(const MaskStatisticsArgs& a, const T* grad, T* out) {
  const T* weight = (const T*)a.x_weight;
  for (i64 x = 0; x < a.w; ++x) out[x] = 0;
  for (i64 low = 0; low < a.w; ++low) {
    T near = 0, far = 0;
    for (i64 x = a.x_first[low]; x < a.x_first[low + 1]; ++x) {
      near += grad[x] * (1 - weight[x]);
      far += grad[x] * weight[x];
    }
    out[low] += near;
    out[low + 1 < a.w ? low + 1 : low] += far;
  }
}

template <class T>
void mask_statistics_backward(const MaskStatisticsArgs& a, i64 sample, i64 band, char* thread) {
  typedef Vec<T> V;
  constexpr i64 lanes = Types<T>::lanes;
  Bump m{thread, 0};
  const MaskRows<T> r(a, m);
  const T* g = (const T*)a.grad_sums.data + sample * a.grad_sums.batch;
  const T scale = (T)a.joint_scale;
  const i64 begin = a.Hm * band / a.bands, end = a.Hm * (band + 1) / a.bands, size = a.band_grad_rows * a.w;
  T* grads = (T*)a.band_grads + (sample * a.bands + band) * 2 * size;
  __builtin_memset(grads, 0, 2 * size * sizeof(T));
  for (i64 y = begin; y < end; ++y) {
    expand_row<T>(a, r, sample, y);
    for (i64 x = 0; x < a.Wm; x += lanes) {
      const V zt = load<T>(r.target + x), zb = load<T>(r.background + x), t = load<T>(r.mask + x), v = load<T>(r.valid + x);
      const V zero = {}, one = splat<T>(1);
      const Sigmoid<T> joint = sigmoid<T>((zt - zb) * scale);
      const V spread = joint.value * joint.complement;
      const V dz = (joint.value - t) * g[kBceJoint] + spread * (t * g[kProbabilityMask] + g[kProbability]);
      const V dt = dz * scale + (sigmoid<T>(zt).value - t) * g[kBceTarget];
      const V db = (sigmoid<T>(zb).value - (one - t)) * g[kBceBackground] - dz * scale;
      store<T>(r.grad_target + x, v != 0 ? dt : zero);
      store<T>(r.grad_background + x, v != 0 ? db : zero);
    }
    const i64 low = (i64)(a.y_lo[y] - a.y_lo[begin]) * a.w, high = (i64)(a.y_hi[y] - a.y_lo[begin]) * a.w;
    const T far = ((const T*)a.y_weight)[y], near = 1 - far;
    const T* fulls[2] = {r.grad_target, r.grad_background};
    for (int i = 0; i < 2; ++i) {
      gather_columns<T>(a, fulls[i], r.low_target);
      T* out = grads + i * size;
      for (i64 x = 0; x < a.w; ++x) out[low + x] += r.low_target[x] * near;
      for (i64 x = 0; x < a.w; ++x) out[high + x] += r.low_target[x] * far;
    }
  }
}
