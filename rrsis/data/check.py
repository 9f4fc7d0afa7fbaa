"""Looks a data set on disk over: ``python -m rrsis.data.check --dataset rrsisd --data_root DIR``.

Every image and mask is opened once. Exit status 0: nothing was found; 1: something was; 2: the command was given
something that it cannot work with.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..io import atomic_write
from .files import read_image, require_folder
from .listing import KINDS, Finding, Record, list_dataset
from .types import SPLITS, check_split

ON_DISK = ("refsegrs", "rrsisd", "risbench")
"""Data sets that can be looked over."""


@dataclass
class Report:
    """What was found.

    Attributes:
        dataset: Name of the data set.
        root: Its folder.
        expressions: Number of expressions of each split.
        images: Number of image files of each split.
        findings: What is wrong.
    """

    dataset: str
    root: str
    expressions: dict[str, int]
    images: dict[str, int]
    findings: list[Finding] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, int]:
        """Number of findings of each kind, in the order of `KINDS`, zeros included."""
        counter = Counter(finding.kind for finding in self.findings)
        return {kind: counter[kind] for kind in KINDS}

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {**asdict(self), "counts": self.counts}

    def text(self, most: int) -> str:
        """For people: what was looked at, the counts, and up to ``most`` findings of each kind."""
        lines = [
            f"{self.dataset} {split}: {count} expressions about {self.images[split]} image files"
            for split, count in self.expressions.items()
        ]
        for kind, count in self.counts.items():
            lines.append(f"{count:6d}  {kind}: {KINDS[kind]}")
            found = [finding for finding in self.findings if finding.kind == kind]
            lines += [f"          {_place(finding)}: {finding.message}" for finding in found[:most]]
            if count > most:
                lines.append(f"          ... and {count - most} more")
        return "\n".join(lines)


@dataclass
class _Look:
    """What came of opening one image file and its masks."""

    findings: list[Finding] = field(default_factory=list)
    image_digest: bytes | None = None
    mask_digests: dict[Any, bytes] = field(default_factory=dict)


def check_dataset(
    name: str, root: str | Path, splits: Sequence[str] = SPLITS, num_workers: int = 2, progress: bool = True
) -> Report:
    """Looks a data set over; nothing is written.

    Args:
        name: "refsegrs", "rrsisd" or "risbench".
        root: Its folder.
        splits: The splits to look at; an image that is also in a split that is left out goes unnoticed.
        num_workers: Threads that open files.
        progress: Whether to show a progress bar.

    Returns:
        The report.

    Raises:
        ValueError: An unknown name or split, or no thread.
        FileNotFoundError: There is no such folder.
    """
    splits = [check_split(split) for split in dict.fromkeys(splits)]
    if num_workers < 1:
        raise ValueError(f"num_workers: got {num_workers}, due is at least 1")
    records, findings = list_dataset(name, require_folder(root), splits)
    by_image: dict[Path, list[Record]] = {}
    for record in records:
        by_image.setdefault(record.image_path, []).append(record)
    with ThreadPoolExecutor(num_workers) as pool:
        done = tqdm(pool.map(_look, by_image.values()), "check", len(by_image), unit="image", disable=not progress)
        try:
            looks = dict(zip(by_image, done, strict=True))
        except BaseException:
            # An interruption must not wait for the thousands of files that are still in line.
            pool.shutdown(cancel_futures=True)
            raise
    findings += [finding for look in looks.values() for finding in look.findings]
    findings += _in_two_splits(records, looks)
    findings += _repeated(records, looks)
    expressions = Counter(record.split for record in records)
    images = Counter(split for split, _ in {(record.split, record.image_path) for record in records})
    return Report(
        name,
        str(root),
        {split: expressions[split] for split in splits},
        {split: images[split] for split in splits},
        findings,
    )


def _look(records: Sequence[Record]) -> _Look:
    """Opens an image and every mask of the expressions about it, once each."""
    look, first = _Look(), records[0]
    splits = _splits(records)
    size = None
    try:
        image = read_image(first.image_path)
        size = image.shape[:2]
        # Pixels and not the file's bytes: the same picture can be stored in two ways.
        look.image_digest = hashlib.blake2b(image.tobytes() + str(image.shape).encode(), digest_size=16).digest()
    except FileNotFoundError:
        look.findings.append(Finding("missing_file", splits, str(first.image_path), "the image is not there"))
    except (OSError, ValueError) as error:
        look.findings.append(Finding("unreadable_image", splits, str(first.image_path), str(error)))
    for record in {record.mask_key: record for record in reversed(records)}.values():
        look.findings += _look_at_mask(record, size, look)
    return look


def _look_at_mask(record: Record, size: tuple[int, int] | None, look: _Look) -> Iterator[Finding]:
    def finding(kind: str, message: str) -> Finding:
        return Finding(kind, record.split, record.mask_where, message)

    try:
        # Where the image is not to be had, polygons have no canvas: all that is asked then is whether they can be read.
        mask = record.read_mask(*(size or (1, 1)))
    except FileNotFoundError:
        yield finding("missing_file", "the mask is not there")
        return
    except (OSError, ValueError) as error:
        yield finding("unreadable_mask", str(error))
        return
    look.mask_digests[record.mask_key] = hashlib.blake2b(np.packbits(mask).tobytes(), digest_size=16).digest()
    if size is not None and mask.shape != size:
        yield finding("size_mismatch", f"mask {_by(mask.shape)}, image {record.image_path} {_by(size)}")
    if size is not None and not mask.any():
        yield finding("empty_mask", f"no pixel belongs to {record.expression!r} ({record.where})")


def _in_two_splits(records: Sequence[Record], looks: dict[Path, _Look]) -> Iterator[Finding]:
    """Images, by their pixels, that are in more than one split."""
    places: dict[Any, dict[str, Record]] = {}
    for record in records:
        places.setdefault(_image_identity(record, looks), {}).setdefault(record.split, record)
    for by_split in places.values():
        if len(by_split) > 1:
            names = ", ".join(
                f"{split}: {record.image_path.name} ({record.where})" for split, record in by_split.items()
            )
            first = next(iter(by_split.values()))
            yield Finding("image_in_two_splits", _splits(by_split.values()), str(first.image_path), names)


def _repeated(records: Sequence[Record], looks: dict[Path, _Look]) -> Iterator[Finding]:
    """The same words about the same pixels, twice or more."""
    places: dict[Any, list[Record]] = {}
    for record in records:
        places.setdefault((_image_identity(record, looks), record.expression.casefold()), []).append(record)
    for same in places.values():
        if len(same) > 1:
            masks = {looks[record.image_path].mask_digests.get(record.mask_key) for record in same}
            verdict = "with the same mask" if len(masks) == 1 else "with different masks"
            also = ", ".join(f"{record.split} {record.where}" for record in same[1:])
            message = f"{same[0].expression!r} again in {also}, {verdict}"
            yield Finding("repeated_expression", _splits(same), f"{same[0].split} {same[0].where}", message)


def _image_identity(record: Record, looks: dict[Path, _Look]) -> Any:
    return looks[record.image_path].image_digest or record.image_path


def _splits(records: Any) -> str:
    return "+".join(dict.fromkeys(record.split for record in records))


def _by(shape: Sequence[int]) -> str:
    return f"{shape[0]} x {shape[1]}"


def _place(finding: Finding) -> str:
    return f"{finding.split}: {finding.where}" if finding.split else finding.where


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m rrsis.data.check", description="Looks a data set on disk over.")
    parser.add_argument("--dataset", required=True, choices=ON_DISK, help="which data set it is")
    parser.add_argument("--data_root", required=True, help="its folder")
    parser.add_argument(
        "--splits", nargs="+", default=list(SPLITS), metavar="SPLIT", help="train, val, test (default: all)"
    )
    parser.add_argument("--report", metavar="FILE", help="write everything that was found as JSON")
    parser.add_argument(
        "--allow",
        nargs="+",
        default=[],
        choices=list(KINDS),
        metavar="KIND",
        help="findings that do not fail the check",
    )
    parser.add_argument("--most", type=int, default=10, help="findings of a kind to print (default: %(default)s)")
    parser.add_argument("--num_workers", type=int, default=2, help="threads that open files (default: %(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.most < 0:
            raise ValueError(f"most: got {options.most}, due is 0 or more")
        report = check_dataset(options.dataset, options.data_root, options.splits, options.num_workers)
        if options.report:
            with atomic_write(options.report) as path:
                path.write_text(json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(report.text(options.most))
    failed = sum(count for kind, count in report.counts.items() if kind not in options.allow)
    print(f"{failed} findings" + (f" besides {', '.join(options.allow)}" if options.allow else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
