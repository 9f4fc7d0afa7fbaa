"""Serves the page: ``python -m rrsis.app --model RUN``."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rrsis.data import SynthRRSIS
from rrsis.evaluate import load_run

NUM_EXAMPLES = 8


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rrsis.app", description="A page to try a model on.")
    parser.add_argument("--model", metavar="RUN", help="run folder of rrsis.train (required)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 lets others in (127.0.0.1)")
    parser.add_argument("--port", type=int, default=7860, help="0 for any free one (7860)")
    parser.add_argument("--max_mb", type=float, default=32.0, help="largest upload in MB (32)")
    parser.add_argument("--max_pixels", type=int, default=16_000_000, help="most pixels of an upload (16000000)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ...")
    return parser


def _check(arguments: argparse.Namespace) -> None:
    if not 0 <= arguments.port < 65536:
        raise ValueError(f"port: got {arguments.port}, expected 0 to 65535")
    if arguments.max_mb <= 0 or arguments.max_pixels < 1:
        raise ValueError(f"max_mb, max_pixels: got {arguments.max_mb}, {arguments.max_pixels}, expected more than 0")


def serve(arguments: argparse.Namespace, folder: Path) -> Any:
    """Starts the page without waiting for its end.

    Args:
        arguments: of the command line.
        folder: where uploads and downloads live; nothing outside it is served.

    Returns:
        The running `gradio.Blocks`.

    Raises:
        FileNotFoundError: the model is not there.
        OSError: the port is taken.
        ValueError: an argument is not valid.
    """
    _check(arguments)
    model, processor = load_run(arguments.model, arguments.device)
    # Read when Gradio is imported or makes a component: the first replaces a folder that all of the machine's Gradio
    # pages share, the second turns off what it reports to its makers.
    os.environ |= {"GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False"}
    import gradio as gr
    from starlette.middleware import Middleware

    from rrsis.app.guard import NoRemoteFiles
    from rrsis.app.page import STYLE, Actions, Limits, build_page

    scenes = SynthRRSIS("test", num_scenes=NUM_EXAMPLES)
    per_scene = len(scenes) // NUM_EXAMPLES
    examples = [scenes[index * per_scene + index % per_scene] for index in range(NUM_EXAMPLES)]
    limits = Limits(int(arguments.max_mb * 1e6), arguments.max_pixels)
    page = build_page(
        Actions(model, processor, limits, folder, examples), f"Referring segmentation with {Path(arguments.model).name}"
    )
    page.launch(
        server_name=arguments.host,
        server_port=arguments.port or None,
        share=False,
        prevent_thread_lock=True,
        quiet=True,
        show_error=False,
        max_file_size=limits.max_bytes,
        allowed_paths=[],
        app_kwargs={"middleware": [Middleware(NoRemoteFiles)]},
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        state_session_capacity=16,
        footer_links=[],
        css=STYLE,
        # The default theme would fetch its fonts from elsewhere.
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
    )
    return page


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status (2 for bad input)."""
    arguments = _parser().parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="rrsis-app-") as name:
        try:
            page = serve(arguments, Path(name).resolve())
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("rrsis"):
                raise
            print(
                f'error: the page needs packages that are not here ({error}): pip install -e ".[app]"', file=sys.stderr
            )
            return 2
        except (OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        print(f"{page.local_url} (Ctrl+C stops)", flush=True)
        page.block_thread()
    return 0


if __name__ == "__main__":
    sys.exit(main())
