"""examples/serve_cpp, built and run as its README says: its mask is Python's, and no Python is in the process."""

import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from rrsis.evaluate import MODEL_INPUTS, load_run
from rrsis.predict import predict
from rrsis_kernels import library

pytestmark = pytest.mark.slow  # a package is compiled, and the program

SOURCES = Path(__file__).parents[2] / "examples" / "serve_cpp"
EXPRESSION = "the largest ship at the bottom"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("no C++ compiler is installed")
    build = tmp_path_factory.mktemp("serve_cpp")
    prefix = f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}"
    for command in (["cmake", "-S", SOURCES, "-B", build, prefix], ["cmake", "--build", build]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "warning:" not in done.stdout + done.stderr
    return build / "rrsis_serve"


class Packaged(torch.nn.Module):
    """The package with the model's interface, run from Python."""

    def __init__(self, package):
        super().__init__()
        self.package = torch._inductor.aoti_load_package(str(package))
        self.device_of_inputs = torch.nn.Parameter(torch.empty(0))

    def forward(self, **inputs):
        return SimpleNamespace(logits=self.package(*(inputs[name] for name in MODEL_INPUTS)))


@pytest.fixture(scope="module")
def python(served):
    """Model, package and processor in Python."""
    model, processor = load_run(served.run, "cpu")
    model.encoder.image.accept_any_size()
    return SimpleNamespace(model=model, package=Packaged(served.package), processor=processor)


@pytest.fixture
def picture(tmp_path):
    """A PPM of another size and shape than the model's, smooth enough that resizing matters."""
    pixels = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)
    path = tmp_path / "scene.ppm"
    Image.fromarray(pixels).resize((151, 110), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def arguments(served, python, picture, tmp_path):
    ids = python.processor.tokenizer(EXPRESSION)["input_ids"]
    return {
        "--package": str(served.package),
        "--library": library.extension_status()["_C"].path,
        "--image": str(picture),
        "--ids": " ".join(map(str, ids)),
        "--out": str(tmp_path / "mask.pgm"),
    }


def serve(program, arguments, **environment):
    """Runs the program in an environment of its own."""
    given = [word for option in arguments.items() if option[1] is not None for word in option]
    return subprocess.run([program, *given], capture_output=True, text=True, env=environment, timeout=120)


def served_mask(program, arguments):
    done = serve(program, arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"wrote {arguments['--out']}, ")
    mask = np.asarray(Image.open(arguments["--out"]))
    assert set(np.unique(mask)) == {0, 255}, "a mask that is all one value would prove little"
    return mask > 0


def check_mask(mask, python, picture, size=(96, 96), threshold=0.5):
    """Pixel for pixel what Python makes of the same package, and what the model itself says.

    Compiled code sums in another order than the model: where a probability is within rounding of the threshold, either
    answer is right.
    """
    python.processor.image_processor.size = dict(zip(("height", "width"), size, strict=True))
    question = (python.processor, np.array(Image.open(picture)), EXPRESSION)
    (packaged,) = predict(python.package, *question, threshold=threshold)
    assert np.array_equal(mask, packaged.mask)
    (own,) = predict(python.model, *question, threshold=threshold)
    assert np.abs(own.probability - threshold)[mask != own.mask].max(initial=0) < 1e-6


def test_its_mask_is_pythons(program, arguments, python, picture):
    check_mask(served_mask(program, arguments), python, picture)


@pytest.mark.parametrize("size", [(64, 192), (160, 128)])
def test_its_mask_is_pythons_at_other_sizes(program, arguments, python, picture, size):
    mask = served_mask(program, {**arguments, "--size": f"{size[0]}x{size[1]}"})
    check_mask(mask, python, picture, size)


def test_an_image_of_the_models_size_is_not_resized(program, arguments, python, picture):
    Image.open(picture).resize((96, 96)).save(picture)
    check_mask(served_mask(program, arguments), python, picture)


def test_ids_from_a_file_and_another_threshold(program, arguments, python, picture, tmp_path):
    ids = tmp_path / "ids.txt"
    ids.write_text(arguments.pop("--ids").replace(" ", "\n") + "\n")
    mask = served_mask(program, {**arguments, "--ids_file": str(ids), "--threshold": "0.4"})
    check_mask(mask, python, picture, threshold=0.4)


def test_no_python_is_in_the_process(program, arguments):
    done = serve(program, arguments, LD_DEBUG="files")
    assert done.returncode == 0, done.stderr
    loaded = set(re.findall(r"calling init: (\S+)", done.stderr))
    assert any(path.endswith("libtorch_cpu.so") for path in loaded)
    assert any(path.endswith("_C.so") for path in loaded) == (arguments["--library"] is not None)
    # The folder in which torch was found may well be called python3.11; the files must not be.
    assert not [path for path in loaded if "python" in Path(path).name]


def test_a_missing_library_of_operators_is_named(program, arguments):
    if arguments.pop("--library") is None:
        pytest.skip("no compiled operators: the package calls none")
    done = serve(program, arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("error: package: it calls rrsis_kernels::")
    assert "--library" in done.stderr


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--package": "missing.pt2"}, "package: no file 'missing.pt2'"),
        ({"--package": "IMAGE"}, "is not a package of AOTInductor"),
        ({"--library": "missing.so"}, "library: missing.so: cannot open"),
        ({"--image": "missing.ppm"}, "image: cannot open 'missing.ppm'"),
        ({"--image": "PACKAGE"}, "is not a binary PPM (P6)"),
        ({"--image": "CUT"}, "ends before its last pixel"),
        ({"--image": "DEEP"}, "no valid PPM header with 8 bits a channel"),
        ({"--ids": "2 five 3"}, "ids: expected integers"),
        ({"--ids": ""}, "ids: expected integers"),
        ({"--ids": "2"}, "ids: got 1 token ids, expected 2 to 12"),
        ({"--ids": " ".join("5" * 13)}, "ids: got 13 token ids, expected 2 to 12"),
        ({"--ids": "2 999 3"}, "ids: got 999, expected 0 to "),
        ({"--ids": "2 -1 3"}, "ids: got -1, expected 0 to "),
        ({"--ids_file": "ids.txt"}, "one of --ids and --ids_file"),
        ({"--ids": None, "--ids_file": "missing.txt"}, "ids_file: cannot open 'missing.txt'"),
        ({"--size": "96"}, "size: expected HEIGHTxWIDTH"),
        ({"--size": "96x100"}, "size: got a side of 100 pixels, expected a multiple of 32 from 64 to 192"),
        ({"--size": "224x96"}, "size: got a side of 224 pixels"),
        ({"--threshold": "1"}, "threshold: got '1', expected a number between 0 and 1"),
        ({"--out": "no/such/folder/mask.pgm"}, "out: cannot write 'no/such/folder/mask.pgm'"),
        ({"--colour": "red"}, "unknown option --colour"),
    ],
)
def test_it_says_in_one_line_what_is_wrong(program, arguments, picture, tmp_path, changed, message):
    cut, deep = tmp_path / "cut.ppm", tmp_path / "deep.ppm"
    cut.write_bytes(picture.read_bytes()[:-1])
    deep.write_bytes(b"P6\n# sixteen bits\n1 1\n65535\n" + bytes(6))
    words = {"IMAGE": str(picture), "PACKAGE": arguments["--package"], "CUT": str(cut), "DEEP": str(deep)}
    changed = {option: words.get(value, value) for option, value in changed.items()}
    done = serve(program, {**arguments, **changed})
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not Path(arguments["--out"]).exists()
