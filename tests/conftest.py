"""What all tests share: the same examples in every run, and no time limits that a busy machine could break."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, settings

import rrsis._torchvision  # noqa: F401 (transformers' detectors import torchvision, which may need its help to load)

settings.register_profile(
    "deterministic",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("deterministic")


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """A run folder with a very small Swin model that has shifted and padded windows, and the package made of it.

    Its logits are spread and shifted so that about half of an image belongs to the mask.
    """
    from rrsis.config import make_config
    from rrsis.export import main
    from rrsis.model import BTDNetForReferringSegmentation
    from rrsis.processing import build_processor, build_tokenizer

    torch.manual_seed(0)
    tokenizer = build_tokenizer(["the red square", "the largest ship at the bottom"], max_tokens=12)
    config = make_config("tiny", image_size=96, decoder_layers=2, decoder_dim=16, decoder_heads=2, num_queries=2)
    config.backbone_kwargs.update(
        img_size=96, embed_dim=8, depths=[2, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=5, drop_path_rate=0.0
    )
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config.text_config.update({**sizes, "vocab_size": len(tokenizer)})
    config.bsc_num_heads, config.bsc_embed_dims, config.decoder_ffn_dim = [2] * 4, [8] * 4, 16
    model = BTDNetForReferringSegmentation(config).eval()
    with torch.no_grad():
        for parameter in model.decoder.head.embedding[-1].parameters():
            parameter *= 100  # random weights are nearly indifferent
        logits = model(torch.randn(1, 3, 96, 96), torch.tensor([[2, 5, 6, 3]])).logits
        model.decoder.head.target_bias -= 2 * logits.median()
    folder = tmp_path_factory.mktemp("served")
    model.save_pretrained(folder)
    build_processor(tokenizer, config.image_size, max_tokens=12).save_pretrained(folder)
    package = folder / "packages" / "model.pt2"
    # Without vector code and optimisation it compiles in half the time.
    with torch._inductor.config.patch({"cpp.simdlen": 1, "aot_inductor.compile_wrapper_opt_level": "O0"}):
        assert main(["--model", str(folder), "--out", str(package), "--max_size", "192"]) == 0
    assert [path.name for path in package.parent.iterdir()] == ["model.pt2"]
    return SimpleNamespace(run=folder, package=package)
