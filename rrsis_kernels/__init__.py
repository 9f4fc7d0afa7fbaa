"""Token–pixel kernels for referring segmentation: few tokens, many pixels, one score matrix, two moves over it.

score   S[h,l,n] = <key[h,l], pixel[n]> + bias[h,l]
paint   pixel n gathers from tokens:   O[n]   = Σ_h Σ_l softmax_l(S[h,:,n]) · value[h,l]
pool    token l gathers from pixels:   Y[h,l] = Σ_n softmax_n(S[h,l,:]) · pixel[n]
"""

from rrsis_kernels import dispatch as _dispatch  # noqa: F401 (registers the kernels that are written in Python)
from rrsis_kernels import nn
from rrsis_kernels.backends import use_backend
from rrsis_kernels.ops.bidirectional_spatial_correlation import bidirectional_spatial_correlation
from rrsis_kernels.ops.masked_cosine_loss import masked_cosine_loss
from rrsis_kernels.ops.twin_mask_statistics import twin_mask_statistics
from rrsis_kernels.ops.twin_stream_attention import twin_stream_attention
from rrsis_kernels.types import TwinMaskStatistics

__version__ = "0.1.0"

__all__ = [
    "TwinMaskStatistics",
    "bidirectional_spatial_correlation",
    "masked_cosine_loss",
    "nn",
    "twin_mask_statistics",
    "twin_stream_attention",
    "use_backend",
]
