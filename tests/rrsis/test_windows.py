"""Window attention by index against timm's own, which pads, rolls and slices."""

import pytest
import timm
import torch

from rrsis.windows import windows_of_any_size


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
@pytest.mark.parametrize("window", [3, 4])
def test_it_is_timms_attention_at_any_size(name, window):
    torch.manual_seed(0)
    options = {"img_size": 96, "embed_dim": 8, "depths": (2, 2, 2, 2), "num_heads": (1, 1, 2, 2)}
    model = timm.create_model(name, num_classes=0, window_size=window, strict_img_size=False, **options).eval()
    own = [module._attn for module in model.modules() if hasattr(module, "_attn")]
    for size in ((96, 96), (64, 160), (224, 32), (128, 256)):
        images = torch.randn(2, 3, *size)
        with torch.no_grad():
            due = model(images)
            with windows_of_any_size(model):
                got = model(images)
        assert torch.equal(got, due), size
    assert [module._attn for module in model.modules() if hasattr(module, "_attn")] == own, "left as it was"
