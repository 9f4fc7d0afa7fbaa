// The table of one instruction set: a slot takes float or double compute by the dtype of the call. One for bf16 inputs alone
// has nothing in double.

#ifdef RRSIS_BFLOAT16_PAIRS
#define RRSIS_BY_DTYPE(result, name, params, call) \
  result name##_any params { return name<float> call; }
#else
#define RRSIS_BY_DTYPE(result, name, params, call)                          \
  result name##_any params {                                                \
    return a.dtype == kFloat64 ? name<double> call : name<float> call;      \
  }
#endif

RRSIS_BY_DTYPE(WorkSizes, forward_sizes, (const TokenPixelArgs& a), (a))
RRSIS_BY_DTYPE(void, forward_prepare, (const TokenPixelArgs& a, i64 b, const WorkMemory& w), (a, b, w))
RRSIS_BY_DTYPE(void, forward_chunk, (const TokenPixelArgs& a, i64 b, i64 i, const WorkMemory& w), (a, b, i, w))
RRSIS_BY_DTYPE(void, forward_finish, (const TokenPixelArgs& a, i64 b, const WorkMemory& w), (a, b, w))
RRSIS_BY_DTYPE(WorkSizes, backward_sizes, (const TokenPixelArgs& a), (a))
RRSIS_BY_DTYPE(void, backward_prepare, (const TokenPixelArgs& a, i64 b, const WorkMemory& w), (a, b, w))
RRSIS_BY_DTYPE(void, backward_chunk, (const TokenPixelArgs& a, i64 b, i64 i, const WorkMemory& w), (a, b, i, w))
RRSIS_BY_DTYPE(void, backward_finish, (const TokenPixelArgs& a, i64 b, const WorkMemory& w), (a, b, w))
RRSIS_BY_DTYPE(size_t, mask_statistics_thread_bytes, (const MaskStatisticsArgs& a), (a))
RRSIS_BY_DTYPE(void, mask_statistics_forward, (const MaskStatisticsArgs& a, i64 b, i64 i, char* t), (a, b, i, t))
RRSIS_BY_DTYPE(void, mask_statistics_backward, (const MaskStatisticsArgs& a, i64 b, i64 i, char* t), (a, b, i, t))
RRSIS_BY_DTYPE(void, masked_cosine_forward, (const MaskedCosineArgs& a, i64 b, i64 i), (a, b, i))
RRSIS_BY_DTYPE(void, masked_cosine_backward, (const MaskedCosineArgs& a, i64 b, i64 i), (a, b, i))
#undef RRSIS_BY_DTYPE

constexpr KernelTable kTable = {
    forward_sizes_any,       forward_prepare_any,          forward_chunk_any,
    forward_finish_any,      backward_sizes_any,           backward_prepare_any,
    backward_chunk_any,      backward_finish_any,          mask_statistics_thread_bytes_any,
    mask_statistics_forward_any, mask_statistics_backward_any, masked_cosine_forward_any,
    masked_cosine_backward_any,
};
