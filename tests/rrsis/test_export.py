"""rrsis.export: one package for every size and length within its bounds, and none that does not agree."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer
from torch.testing import assert_close

from rrsis import export as cli
from rrsis.evaluate import load_run
from rrsis.model import BTDNetForReferringSegmentation

pytestmark = pytest.mark.slow  # a package is compiled, once for all tests


@pytest.fixture(scope="module")
def package(served):
    return torch._inductor.aoti_load_package(str(served.package))


@pytest.fixture(scope="module")
def model(served):
    model, _ = load_run(served.run, "cpu")
    model.encoder.image.accept_any_size()
    return model


@pytest.mark.parametrize(
    ("height", "width", "tokens"), [(96, 96, 6), (64, 64, 2), (192, 64, 12), (128, 160, 3), (64, 192, 7), (160, 96, 11)]
)
def test_one_package_for_all_sizes_and_lengths(package, model, height, width, tokens):
    torch.manual_seed(height + tokens)
    pixels = torch.randn(1, 3, height, width)
    words = torch.randint(model.config.text_config.vocab_size, (1, tokens))
    mask = torch.ones_like(words)
    mask[0, tokens - tokens // 4 :] = 0
    with torch.no_grad():
        due = model(pixels, words, mask).logits
        assert_close(package(pixels, words, mask), due, rtol=1e-4, atol=1e-4)


def test_metadata_say_what_a_server_has_to_know(package, served):
    _, processor = load_run(served.run, "cpu")
    metadata = {name.removeprefix("rrsis."): value for name, value in package.get_metadata().items()}
    assert metadata["format"] == "1"
    assert metadata["device"] == "cpu"
    assert metadata["image_size"] == "96 96"
    assert metadata["size_bounds"] == "64 192"
    assert metadata["size_multiple"] == "32"
    assert metadata["token_bounds"] == "2 12"
    assert metadata["threshold"] == "0.5"
    for name in ("image_mean", "image_std"):
        assert [float(number) for number in metadata[name].split()] == list(getattr(processor.image_processor, name))
    assert f"torch={torch.__version__}" in metadata["versions"]
    tokenizer = Tokenizer.from_str(metadata["tokenizer"])
    assert tokenizer.encode("the red ship").ids == processor.tokenizer("the red ship")["input_ids"]
    assert int(metadata["vocabulary_size"]) == len(processor.tokenizer)


def test_the_package_calls_the_compiled_operators_where_there_are_any(package):
    from rrsis_kernels import backends

    chosen = backends.choose("bidirectional_spatial_correlation", "cpu", torch.float32)
    due = "rrsis_kernels::bsc_forward rrsis_kernels::twin_stream_forward" if chosen == "cpu" else ""
    assert package.get_metadata()["rrsis.operators"] == due


def test_tracing_leaves_the_model_as_it_was(model):
    orders = [module.order for module in model.modules() if hasattr(module, "order")]
    bounds = cli.Bounds(64, 192, 12)
    with cli._traceable(model, bounds):
        assert "auto" not in [fusion.correlation.order for fusion in model.encoder.fusions]
    assert [module.order for module in model.modules() if hasattr(module, "order")] == orders


@pytest.mark.parametrize("backbone", ["resnet18", "swinv2_tiny_window8_256"])
def test_other_backbones_trace_to_one_graph_too(micro_config, backbone):
    if backbone == "resnet18":
        micro_config.backbone_kwargs = {"layers": [1, 1, 1, 1], "channels": [8, 16, 24, 32]}
    micro_config.backbone = backbone
    micro_config.decoder_layers, micro_config.pixel_map_stride, micro_config.detail_dim = 2, 4, 0
    model = BTDNetForReferringSegmentation(micro_config).eval()
    model.encoder.image.accept_any_size()
    program = cli.trace(model, cli.Bounds(64, 192, 12)).module()
    for size, tokens in (((64, 64), 2), ((96, 160), 12), ((192, 64), 5)):
        inputs = cli._example(model, size, tokens)
        with torch.no_grad():
            assert_close(program(*inputs), model(*inputs).logits)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--model": "does/not/exist"}, "model: no folder"),
        ({"--out": "model.so"}, "ends in .pt2"),
        ({"--device": "abacus"}, "device: got 'abacus'"),
        ({"--threshold": "0"}, "threshold: got 0.0"),
        ({"--min_size": "32"}, "min_size: got 32, expected a multiple of 32, at least 64"),
        ({"--max_size": "100"}, "max_size: got 100, expected a multiple of 32"),
        ({"--max_size": "64"}, "expected a range around the processor's 96 x 96"),
        ({"--max_tokens": "65"}, "max_tokens: got 65, expected 3 to 64"),
        ({"--max_tokens": "2"}, "max_tokens: got 2"),
    ],
)
def test_command_line_says_what_is_wrong_and_writes_nothing(served, tmp_path, capsys, changed, message):
    options = {"--model": str(served.run), "--out": str(tmp_path / "out" / "model.pt2"), **changed}
    assert cli.main([word for option in options.items() for word in option]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_image_processor_that_no_server_knows_is_refused(served):
    model, processor = load_run(served.run, "cpu")
    processor.image_processor.do_normalize = False
    with pytest.raises(ValueError, match="model: its image processor has do_normalize=False, expected True"):
        cli.describe(model, processor, cli.Bounds(64, 192, 12), 0.5)


def test_a_package_that_disagrees_is_not_left(served, tmp_path, capsys, monkeypatch):
    model, processor = load_run(served.run, "cpu")
    with torch.no_grad():
        model.decoder.head.target_bias += 1
    for part in (model, processor):
        part.save_pretrained(tmp_path / "other")
    monkeypatch.setattr(cli, "trace", lambda *_: SimpleNamespace(graph=SimpleNamespace(nodes=[])))
    compile_ = lambda program, package_path, **_: shutil.copy(served.package, package_path)  # noqa: E731
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", compile_)
    out = tmp_path / "out" / "model.pt2"
    assert cli.main(["--model", str(tmp_path / "other"), "--out", str(out), "--max_size", "192"]) == 1
    assert "logits differ by" in capsys.readouterr().err
    assert not out.parent.exists()
