// Vectors of RRSIS_VECTOR_BYTES as compiler vector types, and the few functions that the kernels need on them.
// Included inside the anonymous namespace of one instruction-set file: see isa_*.cpp.

#define RRSIS_INLINE inline __attribute__((always_inline))
#define RRSIS_LAMBDA __attribute__((always_inline))

typedef int64_t i64;

template <class T>
struct Types;

template <>
struct Types<float> {
  typedef float Vec __attribute__((vector_size(RRSIS_VECTOR_BYTES)));
  typedef int32_t Int __attribute__((vector_size(RRSIS_VECTOR_BYTES)));
  typedef float Loose __attribute__((vector_size(RRSIS_VECTOR_BYTES), aligned(4), may_alias));
  static constexpr int lanes = RRSIS_VECTOR_BYTES / 4;
};

template <>
struct Types<double> {
  typedef double Vec __attribute__((vector_size(RRSIS_VECTOR_BYTES)));
  typedef int64_t Int __attribute__((vector_size(RRSIS_VECTOR_BYTES)));
  typedef double Loose __attribute__((vector_size(RRSIS_VECTOR_BYTES), aligned(8), may_alias));
  static constexpr int lanes = RRSIS_VECTOR_BYTES / 8;
};

template <class T>
using Vec = typename Types<T>::Vec;
template <class T>
using Int = typename Types<T>::Int;

template <class T>
RRSIS_INLINE Vec<T> load(const T* p) {
  return *(const typename Types<T>::Loose*)p;
}
template <class T>
RRSIS_INLINE void store(T* p, Vec<T> v) {
  *(typename Types<T>::Loose*)p = v;
}
// Without reading the line first and without keeping it: for outputs that the caches cannot hold. `p` is aligned.
template <class T>
RRSIS_INLINE void store_past_caches(T* p, Vec<T> v) {
#if RRSIS_VECTOR_BYTES == 64 && defined(__AVX512F__)
  __builtin_ia32_movntps512((float*)p, (Vec<float>)v);
#elif RRSIS_VECTOR_BYTES == 32 && defined(__AVX__)
  __builtin_ia32_movntps256((float*)p, (Vec<float>)v);
#else
  store<T>(p, v);
#endif
}
// Before another thread may read what store_past_caches wrote.
RRSIS_INLINE void finish_stores() {
#if defined(__SSE__)
  __builtin_ia32_sfence();
#endif
}
template <class T>
RRSIS_INLINE Vec<T> splat(T x) {
  return x - Vec<T>{};  // folds to a broadcast; adding 0 would not, for the sake of -0
}
template <class T>
RRSIS_INLINE Vec<T> maximum(Vec<T> a, Vec<T> b) {  // a NaN in b is passed over: the sums carry NaNs on
  return b > a ? b : a;
}
template <class T>
RRSIS_INLINE Vec<T> minimum(Vec<T> a, Vec<T> b) {  // as maximum
  return b < a ? b : a;
}

// Indices as a type, for shuffles that are written once for every number of lanes.
template <int... I>
struct Indices {};
template <int N, int... I>
struct MakeIndices : MakeIndices<N - 1, N - 1, I...> {};
template <int... I>
struct MakeIndices<0, I...> {
  typedef Indices<I...> type;
};
template <class T, int S, int... I>
RRSIS_INLINE Vec<T> swap_lanes(Vec<T> v, Indices<I...>) {  // lane i takes lane i ^ S
  return __builtin_shufflevector(v, v, (I ^ S)...);
}
// All lanes combined in a tree: a chain through the lanes would take their number times the latency of one step.
template <class T, int S, class F>
RRSIS_INLINE T reduce(Vec<T> v, const F& f) {
  if constexpr (S == 0) {
    return v[0];
  } else {
    return reduce<T, S / 2>(f(v, swap_lanes<T, S>(v, typename MakeIndices<Types<T>::lanes>::type())), f);
  }
}
template <class T>
RRSIS_INLINE T reduce_add(Vec<T> v) {
  return reduce<T, Types<T>::lanes / 2>(v, [](Vec<T> a, Vec<T> b) RRSIS_LAMBDA { return a + b; });
}
template <class T>
RRSIS_INLINE T reduce_max(Vec<T> v) {
  return reduce<T, Types<T>::lanes / 2>(v, [](Vec<T> a, Vec<T> b) RRSIS_LAMBDA { return maximum<T>(a, b); });
}
template <class T>
RRSIS_INLINE T reduce_min(Vec<T> v) {
  return reduce<T, Types<T>::lanes / 2>(v, [](Vec<T> a, Vec<T> b) RRSIS_LAMBDA { return minimum<T>(a, b); });
}

constexpr i64 round_up(i64 x, i64 m) { return (x + m - 1) / m * m; }
constexpr i64 smaller(i64 a, i64 b) { return a < b ? a : b; }
constexpr i64 larger(i64 a, i64 b) { return a > b ? a : b; }

template <class T>
RRSIS_INLINE T negative_infinity() {
  return -(T)__builtin_inf();
}
template <class T>
RRSIS_INLINE Vec<T> finite_or_zero(Vec<T> m) {  // the shift of a softmax without keys
  return m == splat<T>(negative_infinity<T>()) ? Vec<T>{} : m;
}

