// Products of bf16 with fp32 sums. One lane of an operand carries two bf16, the first one in its lower half, and one
// instruction adds both of their products. Operands keep the type of the sums, float: their lanes are moved, broadcast and
// transposed as they are, and only multiply_add and the two functions below look inside them.

typedef uint16_t Halves __attribute__((vector_size(RRSIS_VECTOR_BYTES)));

#ifdef RRSIS_BFLOAT16_INSTRUCTIONS
RRSIS_INLINE Vec<float> dot_pairs(Vec<float> sum, Vec<float> x, Vec<float> y) {
  return (Vec<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)y);
}
// Two vectors rounded to bf16, the first one in the lower half. One instruction could do both; the emulator that the tests
// run on (docs/build.md) gets its second half wrong.
typedef uint16_t FewerHalves __attribute__((vector_size(RRSIS_VECTOR_BYTES / 2)));
template <int... I>
RRSIS_INLINE Halves join(FewerHalves first, FewerHalves second, Indices<I...>) {
  return __builtin_shufflevector(first, second, I...);
}
RRSIS_INLINE Halves narrow(Vec<float> first, Vec<float> second) {
  return join((FewerHalves)_mm512_cvtneps_pbh((__m512)first), (FewerHalves)_mm512_cvtneps_pbh((__m512)second),
              MakeIndices<2 * Types<float>::lanes>::type());
}
// One vector rounded to bf16.
typedef FewerHalves Rounded;
RRSIS_INLINE Rounded rounded(Vec<float> x) { return (Rounded)_mm512_cvtneps_pbh((__m512)x); }
RRSIS_INLINE Vec<float> widened(Rounded x) { return (Vec<float>)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)x), 16); }
RRSIS_INLINE void store_rounded(char* p, Rounded x) { _mm256_storeu_si256((__m256i*)p, (__m256i)x); }
#else
// What those instructions do, for tests on machines without them: subnormals are taken and left as zeros of their sign, the
// upper product is added before the lower one, each with one rounding to nearest even. Not inlined: it compiles in a fifth
// of the time.
#define RRSIS_WRITTEN_OUT __attribute__((noinline))
RRSIS_INLINE Vec<float> without_subnormals(Vec<float> x) {
  const Int<float> bits = (Int<float>)x;
  return (Vec<float>)((bits & 0x7f800000) == 0 ? bits & (int32_t)0x80000000 : bits);
}
RRSIS_INLINE Vec<float> lower(Vec<float> pairs) { return without_subnormals((Vec<float>)((Int<float>)pairs << 16)); }
RRSIS_INLINE Vec<float> upper(Vec<float> pairs) {
  return without_subnormals((Vec<float>)((Int<float>)pairs & (int32_t)0xffff0000));
}
// Rounded to the nearest bf16, ties to even, as a float: with the lower half of each lane empty.
typedef Vec<float> Rounded;
RRSIS_WRITTEN_OUT Rounded rounded(Vec<float> x) {
  const Int<float> bits = (Int<float>)without_subnormals(x);
  const Int<float> nearest = bits + (0x7fff + ((bits >> 16) & 1));
  return (Vec<float>)((x != x ? bits | 0x400000 : nearest) & (int32_t)0xffff0000);  // a NaN must not overflow into a number
}
RRSIS_INLINE Vec<float> widened(Rounded x) { return x; }
RRSIS_INLINE void store_rounded(char* p, Rounded x) {
  for (int i = 0; i < Types<float>::lanes; ++i) __builtin_memcpy(p + 2 * i, (char*)&x + 4 * i + 2, 2);
}
template <int... I>
RRSIS_INLINE Halves upper_halves(Halves first, Halves second, Indices<I...>) {
  return __builtin_shufflevector(first, second, (2 * I + 1)...);
}
RRSIS_WRITTEN_OUT Vec<float> dot_pairs(Vec<float> sum, Vec<float> x, Vec<float> y) {
  sum = without_subnormals(upper(x) * upper(y) + without_subnormals(sum));
  return without_subnormals(lower(x) * lower(y) + sum);
}
RRSIS_WRITTEN_OUT Halves narrow(Vec<float> first, Vec<float> second) {
  const Halves low = (Halves)rounded(first), high = (Halves)rounded(second);
  return upper_halves(low, high, MakeIndices<2 * Types<float>::lanes>::type());
}
#endif

template <>
RRSIS_INLINE Vec<float> multiply_add<float>(Vec<float> sum, Vec<float> x, Vec<float> y) {
  return dot_pairs(sum, x, y);
}

// (first[0], second[0], first[1], ...) of the lower, or of the upper, halves of two rows of bf16.
template <bool from_upper, int... I>
RRSIS_INLINE Halves interleave(Halves first, Halves second, Indices<I...>) {
  constexpr int n = 2 * Types<float>::lanes, begin = from_upper ? n / 2 : 0;
  return __builtin_shufflevector(first, second, (begin + (I % 2 ? n + I / 2 : I / 2))...);
}
// The same of the two halves of one vector, as `narrow` leaves them.
template <int... I>
RRSIS_INLINE Halves interleave_halves(Halves both, Indices<I...>) {
  constexpr int n = Types<float>::lanes;
  return __builtin_shufflevector(both, both, (I % 2 ? n + I / 2 : I / 2)...);
}
