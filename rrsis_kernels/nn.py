"""Layers over the operators: they own the projections and multiply them in the cheaper order.

With few tokens the projections can move from the pixels to the tokens, exactly (W per head, h left out):

    Q Kᵀ       = V (W_qᵀ K)ᵀ      keys   = scale · K W_q, and b_q gives the key bias
    P (U) W_oᵀ = P (U W_oᵀ)       values = U W_oᵀ
    Pᵀ (V W_x) = (Pᵀ V) W_x       raw pixels are pooled and the few results projected

"absorbed" does that, so that no pixel-sized projection exists; "projected" multiplies as the layer is written down,
with heads as batch entries of the same operators. Both give the same numbers. "auto" compares the multiplications per
pixel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rrsis_kernels._checks import check_choice
from rrsis_kernels.ops.bidirectional_spatial_correlation import DIRECTIONS, bidirectional_spatial_correlation
from rrsis_kernels.ops.twin_stream_attention import twin_stream_attention

ORDERS = ("auto", "absorbed", "projected")


class CorrelationProjections(NamedTuple):
    """The linear layers of a bidirectional spatial correlation; those of a direction not asked for may be None.

    Attributes:
        pixel_query: pixels → E, compared with the tokens' keys.
        token_key: tokens → E.
        token_value: tokens → E, painted.
        painted_out: E → pixels.
        pixel_value: pixels → E, pooled.
        pooled_out: E → tokens.
    """

    pixel_query: nn.Linear
    token_key: nn.Linear
    token_value: nn.Linear | None
    painted_out: nn.Linear | None
    pixel_value: nn.Linear | None
    pooled_out: nn.Linear | None


class CorrelationOutput(NamedTuple):
    """Result of `BidirectionalSpatialCorrelation`; what its direction does not give is None.

    Attributes:
        painted: (B, N, pixel_dim).
        pooled: (B, L, token_dim).
        pixel_lse: (B, H, N) fp32 (fp64 for fp64), how strongly each pixel answers to any token.
    """

    painted: Tensor | None
    pooled: Tensor | None
    pixel_lse: Tensor | None


class StreamOutput(NamedTuple):
    """Result of `TwinStreamAttention`.

    Attributes:
        target: (B, K, dim).
        background: (B, K, dim).
    """

    target: Tensor
    background: Tensor


def cheaper_order(pixel_dim: int, embed_dim: int, num_heads: int, tokens: int) -> str:
    """The order with fewer multiplications per pixel.

    Per pixel and product absorbed costs C·H·L and projected C·E + E·L, with as many products in either. The number of
    pixels does not enter, so that a graph compiled for any N stays valid.
    """
    absorbed = pixel_dim * num_heads * tokens
    projected = embed_dim * (pixel_dim + tokens)
    return "absorbed" if absorbed <= projected else "projected"


def _split(features: Tensor, heads: int) -> Tensor:
    """(B, L, E) → (B, H, L, E/H)."""
    return features.unflatten(-1, (heads, -1)).transpose(1, 2)


def _merge(features: Tensor) -> Tensor:
    """(B, H, L, E/H) → (B, L, E)."""
    return features.transpose(1, 2).flatten(2)


def _streams(queries: Tensor) -> tuple[Tensor, Tensor]:
    """(B, H, 2K, C) → target and background queries, (B, H, K, C) each."""
    count = queries.shape[2] // 2
    return queries[:, :, :count], queries[:, :, count:]


def _into_pixel_space(features: Tensor, weight: Tensor) -> Tensor:
    """(B, H, L, E/H) times the heads of a pixel projection's weight (E, C) → (B, H, L, C)."""
    return torch.einsum("bhld,hdc->bhlc", features, weight.unflatten(0, (features.shape[1], -1)))


def _project_pooled(pooled: Tensor, projection: nn.Linear, pixel_mask: Tensor | None, pixels: int) -> Tensor:
    """Applies a pixel projection to what was pooled from raw pixels: (B, H, L, C) → (B, H, L, E/H).

    Weights that sum to one carry the bias over as it is; where nothing was pooled they sum to zero, and so does it.
    """
    heads = pooled.shape[1]
    result = torch.einsum("bhlc,hdc->bhld", pooled, projection.weight.unflatten(0, (heads, -1)))
    if projection.bias is None or pixels == 0:
        return result
    bias = projection.bias.to(result.dtype).view(heads, 1, -1)
    if pixel_mask is not None:
        bias = bias * pixel_mask.any(1)[:, None, None, None]
    return result + bias


def _heads_to_batch(features: Tensor) -> Tensor:
    """(B, H, N, E/H) → (B·H, N, E/H)."""
    return features.flatten(0, 1)


