"""From images and expressions to the model's inputs, and from its logits back to masks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from torch.nn import functional as F
from transformers import (
    BatchEncoding,
    BatchFeature,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    ViTImageProcessor,
)
from transformers.processing_utils import ProcessorMixin

from rrsis.model import BTDNetOutput

SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]


def build_tokenizer(expressions: Iterable[str], max_tokens: int = 24) -> PreTrainedTokenizerFast:
    """Makes a tokenizer that knows the words of the training expressions and needs no download.

    It splits and lower-cases as BERT does, and has one token a word, by falling count, then by the alphabet, so that
    the same expressions give the same ids.

    Args:
        expressions: the training expressions.
        max_tokens: longest sequence, [CLS] and [SEP] included.

    Returns:
        The tokenizer.

    Raises:
        ValueError: when the expressions hold no word.
    """
    normalizer = normalizers.BertNormalizer(lowercase=True)
    splitter = pre_tokenizers.BertPreTokenizer()
    counts: Counter[str] = Counter()
    for expression in expressions:
        counts.update(word for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(expression)))
    if not counts:
        raise ValueError("expressions must hold at least one word; got none")
    words = sorted(counts, key=lambda word: (-counts[word], word))
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS.values(), *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_tokens, **SPECIAL_TOKENS)


def build_processor(tokenizer: PreTrainedTokenizerBase, image_size: int, max_tokens: int) -> BTDNetProcessor:
    """Makes the processor of a new model: square images of `image_size`, ImageNet statistics (as timm's weights)."""
    image_processor = ViTImageProcessor(
        size={"height": image_size, "width": image_size}, image_mean=IMAGENET_MEAN, image_std=IMAGENET_STD
    )
    return BTDNetProcessor(image_processor, tokenizer, max_tokens=max_tokens)


class BTDNetProcessor(ProcessorMixin):
    """Makes the model's inputs and turns its logits into masks.

    Args:
        image_processor: resizes and normalises images.
        tokenizer: a fast tokenizer.
        max_tokens: longest expression, in tokens; longer ones are cut.
    """

    attributes = ["image_processor", "tokenizer"]

    def __init__(
        self,
        image_processor: ViTImageProcessor,
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int = 24,
        **kwargs: object,
    ) -> None:
        super().__init__(image_processor, tokenizer, **kwargs)
        self.max_tokens = max_tokens

    def __call__(
        self,
        images: Sequence[Image.Image | np.ndarray] | Image.Image | np.ndarray,
        expressions: Sequence[str] | str,
        masks: Sequence[np.ndarray] | None = None,
        categories: Sequence[str | None] | None = None,
        return_tensors: str = "pt",
        padding: bool | str = True,
    ) -> BatchFeature:
        """Makes a batch.

        Args:
            images: RGB images, PIL or uint8 (H, W, 3), one an expression.
            expressions: one an image.
            masks: (H, W) bool, one an image, at the image's own size.
            categories: the objects' category names where known; they mark the noun that D-MOLS hides.
            return_tensors: "pt".
            padding: as tokenizers take it: True to the longest expression, "max_length" to `max_tokens`.

        Returns:
            pixel_values (B, 3, S, S) float32, input_ids and attention_mask (B, L) int64; labels (B, S, S) uint8 when
            masks are given; noun_mask (B, L) bool when categories are given.

        Raises:
            ValueError: when the counts differ, an expression is empty, or a mask has not its image's size.
        """
        images = [images] if isinstance(images, Image.Image | np.ndarray) else list(images)
        expressions = [expressions] if isinstance(expressions, str) else list(expressions)
        _check_batch(images, expressions, masks, categories)
        encoding = self.prepare_expressions(
            expressions,
            return_offsets_mapping=categories is not None,
            return_tensors=return_tensors,
            padding=padding,
        )
        data = {
            "pixel_values": self.prepare_images(images, return_tensors),
            "input_ids": encoding["input_ids"],
            "attention_mask": encoding["attention_mask"],
        }
        if masks is not None:
            size = (self.image_processor.size["height"], self.image_processor.size["width"])
            data["labels"] = torch.stack([_resize_mask(mask, size) for mask in masks])
        if categories is not None:
            data["noun_mask"] = torch.stack(
                [
                    _noun_mask(expression, category, offsets)
                    for expression, category, offsets in zip(
                        expressions, categories, encoding["offset_mapping"], strict=True
                    )
                ]
            )
        return BatchFeature(data)

    def prepare_expressions(
        self,
        expressions: Sequence[str],
        *,
        return_offsets_mapping: bool = False,
        return_tensors: str = "pt",
        padding: bool | str = True,
    ) -> BatchEncoding:
        """Tokenizes B expressions, the shorter ones padded: input_ids and attention_mask, (B, L) int64 each."""
        return self.tokenizer(
            list(expressions),
            padding=padding,
            truncation=True,
            max_length=self.max_tokens,
            return_offsets_mapping=return_offsets_mapping,
            return_tensors=return_tensors,
        )

    def prepare_images(self, images: Sequence[Image.Image | np.ndarray], return_tensors: str = "pt") -> Tensor:
        """Resizes and normalises B images, RGB, PIL or uint8 (H, W, 3), to pixel_values (B, 3, S, S) float32."""
        # The image processor guesses where an array has its channels, and takes (1, W, 3) and (3, W, 3) for channels
        # first. Given channels first, it has nothing to guess.
        inputs = [
            torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))) if isinstance(image, np.ndarray) else image
            for image in images
        ]
        return self.image_processor(images=inputs, input_data_format="channels_first", return_tensors=return_tensors)[
            "pixel_values"
        ]

    def post_process_probabilities(
        self, outputs: BTDNetOutput, target_sizes: Sequence[tuple[int, int]]
    ) -> list[Tensor]:
        """Probability of the referred object at each pixel.

        Args:
            outputs: what the model returned for B images.
            target_sizes: (height, width) of each image.

        Returns:
            B float tensors (height, width): σ of the bilinearly resized joint logit.

        Raises:
            ValueError: when the number of sizes is not B.
        """
        if len(target_sizes) != len(outputs.logits):
            raise ValueError(f"target_sizes must have {len(outputs.logits)} entries; got {len(target_sizes)}")
        return [
            F.interpolate(logits[None, None].float(), size=tuple(size), mode="bilinear", align_corners=False)[
                0, 0
            ].sigmoid()
            for logits, size in zip(outputs.logits, target_sizes, strict=True)
        ]

    def post_process_segmentation(
        self, outputs: BTDNetOutput, target_sizes: Sequence[tuple[int, int]], threshold: float = 0.5
    ) -> list[Tensor]:
        """Masks: B bool tensors (height, width), True where the probability is above `threshold`."""
        return [probability > threshold for probability in self.post_process_probabilities(outputs, target_sizes)]


