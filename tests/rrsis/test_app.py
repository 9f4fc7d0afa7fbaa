"""rrsis.app: what it refuses before decoding, what it computes, and the page in a real browser."""

import asyncio
import http.server
import importlib.util
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rrsis.app.__main__ import main
from rrsis.app.analysis import ALL_WORDS, analyse, paint_map
from rrsis.app.guard import NoRemoteFiles
from rrsis.app.upload import UploadError, read_upload
from rrsis.evaluate import load_run

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def png_header(width, height):
    """A PNG that promises this size and holds next to no pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(9)))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def test_reads_what_it_should(tmp_path, red_square):
    image, _ = red_square()
    Image.fromarray(image).save(tmp_path / "a.png")
    assert np.array_equal(read_upload(tmp_path / "a.png", max_bytes=10_000, max_pixels=64 * 64), image)


@pytest.mark.parametrize("side", [6_000, 60_000])  # below and beyond Pillow's own limit
def test_bombs_are_refused_by_their_header(tmp_path, side):
    (tmp_path / "bomb.png").write_bytes(png_header(side, side))
    with pytest.raises(UploadError, match=r"pixels; this page takes at most 16,000,000"):
        read_upload(tmp_path / "bomb.png", max_bytes=10_000, max_pixels=16_000_000)


def test_unreadable_and_oversized_files_are_refused_without_naming_the_server(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:500])
    (tmp_path / "text.png").write_text("not an image")
    # Pillow would hand this one to Ghostscript.
    (tmp_path / "script.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    for name in ("cut.png", "text.png", "script.png"):
        with pytest.raises(UploadError, match="not a readable image") as caught:
            read_upload(tmp_path / name, max_bytes=10_000, max_pixels=10_000)
        assert str(tmp_path) not in str(caught.value)
    with pytest.raises(UploadError, match="at most 0.0 MB"):
        read_upload(tmp_path / "whole.png", max_bytes=100, max_pixels=10_000)
    with pytest.raises(UploadError, match="32 × 32 = 1,024 pixels"):
        read_upload(tmp_path / "whole.png", max_bytes=10_000, max_pixels=1_000)


def test_analysis_of_the_real_model(tiny_run, red_square):
    model, processor = load_run(tiny_run, "cpu")
    image, _ = red_square((90, 120))
    analysis = analyse(model, processor, image, " the red zeppelin ")
    assert analysis.probability.shape == (90, 120)
    assert np.array_equal(analysis.mask(0.3), analysis.probability > 0.3)
    assert [len(words) for words in analysis.words] == [4] * 4
    names = [name for name, _ in analysis.words[0]]
    assert names == [ALL_WORDS, "the", "red", "zeppelin (unknown to the model)"]
    assert [words[0][1].shape for words in analysis.words] == [(32, 32), (16, 16), (8, 8), (4, 4)]
    assert set(analysis.streams) == {"target σ(z_t)", "background σ(z_b)"}
    assert "of the image" in analysis.summary(0.0)
    assert "nothing is above" in analysis.summary(1.0)
    with pytest.raises(ValueError, match="expected words"):
        analyse(model, processor, image, "?")


def test_maps_are_painted_between_their_limits():
    painted = paint_map(np.array([[0.0, 1.0], [2.0, 2.0]], dtype=np.float32), 0.0, 2.0)
    assert painted.shape == (256, 256, 3)
    assert painted[0, 0].tolist() == [68, 1, 84]  # viridis' ends
    assert painted[-1, -1].tolist() == [253, 231, 37]
    assert paint_map(np.zeros((4, 4), np.float32), 0.0, 0.0)[0, 0].tolist() == [68, 1, 84]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "does/not/exist"], "no folder"),
        (["--port", "70000"], "port: got 70000"),
        (["--max_mb", "0"], "max_mb, max_pixels: got 0.0"),
    ],
)
def test_command_line_says_what_is_wrong(tiny_run, capsys, options, message):
    assert main(["--model", str(tiny_run), *options]) == 2
    assert message in capsys.readouterr().err


@pytest.fixture(scope="module")
def server(tiny_run, tmp_path_factory):
    """The address of a page that the real command serves, from a folder with a secret in it."""
    pytest.importorskip("gradio", reason='the page needs Gradio: pip install -e ".[app]"')
    folder = tmp_path_factory.mktemp("cwd")
    (folder / "secret.txt").write_text("secret")
    command = [sys.executable, "-m", "rrsis.app", "--model", str(tiny_run), "--port", "0", "--max_mb", "0.5"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl+C stops" in line:
            break
    else:
        pytest.fail("".join(lines))
    yield line.split()[0].rstrip("/"), folder
    process.terminate()
    process.communicate(timeout=30)


def status_of(address):
    try:
        with urllib.request.urlopen(address, timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_only_loopback_answers(server):
    assert server[0].startswith("http://127.0.0.1:")


def test_no_other_file_is_served(server):
    address, folder = server
    assert status_of(address)[0] == 200
    for place in (
        "/etc/passwd",
        "//etc/passwd",
        f"{folder}/secret.txt",
        "secret.txt",
        "../../../etc/passwd",
        ROOT / "setup.py",
    ):
        for door in ("/file=", "/gradio_api/file=", "/static/", "/assets/", "/theme/", "/custom_component/"):
            status, body = status_of(f"{address}{door}{place}")
            assert status in (403, 404, 405), (door, place, status)
            assert b"root:" not in body
            assert body != b"secret"


def test_no_address_is_fetched_for_a_visitor(server):
    address, _ = server
    for place in ("https://192.0.2.1/picture.png", "HTTP:%2F%2F127.0.0.1/", "http%3A//127.0.0.1/"):
        assert status_of(f"{address}/gradio_api/file={place}") == (403, b"No addresses are fetched here.")


def event_with(path, **more):
    """An event that has a file in the place of the upload."""
    file = {"path": path, "meta": {"_type": "gradio.FileData"}, **more}
    return {"data": [file], "fn_index": 0, "session_hash": "s"}


def post(address, event):
    request = urllib.request.Request(address, json.dumps(event).encode(), {"content-type": "application/json"})
    return status_of(request)


@pytest.fixture
def listener():
    """The address of a server on loopback, and the paths that it was asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"127.0.0.1:{listening.server_port}", asked
        listening.shutdown()
        thread.join()