def _repeat_for_heads(mask: Tensor | None, heads: int) -> Tensor | None:
    """(B, N) → (B·H, N)."""
    return None if mask is None else mask[:, None].expand(-1, heads, -1).flatten(0, 1)


def correlate(
    pixels: Tensor,
    tokens: Tensor,
    projections: CorrelationProjections,
    num_heads: int,
    *,
    scale: float,
    token_mask: Tensor | None = None,
    pixel_mask: Tensor | None = None,
    direction: str = "both",
    order: str = "auto",
) -> CorrelationOutput:
    """Bidirectional multi-head attention between pixels and tokens, given its linear layers.

    Args:
        pixels: (B, N, C).
        tokens: (B, L, T).
        projections: the layer's weights.
        num_heads: H.
        scale: factor of the scores.
        token_mask: (B, L) bool, True = real, or None.
        pixel_mask: (B, N) bool, True = real, or None.
        direction: "both", "paint" or "pool".
        order: "auto", "absorbed" or "projected".
    """
    if order == "auto":
        order = cheaper_order(pixels.shape[-1], projections.pixel_query.out_features, num_heads, tokens.shape[1])
    run = _correlate_absorbed if order == "absorbed" else _correlate_projected
    keys = _split(projections.token_key(tokens), num_heads) * scale
    values = None if direction == "pool" else _split(projections.token_value(tokens), num_heads)
    return run(pixels, keys, values, projections, token_mask, pixel_mask, direction)