def _check_batch(
    images: Sequence[Image.Image | np.ndarray],
    expressions: Sequence[str],
    masks: Sequence[np.ndarray] | None,
    categories: Sequence[str | None] | None,
) -> None:
    for name, values in (("expressions", expressions), ("masks", masks), ("categories", categories)):
        if values is not None and len(values) != len(images):
            raise ValueError(f"{name} must have one entry an image; got {len(values)} for {len(images)} images")
    for index, expression in enumerate(expressions):
        if not expression.strip():
            raise ValueError(f"expressions[{index}] must hold at least one word; got {expression!r}")
    for index, mask in enumerate(masks or ()):
        image = images[index]
        size = image.shape[:2] if isinstance(image, np.ndarray) else (image.height, image.width)
        if tuple(mask.shape) != tuple(size):
            raise ValueError(f"masks[{index}] must have its image's size {tuple(size)}; got {tuple(mask.shape)}")


def _resize_mask(mask: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Nearest resize, as the field's loaders do, so that a mask stays a mask."""
    if mask.shape == size:
        return torch.from_numpy(np.ascontiguousarray(mask, dtype=np.uint8))
    resized = Image.fromarray(mask.astype(np.uint8)).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(resized))


def _noun_mask(expression: str, category: str | None, offsets: Tensor) -> Tensor:
    """Marks the tokens that spell the category's name, plural included; none where the expression has another word."""
    marked = torch.zeros(len(offsets), dtype=torch.bool)
    if category is None:
        return marked
    words = [re.escape(word) for word in re.split(r"[\s_-]+", category.strip()) if word]
    for match in re.finditer(r"\b" + r"[\s_-]+".join(words) + r"(?:s|es)?\b", expression, re.IGNORECASE):
        # [CLS], [SEP] and padding have the empty span (0, 0).
        inside = (offsets[:, 0] >= match.start()) & (offsets[:, 1] <= match.end()) & (offsets[:, 1] > offsets[:, 0])
        marked |= inside
    return marked
