// Rows of any supported dtype to and from the compute type. Plain loops over integers: the compiler vectorises them.

RRSIS_INLINE float bits_to_float(uint32_t b) {
  float f;
  __builtin_memcpy(&f, &b, 4);
  return f;
}
RRSIS_INLINE uint32_t float_to_bits(float f) {
  uint32_t b;
  __builtin_memcpy(&b, &f, 4);
  return b;
}
RRSIS_INLINE float half_to_float(uint16_t h) {
  const uint32_t magnitude = (uint32_t)(h & 0x7fff) << 13;
  const float scaled = bits_to_float(magnitude) * bits_to_float(0x77800000u);  // 2^112 mends the bias, subnormals too
  const uint32_t special = magnitude | 0x7f800000u;
  const uint32_t bits = magnitude >= 0x0f800000u ? special : float_to_bits(scaled);
  return bits_to_float(bits | ((uint32_t)(h & 0x8000) << 16));
}
RRSIS_INLINE uint16_t float_to_half(float f) {
  const uint32_t x = float_to_bits(f), sign = (x >> 16) & 0x8000u, a = x & 0x7fffffffu;
  const uint32_t normal = ((a + 0xfffu + ((a >> 13) & 1u)) >> 13) - (112u << 10);
  const uint32_t tiny = float_to_bits(bits_to_float(a) + 0.5f) - 0x3f000000u;  // the addition rounds to even for us
  uint32_t r = a < 0x38800000u ? tiny : normal;
  r = a >= 0x47800000u ? 0x7c00u : r;
  r = a > 0x7f800000u ? 0x7e00u : r;
  return (uint16_t)(r | sign);
}
RRSIS_INLINE uint16_t float_to_bfloat(float f) {
  const uint32_t x = float_to_bits(f);
  const uint32_t rounded = (x + 0x7fffu + ((x >> 16) & 1u)) >> 16;
  return (uint16_t)((x & 0x7fffffffu) > 0x7f800000u ? ((x >> 16) | 0x40u) : rounded);
}

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr int value = kFloat32;
};
template <>
struct DTypeOf<double> {
  static constexpr int value = kFloat64;
};

constexpr i64 item_bytes(int dtype) { return dtype == kFloat64 ? 8 : dtype == kFloat32 ? 4 : dtype == kUInt8 ? 1 : 2; }

RRSIS_INLINE const void* element(const void* p, i64 offset, int dtype) {
  return (const char*)p + offset * item_bytes(dtype);
}
RRSIS_INLINE void* element(void* p, i64 offset, int dtype) { return (char*)p + offset * item_bytes(dtype); }

// dst[0..n) = src, dst[n..padded) = 0; a null src reads as zeros.
template <class T>
void load_row(T* __restrict dst, const void* __restrict src, int dtype, i64 n, i64 padded) {
  if (!src) n = 0;
  switch (dtype) {
    case kFloat32:
      for (i64 i = 0; i < n; ++i) dst[i] = (T)((const float*)src)[i];
      break;
    case kFloat64:
      for (i64 i = 0; i < n; ++i) dst[i] = (T)((const double*)src)[i];
      break;
    case kBFloat16:
      for (i64 i = 0; i < n; ++i) dst[i] = (T)bits_to_float((uint32_t)((const uint16_t*)src)[i] << 16);
      break;
    case kFloat16:
      for (i64 i = 0; i < n; ++i) dst[i] = (T)half_to_float(((const uint16_t*)src)[i]);
      break;
    case kUInt8:
      for (i64 i = 0; i < n; ++i) dst[i] = (T)((const uint8_t*)src)[i];
      break;
  }
  for (i64 i = n; i < padded; ++i) dst[i] = 0;
}

template <class T>
void store_row(void* __restrict dst, const T* __restrict src, int dtype, i64 n) {
  switch (dtype) {
    case kFloat32:
      for (i64 i = 0; i < n; ++i) ((float*)dst)[i] = (float)src[i];
      break;
    case kFloat64:
      for (i64 i = 0; i < n; ++i) ((double*)dst)[i] = (double)src[i];
      break;
    case kBFloat16:
      for (i64 i = 0; i < n; ++i) ((uint16_t*)dst)[i] = float_to_bfloat((float)src[i]);
      break;
    case kFloat16:
      for (i64 i = 0; i < n; ++i) ((uint16_t*)dst)[i] = float_to_half((float)src[i]);
      break;
  }
}