def _carry_bias(values: Tensor, bias: Tensor, token_mask: Tensor | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Lets the values (B, H, L, C) carry the bias of the painted pixels, so that nothing is added to the many pixels.

    That needs weights that sum to one in each head: a sample without a real token is given one, of value zero.

    Returns:
        Values with their share of the bias, the mask to call the operator with, and which samples (B,) bool have no
        real token and so no correlation either; the last two are None without a mask.
    """
    share = (bias / values.shape[1]).to(values.dtype)
    if token_mask is None:
        return values + share, None, None
    mute = ~token_mask.any(1)
    first = torch.arange(token_mask.shape[1], device=token_mask.device) == 0
    return values.masked_fill(mute[:, None, None, None], 0) + share, token_mask | (mute[:, None] & first), mute


def _correlate_absorbed(
    pixels: Tensor,
    keys: Tensor,
    values: Tensor | None,
    projections: CorrelationProjections,
    token_mask: Tensor | None,
    pixel_mask: Tensor | None,
    direction: str,
) -> CorrelationOutput:
    heads = keys.shape[1]
    query = projections.pixel_query
    key_bias = None if query.bias is None else torch.einsum("bhld,hd->bhl", keys, query.bias.view(heads, -1))
    painted_bias, mute = None, None
    if values is not None:
        painted_bias = projections.painted_out.bias
        values = torch.einsum("bhld,chd->bhlc", values, projections.painted_out.weight.unflatten(1, (heads, -1)))
        if painted_bias is not None and values.shape[2] > 0:
            values, token_mask, mute = _carry_bias(values, painted_bias, token_mask)
    painted, pooled, pixel_lse = bidirectional_spatial_correlation(
        pixels,
        _into_pixel_space(keys, query.weight),
        values,
        key_bias,
        token_mask,
        pixel_mask,
        direction=direction,
    )
    if painted is not None and painted_bias is not None and values.shape[2] == 0:
        painted = painted + painted_bias.to(painted.dtype)
    if mute is not None:
        pixel_lse = pixel_lse.masked_fill(mute[:, None, None], -torch.inf)
    if pooled is not None:
        pooled = _project_pooled(pooled, projections.pixel_value, pixel_mask, pixels.shape[1])
        pooled = projections.pooled_out(_merge(pooled))
    return CorrelationOutput(painted, pooled, pixel_lse)


def _correlate_projected(
    pixels: Tensor,
    keys: Tensor,
    values: Tensor | None,
    projections: CorrelationProjections,
    token_mask: Tensor | None,
    pixel_mask: Tensor | None,
    direction: str,
) -> CorrelationOutput:
    (batch, heads, _, width) = keys.shape
    features = _split(projections.pixel_query(pixels), heads)
    if direction != "paint":
        # The operator pools what it compares: a pixel carries its value behind its query, against keys of zero there.
        features = torch.cat([features, _split(projections.pixel_value(pixels), heads)], -1)
        keys = torch.cat([keys, torch.zeros_like(keys)], -1)
    painted, pooled, pixel_lse = bidirectional_spatial_correlation(
        _heads_to_batch(features),
        _heads_to_batch(keys)[:, None],
        None if values is None else _heads_to_batch(values)[:, None],
        None,
        _repeat_for_heads(token_mask, heads),
        _repeat_for_heads(pixel_mask, heads),
        direction=direction,
    )
    if painted is not None:
        painted = projections.painted_out(_merge(painted.unflatten(0, (batch, heads))))
        pixel_lse = pixel_lse.view(batch, heads, -1)
    if pooled is not None:
        pooled = projections.pooled_out(_merge(pooled[:, 0, :, width:].unflatten(0, (batch, heads))))
    return CorrelationOutput(painted, pooled, pixel_lse)


def _linear(inputs: int, outputs: int, bias: bool = True, **factory: object) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=bias, **factory)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


def _check_heads(name: str, embed_dim: int, num_heads: int) -> None:
    if num_heads < 1 or embed_dim % num_heads:
        raise ValueError(f"{name}: embed_dim must be a multiple of num_heads, got {embed_dim} and {num_heads}")


def _check_features(name: str, argument: str, features: Tensor, channels: int) -> None:
    if features.dim() != 3 or features.shape[-1] != channels:
        raise ValueError(f"{name}: {argument} must be (batch, length, {channels}), got shape {tuple(features.shape)}")


class BidirectionalSpatialCorrelation(nn.Module):
    """Multi-head attention both ways between pixels and tokens over one score matrix.

    Pixels query the tokens and are painted; tokens query the pixels and pool; both share the scores. This is the
    project's own reading of the bidirectional spatial correlation of BTDNet (arXiv 2502.08486); the layer itself is
    that of GLIP (arXiv 2112.03857). Positions, norms, gains and residuals are the caller's.

    Args:
        pixel_dim: channels of the pixels.
        token_dim: channels of the tokens.
        embed_dim: width E of the space in which they meet, all heads together.
        num_heads: H, a divisor of `embed_dim`.
        order: "auto", "absorbed" or "projected"; see the module's docstring.
        direction: "both", "paint" or "pool"; weights of the other direction are not made.
        device: where the weights are made.
        dtype: of the weights.

    Raises:
        ValueError: `embed_dim` is no multiple of `num_heads`, or `order` or `direction` is unknown.
    """

    def __init__(
        self,
        pixel_dim: int,
        token_dim: int,
        embed_dim: int,
        num_heads: int,
        *,
        order: str = "auto",
        direction: str = "both",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_choice(name, "order", order, ORDERS)
        check_choice(name, "direction", direction, DIRECTIONS)
        _check_heads(name, embed_dim, num_heads)
        factory = {"device": device, "dtype": dtype}
        self.pixel_dim, self.token_dim, self.embed_dim, self.num_heads = pixel_dim, token_dim, embed_dim, num_heads
        self.order, self.direction = order, direction
        self.scale = (embed_dim // num_heads) ** -0.5
        paint, pool = direction != "pool", direction != "paint"
        self.pixel_query = _linear(pixel_dim, embed_dim, **factory)
        self.token_key = _linear(token_dim, embed_dim, **factory)
        self.token_value = _linear(token_dim, embed_dim, **factory) if paint else None
        self.painted_out = _linear(embed_dim, pixel_dim, **factory) if paint else None
        self.pixel_value = _linear(pixel_dim, embed_dim, **factory) if pool else None
        self.pooled_out = _linear(embed_dim, token_dim, **factory) if pool else None

    def forward(
        self, pixels: Tensor, tokens: Tensor, token_mask: Tensor | None = None, pixel_mask: Tensor | None = None
    ) -> CorrelationOutput:
        """Runs the layer.

        Args:
            pixels: (B, N, pixel_dim).
            tokens: (B, L, token_dim).
            token_mask: (B, L) bool, True = real, or None. A sample without a real token is painted with the output's
                bias alone.
            pixel_mask: (B, N) bool, True = real, or None. Likewise for pooling.

        Returns:
            painted (B, N, pixel_dim), pooled (B, L, token_dim), pixel_lse (B, H, N).

        Raises:
            TypeError: a tensor has a wrong dtype.
            ValueError: a tensor has a wrong rank, size or device.
        """
        _check_features(type(self).__name__, "pixels", pixels, self.pixel_dim)
        _check_features(type(self).__name__, "tokens", tokens, self.token_dim)
        return correlate(
            pixels,
            tokens,
            CorrelationProjections(
                self.pixel_query,
                self.token_key,
                self.token_value,
                self.painted_out,
                self.pixel_value,
                self.pooled_out,
            ),
            self.num_heads,
            scale=self.scale,
            token_mask=token_mask,
            pixel_mask=pixel_mask,
            direction=self.direction,
            order=self.order,
        )

    def extra_repr(self) -> str:
        """What `print` shows of the layer."""
        return f"heads={self.num_heads}, order={self.order}, direction={self.direction}"


class TwinStreamAttention(nn.Module):
    """Multi-head attention of target and background queries over the same pixels, gated against each other.

    Both streams share all weights: they are told apart by their queries and by the gate, and so read the same features.
    The pixels' key projection has no bias, since a softmax over pixels cannot see it. The project's own reading of the
    target–background decoder of BTDNet (arXiv 2502.08486). Positions, norms and residuals are the caller's.

    Args:
        dim: channels of the queries, and width of the space in which they meet the pixels.
        num_heads: H, a divisor of `dim`.
        pixel_dim: channels of the pixels; None for `dim`.
        order: "auto", "absorbed" or "projected"; see the module's docstring.
        device: where the weights are made.
        dtype: of the weights.

    Raises:
        ValueError: `dim` is no multiple of `num_heads`, or `order` is unknown.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        pixel_dim: int | None = None,
        *,
        order: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_choice(name, "order", order, ORDERS)
        _check_heads(name, dim, num_heads)
        factory = {"device": device, "dtype": dtype}
        self.dim, self.num_heads, self.pixel_dim, self.order = dim, num_heads, pixel_dim or dim, order
        self.scale = (dim // num_heads) ** -0.5
        self.query = _linear(dim, dim, **factory)
        self.pixel_key = _linear(self.pixel_dim, dim, bias=False, **factory)
        self.pixel_value = _linear(self.pixel_dim, dim, **factory)
        self.out = _linear(dim, dim, **factory)

    def forward(
        self,
        pixels: Tensor,
        target_queries: Tensor,
        background_queries: Tensor,
        gate: Tensor | None = None,
        pixel_mask: Tensor | None = None,
    ) -> StreamOutput:
        """Runs the layer.

        Args:
            pixels: (B, N, pixel_dim).
            target_queries: (B, K, dim).
            background_queries: (B, K, dim).
            gate: (B, N) logit that draws the target stream to where it is high, the background stream to where it is
                low, or None.
            pixel_mask: (B, N) bool, True = real, or None.

        Returns:
            target and background, (B, K, dim) each.

        Raises:
            TypeError: a tensor has a wrong dtype.
            ValueError: a tensor has a wrong rank, size or device.
        """
        name = type(self).__name__
        _check_features(name, "pixels", pixels, self.pixel_dim)
        _check_features(name, "target_queries", target_queries, self.dim)
        _check_features(name, "background_queries", background_queries, self.dim)
        if target_queries.shape != background_queries.shape:
            raise ValueError(
                f"{name}: background_queries must have the shape of target_queries, {tuple(target_queries.shape)}, "
                f"got {tuple(background_queries.shape)}"
            )
        queries = torch.cat([target_queries, background_queries], 1)
        order = self.order
        if order == "auto":
            order = cheaper_order(self.pixel_dim, self.dim, self.num_heads, queries.shape[1])
        run = self._absorbed if order == "absorbed" else self._projected
        pooled = run(pixels, _split(self.query(queries), self.num_heads) * self.scale, gate, pixel_mask)
        pooled = self.out(_merge(pooled))
        count = target_queries.shape[1]
        return StreamOutput(pooled[:, :count], pooled[:, count:])

    def _absorbed(self, pixels: Tensor, queries: Tensor, gate: Tensor | None, pixel_mask: Tensor | None) -> Tensor:
        queries = _into_pixel_space(queries, self.pixel_key.weight)
        pooled = torch.cat(twin_stream_attention(pixels, *_streams(queries), gate, pixel_mask), 2)
        return _project_pooled(pooled, self.pixel_value, pixel_mask, pixels.shape[1])

    def _projected(self, pixels: Tensor, queries: Tensor, gate: Tensor | None, pixel_mask: Tensor | None) -> Tensor:
        batch, heads, _, width = queries.shape
        features = torch.cat(
            [self.pixel_key(pixels).unflatten(-1, (heads, -1)), self.pixel_value(pixels).unflatten(-1, (heads, -1))], -1
        )
        queries = _heads_to_batch(torch.cat([queries, torch.zeros_like(queries)], -1))[:, None]
        pooled = torch.cat(
            twin_stream_attention(
                _heads_to_batch(features.transpose(1, 2)),
                *_streams(queries),
                _repeat_for_heads(gate, heads),
                _repeat_for_heads(pixel_mask, heads),
            ),
            2,
        )
        return pooled[:, 0, :, width:].unflatten(0, (batch, heads))

    def extra_repr(self) -> str:
        """What `print` shows of the layer."""
        return f"heads={self.num_heads}, order={self.order}"
