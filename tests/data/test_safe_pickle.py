import collections
import os
import pickle

import numpy as np
import pytest

from rrsis.data.safe_pickle import UnsafePickleError, load_plain_pickle

PLAIN = [
    {"ref_id": 1, "sentences": [{"raw": "the ship — left", "tokens": ["a"]}], "x": (1.5, None, True, b"b", {2, 3})}
]


class Payload:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_of_every_protocol(tmp_path, protocol):
    path = tmp_path / "plain.p"
    # Below protocol 3, bytes are written as a call of _codecs.encode: no annotation file has any.
    value = PLAIN if protocol >= 3 else [{**PLAIN[0], "x": (1.5, None, True, {2, 3})}]
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    assert load_plain_pickle(path) == value


def test_ordered_dict(tmp_path):
    path = tmp_path / "ordered.p"
    path.write_bytes(pickle.dumps(collections.OrderedDict(b=1, a=2)))
    assert list(load_plain_pickle(path)) == ["b", "a"]


def test_python_2_text(tmp_path):
    # pickle.dumps([u"ship", "caf\xc3\xa9"], 2) of Python 2.
    path = tmp_path / "two.p"
    path.write_bytes(b"\x80\x02]q\x00(X\x04\x00\x00\x00shipq\x01U\x05caf\xc3\xa9q\x02e.")
    assert load_plain_pickle(path) == ["ship", "café"]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_runs_nothing(tmp_path, protocol):
    path, trace = tmp_path / "evil.p", tmp_path / "trace"
    path.write_bytes(pickle.dumps([{"ref_id": 1}, Payload(os.mkdir, str(trace))], protocol=protocol))
    with pytest.raises(UnsafePickleError, match=r"evil\.p.*mkdir"):
        load_plain_pickle(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())  # The payload is a real one: the ordinary reader does what it says.
    assert trace.exists()


@pytest.mark.parametrize(
    "payload",
    [
        Payload(eval, "1 + 1"),
        Payload(getattr, [], "append"),
        Payload(__import__, "os"),
        np.float64(1.0),
        np.zeros(2),
        Payload,
        ValueError("x"),
    ],
)
def test_anything_else_is_refused(tmp_path, payload):
    path = tmp_path / "other.p"
    path.write_bytes(pickle.dumps(payload))
    with pytest.raises(UnsafePickleError, match="only plain containers"):
        load_plain_pickle(path)


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(S'true'\ntR.",  # GLOBAL
        b"(S'true'\nios\nsystem\n.",  # INST
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",  # STACK_GLOBAL
        b"cbuiltins\nset.__class__\n.",
        b"\x80\x04\x8c\x08builtins\x8c\x13frozenset.__class__\x93.",
        b"Pname\n.",  # a persistent object
    ],
)
def test_programs_written_by_hand_are_refused(tmp_path, program):
    path = tmp_path / "hand.p"
    path.write_bytes(program)
    with pytest.raises(UnsafePickleError):
        load_plain_pickle(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04", pickle.dumps([1, 2])[:-2], b"\x80\xff."])
def test_what_is_no_pickle_is_named(tmp_path, content):
    path = tmp_path / "broken.p"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken\.p is not a readable pickle"):
        load_plain_pickle(path)