// e^x for x below about 88 (float) or 709 (double), to 1-2 units in the last place. Values that would be subnormal are
// flushed to zero; NaN stays NaN: the power of two is multiplied in, not added to the exponent bits.
RRSIS_INLINE Vec<float> exponential(Vec<float> x) {
  typedef Vec<float> V;
  const V t = x * 1.44269504088896341f + 12582912.f;
  const V n = t - 12582912.f;
  V r = x - n * 0.693359375f;
  r = r - n * -2.12194440e-4f;
  V p = r * 1.3814539988047797e-3f + 8.368745116288035e-3f;
  p = p * r + 4.166839078737267e-2f;
  p = p * r + 1.666652039896296e-1f;
  p = p * r + 4.999999343211061e-1f;
  p = (p * r) * r + r + 1.f;
  const Int<float> power = ((Int<float>)t << 23) + (127 << 23);
  p = p * (V)power;
  return x < -87.33654f ? V{} : p;
}

RRSIS_INLINE Vec<double> exponential(Vec<double> x) {
  typedef Vec<double> V;
  const V t = x * 1.4426950408889634074 + 6755399441055744.0;
  const V n = t - 6755399441055744.0;
  V r = x - n * 6.93147180369123816490e-01;
  r = r - n * 1.90821492927058770002e-10;
  V p = r * (1.0 / 6227020800.0) + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = (p * r) * r + r + 1.0;
  const Int<double> power = ((Int<double>)t << 52) + (1023LL << 52);
  p = p * (V)power;
  return x < -708.39 ? V{} : p;
}

template <class T>
RRSIS_INLINE T exponential_of(T x) {
  return exponential(splat<T>(x))[0];
}

// log(1 + u) for u in [0, 1] as 2 atanh(u / (2 + u)): no cancellation near 0.
RRSIS_INLINE Vec<float> log1p_unit(Vec<float> u) {
  typedef Vec<float> V;
  const V s = u / (u + 2.f), z = s * s;
  V p = z * (1.f / 15) + 1.f / 13;
  p = p * z + 1.f / 11;
  p = p * z + 1.f / 9;
  p = p * z + 1.f / 7;
  p = p * z + 1.f / 5;
  p = p * z + 1.f / 3;
  return (p * z) * (s * 2.f) + s * 2.f;
}

RRSIS_INLINE Vec<double> log1p_unit(Vec<double> u) {
  typedef Vec<double> V;
  const V s = u / (u + 2.0), z = s * s;
  V p = splat<double>(1.0 / 35);
#pragma GCC unroll 16
  for (int k = 33; k >= 3; k -= 2) p = p * z + 1.0 / k;
  return (p * z) * (s * 2.0) + s * 2.0;
}

// log x of a normal positive x; NaN stays NaN (x - x), which the exponent's extraction would lose.
RRSIS_INLINE Vec<float> logarithm(Vec<float> x) {
  typedef Vec<float> V;
  const Int<float> bits = (Int<float>)x;
  V m = (V)((bits & 0x007fffff) | 0x3f800000);
  Int<float> e = (bits >> 23) - 127;
  const Int<float> high = m > 1.41421356f;
  m = high ? m * 0.5f : m;
  e = e - high;
  const V s = (m - 1.f) / (m + 1.f), z = s * s;
  V p = z * (1.f / 9) + 1.f / 7;
  p = p * z + 1.f / 5;
  p = p * z + 1.f / 3;
  const V n = __builtin_convertvector(e, V);
  return n * 0.693359375f + ((p * z) * (s * 2.f) + s * 2.f + n * -2.12194440e-4f) + (x - x);
}

RRSIS_INLINE Vec<double> logarithm(Vec<double> x) {
  typedef Vec<double> V;
  V r = x;
  for (int i = 0; i < Types<double>::lanes; ++i) r[i] = __builtin_log(x[i]);
  return r;
}

template <class T>
RRSIS_INLINE Vec<T> absolute(Vec<T> x) {
  return x < 0 ? -x : x;
}

// log sigma(x) and the sigmoid itself from one exponential.
template <class T>
struct Sigmoid {
  Vec<T> value, complement, softplus;  // sigma(x), sigma(-x), log(1 + e^x)
};
template <class T>
RRSIS_INLINE Sigmoid<T> sigmoid(Vec<T> x) {
  const Vec<T> e = exponential(-absolute<T>(x)), inverse = (T)1 / (e + (T)1), small = e * inverse;
  Sigmoid<T> r;
  r.value = x < 0 ? small : inverse;
  r.complement = x < 0 ? inverse : small;
  r.softplus = (x < 0 ? Vec<T>{} : x) + log1p_unit(e);
  return r;
}

// A bump allocator over memory that the caller owns; with a null base it only counts.
struct Bump {
  char* base;
  size_t used;
  template <class T>
  T* take(i64 n) {
    T* p = base ? (T*)(base + used) : nullptr;
    used += (size_t)round_up((n > 0 ? n : 0) * (i64)sizeof(T) + RRSIS_VECTOR_BYTES, 64);
    return p;
  }
};
