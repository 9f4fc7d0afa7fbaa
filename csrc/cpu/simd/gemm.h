// One register-blocked product for every use: C[m][n] (+)= sum_k A(m, k) * B[k][n], vectors across n.
//   along_k: A(m, k) = a[m * lda + k]   (rows of tokens, rows of scores)
//   along_m: A(m, k) = a[k * lda + m]   (scores read column by column, so that pixels or tokens become the rows)
// B is read in column panels of `kPanel` vectors: panel p starts at b + p * panel_stride and its rows are ldb apart, so a
// packed operand and a plain row-major matrix (panel_stride = panel width) are the same thing.

enum Access { along_k, along_m };

// What becomes of C: written, added to, or written past the caches (rows of whole cache lines only).
enum Output { fresh, added, streamed };

constexpr i64 kLine = 64;         // bytes
constexpr i64 kLarge = 8 << 20;  // bytes of an output that the caches will not hold until it is read

// Memory that will be read soon, fetched a few lines per block while a product keeps the arithmetic busy.
struct Ahead {
  const char *next = nullptr, *end = nullptr;
  i64 lines = 0;  // per block
  RRSIS_INLINE void fetch() {
    for (i64 i = 0; i < lines && next < end; ++i, next += kLine) __builtin_prefetch(next);
  }
};

// One step of a product. Specialised where an operand's lane carries more than one number (bfloat16.h).
template <class T>
RRSIS_INLINE Vec<T> multiply_add(Vec<T> sum, Vec<T> x, Vec<T> y) {
  return sum + x * y;
}

template <class T, int MR, int NV, Access access>
RRSIS_INLINE void block(i64 K, const T* __restrict a, i64 lda, const T* __restrict b, i64 ldb, T* __restrict c, i64 ldc,
                        Output output) {
  constexpr int lanes = Types<T>::lanes;
  Vec<T> acc[MR][NV];
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) acc[i][j] = Vec<T>{};
  if (output != streamed) {  // C is further out than the first-level cache
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) __builtin_prefetch(c + i * ldc, 1);
  }
  for (i64 k = 0; k < K; ++k) {
    Vec<T> row[NV];
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) row[j] = load<T>(b + j * lanes);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      const Vec<T> x = splat<T>(access == along_k ? a[i * lda + k] : a[k * lda + i]);
#pragma GCC unroll 8
      for (int j = 0; j < NV; ++j) acc[i][j] = multiply_add<T>(acc[i][j], x, row[j]);
    }
    b += ldb;
  }
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 8
    for (int j = 0; j < NV; ++j) {
      T* out = c + i * ldc + j * lanes;
      if (output == streamed) {
        store_past_caches<T>(out, acc[i][j]);
      } else {
        store<T>(out, output == added ? load<T>(out) + acc[i][j] : acc[i][j]);
      }
    }
}

template <class T, int NV, Access access>
__attribute__((noinline)) void panel(i64 M, i64 K, const T* a, i64 lda, const T* b, i64 ldb, T* c, i64 ldc, Output output,
                                     Ahead* ahead) {
  // Rows are spread evenly over the blocks (80 rows are ten blocks of 6 and four of 5): a small last block would run at the
  // latency of its few accumulators.
  const i64 blocks = (M + kBlockRows - 1) / kBlockRows;
  if (blocks == 0) return;
  const i64 base = M / blocks, longer = M % blocks;
  for (i64 i = 0; i < blocks; ++i) {
    const i64 rows = base + (i < longer);
    if (ahead) ahead->fetch();
    switch (rows) {
#define RRSIS_CASE(MR) \
  case MR: block<T, MR, NV, access>(K, a, lda, b, ldb, c, ldc, output); break;
      RRSIS_CASE(1)
      RRSIS_CASE(2)
      RRSIS_CASE(3)
      RRSIS_CASE(4)
      RRSIS_CASE(5)
      RRSIS_CASE(6)
#undef RRSIS_CASE
    }
    a += access == along_k ? rows * lda : rows;
    c += rows * ldc;
  }
}