def test_no_address_in_an_event_is_fetched(server, listener):
    address, _ = server
    place, asked = listener
    assert status_of(f"http://{place}/works")[0] == 200
    for door in ("queue/join", "run/upload", "api/upload", "call/upload", "call/v2/upload"):
        for path in (f"http://{place}/secret", f"HTTP://{place}/secret", "https://192.0.2.1/picture.png"):
            event = event_with(path)
            if door.startswith("call/v2"):
                event = {"path": event["data"][0]}
            assert post(f"{address}/gradio_api/{door}", event) == (403, b"No addresses are fetched here."), (door, path)
    # As a file's own address, which browsers send along with an upload's path, it is no door.
    assert post(f"{address}/gradio_api/queue/join", event_with("/nowhere", url=f"http://{place}/secret"))[0] == 200
    with urllib.request.urlopen(f"{address}/gradio_api/queue/data?session_hash=s", timeout=60) as stream:
        assert b"process_completed" in stream.read()
    assert asked == ["/works"]


def guarded(body, content_type=b"application/json"):
    """What the application behind the guard gets of a body that comes in pieces, and the status of the answer."""
    pieces = [{"type": "http.request", "body": bytes([value]), "more_body": True} for value in body]
    messages = [*pieces, {"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]
    got, sent = [], []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    async def app(scope, receive, send):
        while (message := await receive())["type"] == "http.request":
            got.append(message["body"])
        await send({"type": "http.response.start", "status": 200})

    scope = {"type": "http", "method": "POST", "path": "/x", "headers": [(b"content-type", content_type)]}
    asyncio.run(NoRemoteFiles(app)(scope, receive, send))
    return b"".join(got), sent[0]["status"]


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ({"data": [{"path": " HTTPS://a/b"}]}, 403),
        ([[{"files": [{"a": {"path": "http:a"}}]}]], 403),
        ({"data": ["http://a/b", {"path": "/tmp/a", "url": "http://a/b"}, {"path": 1}]}, 200),
        ("http://a/b", 200),
    ],
)
def test_the_guard_refuses_addresses_as_paths_and_nothing_else(value, status):
    body = json.dumps(value).encode()
    assert guarded(body) == (body if status == 200 else b"", status)


def test_the_guard_passes_on_what_is_no_event():
    body = json.dumps(event_with("http://a/b")).encode()
    assert guarded(body, b"multipart/form-data; boundary=x") == (body, 200)
    assert guarded(body, b"text/plain") == (b"", 403)
    assert guarded(b"\xff{") == (b"\xff{", 200)
    assert guarded(b"[" * 200_000) == (b"", 403)


def test_a_path_in_the_place_of_an_upload_is_refused(server):
    address, folder = server
    for place in ("/etc/passwd", f"{folder}/secret.txt"):
        status, body = post(f"{address}/gradio_api/queue/join", event_with(place))
        assert status == 200
        assert b"event_id" in body
        with urllib.request.urlopen(f"{address}/gradio_api/queue/data?session_hash=s", timeout=60) as stream:
            messages = [json.loads(line[5:]) for line in stream if line.startswith(b"data:")]
        (done,) = [message for message in messages if message["msg"] == "process_completed"]
        assert not done["success"]
        assert "readable image" not in json.dumps(messages)


