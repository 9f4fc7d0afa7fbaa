// Mean over masked rows of 1 - cos(prediction, target): each row is read once.

constexpr double kNormFloor = 1e-8;

template <class T>
struct Cosine {
  T cosine, norm_x, norm_y;  // norms as used: at least kNormFloor
  bool free_x, free_y;       // whether the norm is above the floor, and so has a gradient
};

template <class T>
Vec<T> row_vector(const void* p, i64 at, int dtype, i64 count) {
  if (dtype == DTypeOf<T>::value && at + Types<T>::lanes <= count) return load<T>((const T*)p + at);
  T part[Types<T>::lanes];
  load_row<T>(part, element(p, at, dtype), dtype, smaller(Types<T>::lanes, count - at), Types<T>::lanes);
  return load<T>(part);
}

template <class T>
Cosine<T> cosine_of(const void* x, const void* y, int dtype, i64 C) {
  constexpr i64 lanes = Types<T>::lanes;
  Vec<T> xy{}, xx{}, yy{};
  for (i64 c = 0; c < C; c += lanes) {
    const Vec<T> u = row_vector<T>(x, c, dtype, C), v = row_vector<T>(y, c, dtype, C);
    xy += u * v;
    xx += u * u;
    yy += v * v;
  }
  Cosine<T> r;
  const T nx = (T)__builtin_sqrt((double)reduce_add<T>(xx)), ny = (T)__builtin_sqrt((double)reduce_add<T>(yy));
  r.free_x = !(nx < (T)kNormFloor), r.free_y = !(ny < (T)kNormFloor);
  r.norm_x = r.free_x ? nx : (T)kNormFloor, r.norm_y = r.free_y ? ny : (T)kNormFloor;
  r.cosine = reduce_add<T>(xy) / r.norm_x / r.norm_y;
  return r;
}

RRSIS_INLINE const void* cosine_row(const RowView& v, i64 sample, i64 n, int dtype) {
  return element(v.data, sample * v.batch + n * v.row, dtype);
}

template <class T>
void masked_cosine_forward(const MaskedCosineArgs& a, i64 sample, i64 chunk) {
  const uint8_t* mask = (const uint8_t*)a.mask.data + sample * a.mask.batch;
  double sum = 0, rows = 0;
  for (i64 n = a.N * chunk / a.chunks; n < a.N * (chunk + 1) / a.chunks; ++n) {
    if (!mask[n]) continue;
    const Cosine<T> r = cosine_of<T>(cosine_row(a.prediction, sample, n, a.dtype), cosine_row(a.target, sample, n, a.dtype), a.dtype, a.C);
    sum += 1 - (double)r.cosine;
    rows += 1;
  }
  double* out = a.chunk_sums + (sample * a.chunks + chunk) * 2;
  out[0] = sum;
  out[1] = rows;
}

// Where the rows of both gradients go; past the caches where these will not hold them until they are read.
struct CosineRows {
  char *x, *y;
  bool stream;
};

template <class T>
RRSIS_INLINE void put(void* out, Vec<T> v, bool stream) {
  if (stream) {
    store_past_caches<T>((T*)out, v);
  } else {
    store<T>((T*)out, v);
  }
}

// d(1 - cos)/dx = cos x / |x|^2 - y / (|x| |y|), the first term only where the norm is free; the same for y.
template <class T>
void cosine_gradient(const MaskedCosineArgs& a, const void* x, const void* y, T scale, const CosineRows& out) {
  constexpr i64 lanes = Types<T>::lanes;
  const Cosine<T> r = cosine_of<T>(x, y, a.dtype, a.C);
  const T cross = scale / r.norm_x / r.norm_y;
  const T own_x = r.free_x ? scale * r.cosine / r.norm_x / r.norm_x : 0, own_y = r.free_y ? scale * r.cosine / r.norm_y / r.norm_y : 0;
  const i64 bytes = item_bytes(a.dtype), whole = a.dtype == DTypeOf<T>::value ? a.C / lanes * lanes : 0;
  for (i64 c = 0; c < whole; c += lanes) {
    const Vec<T> u = load<T>((const T*)x + c), v = load<T>((const T*)y + c);
    put<T>(out.x + c * bytes, u * own_x - v * cross, out.stream);
    put<T>(out.y + c * bytes, v * own_y - u * cross, out.stream);
  }
  for (i64 c = whole; c < a.C; c += lanes) {
    const Vec<T> u = row_vector<T>(x, c, a.dtype, a.C), v = row_vector<T>(y, c, a.dtype, a.C);
    T dx[lanes], dy[lanes];
    store<T>(dx, u * own_x - v * cross);
    store<T>(dy, v * own_y - u * cross);
    const i64 count = smaller(lanes, a.C - c);
    store_row<T>(out.x + c * bytes, dx, a.dtype, count);
    store_row<T>(out.y + c * bytes, dy, a.dtype, count);
  }
}

RRSIS_INLINE void put_zeros(char* out, i64 bytes, bool stream) {
  if (!stream) {
    __builtin_memset(out, 0, bytes);
    return;
  }
  for (i64 i = 0; i < bytes; i += RRSIS_VECTOR_BYTES) store_past_caches<float>((float*)(out + i), Vec<float>{});
}

template <class T>
void masked_cosine_backward(const MaskedCosineArgs& a, i64 sample, i64 chunk) {
  const uint8_t* mask = (const uint8_t*)a.mask.data + sample * a.mask.batch;
  const T scale = (T)a.row_scale[sample];
  const i64 bytes = a.C * item_bytes(a.dtype);
  const bool lines = bytes % kLine == 0 && (uintptr_t)a.grad_prediction % kLine == 0 && (uintptr_t)a.grad_target % kLine == 0;
  const bool stream = lines && a.B * a.N * bytes >= kLarge;
  for (i64 n = a.N * chunk / a.chunks; n < a.N * (chunk + 1) / a.chunks; ++n) {
    const i64 at = (sample * a.N + n) * bytes;
    const CosineRows out = {(char*)a.grad_prediction + at, (char*)a.grad_target + at, stream};
    if (mask[n]) {
      cosine_gradient<T>(a, cosine_row(a.prediction, sample, n, a.dtype), cosine_row(a.target, sample, n, a.dtype), scale, out);
    } else {
      put_zeros(out.x, bytes, stream);
      put_zeros(out.y, bytes, stream);
    }
  }
  finish_stores();
}