// `vectors` is the width of C in vectors; C's rows must have room for all of them.
template <class T, Access access>
void product(i64 M, i64 vectors, i64 K, const T* a, i64 lda, const T* b, i64 panel_stride, i64 ldb, T* c, i64 ldc,
             Output output, Ahead* ahead = nullptr) {
  for (i64 v = 0; v < vectors; v += kPanel) {
    switch (smaller(kPanel, vectors - v)) {
      case 1: panel<T, 1, access>(M, K, a, lda, b, ldb, c, ldc, output, ahead); break;
      case 2: panel<T, 2, access>(M, K, a, lda, b, ldb, c, ldc, output, ahead); break;
#if RRSIS_PANEL > 2
      case 3: panel<T, 3, access>(M, K, a, lda, b, ldb, c, ldc, output, ahead); break;
      case 4: panel<T, 4, access>(M, K, a, lda, b, ldb, c, ldc, output, ahead); break;
#endif
    }
    b += panel_stride;
    c += kPanel * Types<T>::lanes;
  }
}

// One row of a matrix into its place in column panels of full width.
template <class T>
RRSIS_INLINE void pack_row(T* dst, i64 panel_stride, const T* src, i64 vectors) {
  constexpr int lanes = Types<T>::lanes;
  for (i64 v = 0; v < vectors; v += kPanel, dst += panel_stride)
    for (i64 j = 0; j < smaller(kPanel, vectors - v); ++j) store<T>(dst + j * lanes, load<T>(src + (v + j) * lanes));
}

// Off-diagonal exchange of blocks of S lanes: the step of a transposition in registers.
template <class T, int S, int... I>
RRSIS_INLINE void exchange(Vec<T>& a, Vec<T>& b, Indices<I...>) {
  constexpr int n = Types<T>::lanes;
  const Vec<T> low = __builtin_shufflevector(a, b, ((I & S) ? n + I - S : I)...);
  const Vec<T> high = __builtin_shufflevector(a, b, ((I & S) ? n + I : I + S)...);
  a = low;
  b = high;
}
template <class T, int S>
RRSIS_INLINE void exchange_all(Vec<T>* rows) {
  constexpr int n = Types<T>::lanes;
  if constexpr (S >= 1) {
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i)
      if (!(i & S)) exchange<T, S>(rows[i], rows[i + S], typename MakeIndices<n>::type());
    exchange_all<T, S / 2>(rows);
  }
}

// One square of `real` pixel rows (the missing ones read as zeros): transposed into `out`, as it is into `copy`.
template <class T, bool whole, bool keep>
RRSIS_INLINE void transpose_square(const T* x, i64 ld, i64 real, T* out, i64 width, T* copy) {
  constexpr int lanes = Types<T>::lanes;
  Vec<T> rows[lanes];
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) {
    rows[i] = whole || i < real ? load<T>(x + i * ld) : Vec<T>{};
    if (keep) store<T>(copy + i * width, rows[i]);
  }
  exchange_all<T, lanes / 2>(rows);
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) store<T>(out + i * width, rows[i]);
}

// Pixel rows x[n][c] into transposed panels out[panel][c][pixel] and, with `keep`, into panels copy[panel][pixel][c] of
// `depth` rows: read at a stride, a power of two as a rule, the rows would fight for the same lines of the cache. Pixels
// past `count` become zeros, up to whole vectors of pixels; `channels` is whole vectors.
template <class T, bool keep>
void transpose_tile(const T* x, i64 ld, i64 count, i64 channels, T* out, T* copy, i64 depth) {
  constexpr int lanes = Types<T>::lanes, width = kPanel * lanes;
  for (i64 n = 0; n < count; n += lanes) {
    T* dst = out + n / width * width * channels + n % width;
    const T* src = x + n * ld;
    for (i64 c = 0; c < channels; c += lanes) {
      T* kept = copy + (c / width * depth + n) * width + c % width;
      if (n + lanes <= count) {
        transpose_square<T, true, keep>(src + c, ld, lanes, dst + c * width, width, kept);
      } else {
        transpose_square<T, false, keep>(src + c, ld, count - n, dst + c * width, width, kept);
      }
    }
  }
}
