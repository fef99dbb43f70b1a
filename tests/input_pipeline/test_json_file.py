"""JSON files read as a whole: keys that occur twice are reported with their place."""

import json

import pytest

from unilseg_jax.errors import UserError
from unilseg_jax.input_pipeline.json_file import read_json


def read(tmp_path, content: bytes):
    reasons = []
    path = tmp_path / "file.json"
    path.write_bytes(content)
    return read_json(path, "file", reasons.append), reasons


def test_file_without_faults_is_as_json_reads_it(tmp_path):
    content = {"a": [1, {"b": None}], "é": {}, "c": ["\ud83d"]}
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        assert read(tmp_path, json.dumps(content).encode(encoding)) == (content, [])


def test_first_of_two_values_is_kept_and_the_key_reported_with_its_place(tmp_path):
    content = b'{"v": [{"x": {"0": "a", "1": "b", "0": "c", "0": "d"}}, {"y": 1}], "v": 3, "z": {"y": 1, "y": 1}}'
    parsed, reasons = read(tmp_path, content)
    assert parsed == {"v": [{"x": {"0": "a", "1": "b"}}, {"y": 1}], "z": {"y": 1}}
    assert list(parsed["v"][0]["x"]) == ["0", "1"]
    assert [reason.removesuffix("; the first one is kept") for reason in reasons] == [
        "the key 'v' occurs twice in ''",
        "the key '0' occurs twice in '/v/0/x'",
        "the key '0' occurs twice in '/v/0/x'",
        "the key 'y' occurs twice in '/z'",
    ]


def test_byte_that_is_not_utf_8_spoils_its_text_alone(tmp_path):
    assert read(tmp_path, b'{"a": "caf\xe9", "b": "caf\xc3\xa9"}') == ({"a": "caf\udce9", "b": "café"}, [])


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_one_line(tmp_path, content):
    with pytest.raises(UserError, match=r"the file .*file\.json.* is no JSON") as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)