@pytest.fixture(scope="module")
def browser():
    if importlib.util.find_spec("playwright") is None:
        pytest.skip('needs playwright: pip install -e ".[test]"')
    if CHROMIUM is None:
        pytest.skip("needs a Chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # As root, as in CI's containers, Chromium does not start inside its sandbox.
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(server, browser):
    """A fresh visit; fails the test if the page asked any other machine for anything."""
    context = browser.new_context(viewport={"width": 1400, "height": 1300})
    tab = context.new_page()
    tab.set_default_timeout(60_000)
    asked = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(server[0])
    tab.wait_for_selector("#upload")
    yield tab
    context.close()
    assert [url for url in asked if not url.startswith((server[0], "data:", "blob:"))] == []


def upload(page, path):
    page.set_input_files("#upload input[type=file]", str(path))


def shown_picture(page, name):
    """The pixels that the browser shows in an image component."""
    source = page.wait_for_selector(f"#{name} img").get_attribute("src")
    body = page.request.get(source).body()
    return np.asarray(Image.open(io.BytesIO(body)))


def test_upload_type_and_the_mask_appears(page, tmp_path, red_square):
    image, _ = red_square((90, 120), (20, 30, 50, 70))
    Image.fromarray(image).save(tmp_path / "scene.png")
    upload(page, tmp_path / "scene.png")
    page.wait_for_selector("#status >> text=120 × 90 pixels")
    page.fill("#expression textarea, #expression input", "the red square")
    page.click("#run")
    page.wait_for_selector("#mask img")
    assert shown_picture(page, "mask").shape[:2] == (90, 120)
    assert shown_picture(page, "overlay").shape[:2] == (90, 120)
    page.wait_for_selector("#words img >> nth=3")
    assert page.locator("#streams img").count() == 2
    for name, suffix in (("png", ".png"), ("geojson", ".geojson")):
        with page.expect_download() as download:
            page.click(f"#{name}")
        saved = tmp_path / f"saved{suffix}"
        download.value.save_as(saved)
    assert Image.open(tmp_path / "saved.png").size == (120, 90)
    assert json.loads((tmp_path / "saved.geojson").read_text())["image_size"] == {"width": 120, "height": 90}


def test_an_example_needs_no_upload(page):
    page.click("#examples button >> nth=1")
    page.wait_for_selector("#mask img")
    assert page.input_value("#expression textarea, #expression input")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not an image", "not a readable image"),
        (png_header(60_000, 60_000), "this page takes at most 16,000,000"),
    ],
)
def test_a_broken_file_is_explained_on_the_page(page, tmp_path, content, message):
    (tmp_path / "broken.png").write_bytes(content)
    upload(page, tmp_path / "broken.png")
    alert = page.wait_for_selector("#status [role=alert]")
    assert message in alert.inner_text()
    assert "Traceback" not in page.content()
    assert str(tmp_path) not in page.inner_text("body")


def test_a_result_goes_away_when_its_image_does(page, tmp_path):
    page.click("#examples button >> nth=0")
    page.wait_for_selector("#mask img")
    (tmp_path / "broken.png").write_bytes(b"not an image")
    upload(page, tmp_path / "broken.png")
    page.wait_for_selector("#status [role=alert]")
    page.wait_for_selector("#mask img", state="detached")
    page.click("#run")
    page.wait_for_selector("#status >> text=There is no image yet")
    assert page.locator("#mask img").count() == 0


def test_too_large_a_file_is_refused(page, tmp_path):
    (tmp_path / "large.png").write_bytes(png_header(10, 10) + bytes(600_000))
    upload(page, tmp_path / "large.png")
    page.wait_for_selector("text=/size|large/i >> nth=0")
    assert page.locator("#image img").count() == 0


def test_markup_in_an_expression_is_text(page):
    page.click("#examples button >> nth=0")
    page.wait_for_selector("#mask img")
    page.fill("#expression textarea, #expression input", "<img src=x onerror=alert(1)> ship")
    page.click("#run")
    page.wait_for_selector("#status >> text=<img src=x onerror=alert(1)> ship")
    assert page.locator("#status img").count() == 0


def test_the_threshold_redraws(page):
    page.click("#examples button >> nth=0")
    page.wait_for_selector("#mask img")
    number = page.locator("#threshold input[type=number]")
    number.fill("0.99")
    number.press("Tab")
    # Untrained, the model is nowhere that sure.
    page.wait_for_selector("#status >> text=nothing is above 0.99")
    page.wait_for_function("document.querySelector('#mask img') !== null")
    assert not shown_picture(page, "mask").any()
