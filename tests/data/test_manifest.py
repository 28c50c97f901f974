"""Manifests written by other programs, by hand, or to do harm."""

import json
import os
import time

import pytest

from clipgan.data.examples import read_examples
from clipgan.errors import UserError

GOOD = {"image": "a.jpg", "captions": ["a bird"]}


def read(root, content, **options):
    if isinstance(content, list):
        content = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in content)
    (root / "train.jsonl").write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return read_examples(root, "train", "mine", captions_per_image=5, **options)


def refused(root, content, match, **options):
    began = time.process_time()
    with pytest.raises(UserError, match=match) as caught:
        read(root, content, **options)
    assert time.process_time() - began < 5
    assert str(caught.value).isprintable() and len(str(caught.value)) < 490


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.encode(), lambda text: b"\xef\xbb\xbf" + text.encode(), lambda text: text.encode("utf-16"),
        lambda text: text.replace("\n", "\r\n").encode("utf-16"), lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace("\n", "\r").encode(), lambda text: text.encode("latin-1"),
        lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    ],
    ids=["UTF-8", "BOM", "UTF-16", "UTF-16 CR-LF", "CR-LF", "CR", "Latin-1", "UTF-16 BE"],
)  # fmt: skip
def test_a_manifest_is_read_whatever_wrote_it(tmp_path, change):
    lines = [{"image": "grün.jpg", "captions": ["ein grüner Vogel"]}, {"image": "b.png", "captions": ["a bird"]}]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    first, second = read(tmp_path, change(text), raw_captions=True)
    assert (first.key, first.captions) == ("grün", ("ein grüner Vogel",))
    assert (second.key, second.captions) == ("b", ("a bird",))


def test_lines_of_different_encodings_are_read_each_in_its_own(tmp_path):
    lines = ['{"image": "a.jpg", "captions": ["größer"]}', '{"image": "b.jpg", "captions": ["größer"]}']
    content = lines[0].encode() + b"\n" + lines[1].encode("latin-1")
    assert [example.captions for example in read(tmp_path, content, raw_captions=True)] == [("größer",)] * 2


def test_unicode_line_separators_do_not_end_a_line(tmp_path):
    line = json.dumps({"image": "a.jpg", "captions": ["a\u2028red\x0b\u0085bird"]}, ensure_ascii=False)
    line = line.replace("\\u000b", "\x7f")
    (example,) = read(tmp_path, line)
    assert example.captions == ("a red bird",)


def test_lone_surrogates_and_nul_in_captions_become_replacement_characters(tmp_path):
    line = '{"image": "a.jpg", "captions": ["a \\ud800 bird\\u0000 \\ud83d\\ude00"]}'
    (example,) = read(tmp_path, line, raw_captions=True)
    assert example.captions == ("a \ufffd bird\ufffd 😀",)
    example.captions[0].encode("utf-8")


@pytest.mark.parametrize(
    "line, complaint",
    [
        ('{"image": "b.jpg", "image": "c.jpg", "captions": ["a"]}', "twice"),
        ('{"image": "b.jpg", "captions": ["a"], "box": [1e999, 2, 3, 4]}', '"box"'),
        ('{"image": "b.jpg", "captions": ["a"], "box": [NaN, 2, 3, 4]}', '"box"'),
        ('{"image": "b.jpg", "captions": ["a"], "box": [1, 2, 3, %s]}' % ("9" * 4000), '"box"'),
        ('{"image": "b.jpg", "captions": ["a"], "box": [1, 2, 3, %s]}' % ("9" * 5000), "digits"),
        ('{"image": "b.jpg", "captions": ["a"], "box": [-1000001, 2, 3, 4]}', '"box"'),
        ('{"image": "b.jpg", "captions": ["a"], "box": [1, 2, true, 4]}', '"box"'),
        ('{"image": "b.jpg", "captions": ["a"], "box": [1, 2, 3, -4]}', '"box"'),
        ('{"image": "b.jpg", "captions": ["a"], "box": []}', '"box"'),
        ('{"image": "b.jpg", "captions": ["a"], "box": {"x": 1}}', '"box"'),
        (f'{{"image": "b.jpg", "captions": ["a"], "class": {2**70}}}', '"class"'),
        ('{"image": "b.jpg", "captions": ["a"], "class": %s}' % ("9" * 4000), '"class"'),
        ('{"image": "b.jpg", "captions": ["a"], "class": 1e3}', '"class"'),
        ('{"image": "b.jpg", "captions": ["a"], "class": null}', '"class"'),
        ('{"image": "b.jpg", "captions": ["a"], "class": true}', '"class"'),
        ('{"image": "b.jpg", "captions": ["a"], "class": NaN}', '"class"'),
        ('{"image": "b.jpg", "captions": %s}' % ("[" * 100_000), "nested"),
        ('{"image": "b.jpg", "captions": ["a"]' + ', "k": 1' * 50_000 + "}", "twice"),
        ("[" * 100_000, "nested"),
        ('{"image": "b.jpg", "captions": ["a", 5]}', '"captions"'),
        ('{"image": "b.jpg", "captions": [["a"]]}', '"captions"'),
        ('{"image": "b.jpg", "captions": {"a": 1}}', '"captions"'),
        (json.dumps({"image": "b.jpg", "captions": ["a"] * 1001}), '"captions"'),
        (json.dumps({"image": "b.jpg", "captions": ["a" * 20_001]}), '"captions"'),
        (json.dumps({"image": "b.jpg", "captions": ["🐦"]}), "no caption"),
        (json.dumps({"image": "b.jpg", "captions": ["a"], "x" * 5000: 1}), "unknown key"),
        (json.dumps({"image": ["b.jpg"], "captions": ["a"]}), '"image"'),
        (json.dumps({"image": "", "captions": ["a"]}), '"image"'),
        (json.dumps({"image": "x" * 5000, "captions": ["a"]}), "1000 bytes"),
        (json.dumps({"image": "x" * 201, "captions": ["a"]}), "200 bytes"),
        (json.dumps({"image": "\ud800.jpg", "captions": ["a"]}), "characters"),
        (json.dumps({"image": "a\0.jpg", "captions": ["a"]}), "characters"),
        (json.dumps({"image": "a\n.jpg", "captions": ["a"]}), "characters"),
        (json.dumps({"image": "b/../../x.jpg", "captions": ["a"]}), "within"),
        (json.dumps({"image": "..\\x.jpg", "captions": ["a"]}), "within"),
        (json.dumps({"image": "C:\\x.jpg", "captions": ["a"]}), "within"),
        (json.dumps({"image": "a.png", "captions": ["a"]}), "two images"),
        ('{"image": "b.jpg", "captions": ["a"]} x', "JSON"),
        ("null", "object"),
        ("\0\0\0", "JSON"),
    ],
    ids=lambda value: ascii(value[:60]),
)  # fmt: skip
def test_a_wrong_line_is_refused_by_number_and_can_be_left_out(tmp_path, line, complaint):
    lines = [GOOD, line, {"image": "z.jpg", "captions": ["a bird"]}]
    refused(tmp_path, lines, rf"train\.jsonl:2: .*{complaint}")
    faults = []
    assert [example.key for example in read(tmp_path, lines, on_fault=faults.append)] == ["a", "z"]
    assert len(faults) == 1 and "train.jsonl:2: " in faults[0]


def test_a_line_of_more_than_a_megabyte_is_refused_by_number(tmp_path):
    long = json.dumps({"image": "b.jpg", "captions": ["a" * 1000] * 1100})
    refused(tmp_path, [GOOD, long], r"train\.jsonl:2: the line")
    refused(tmp_path, ("\n".join([json.dumps(GOOD), long])).encode("utf-16"), r"train\.jsonl:2: the line")


def test_what_is_no_manifest_is_refused_by_name(tmp_path):
    path = tmp_path / "train.jsonl"
    refused(tmp_path, b"<html>not found</html>", r"train\.jsonl: is a web page")
    refused(tmp_path, b"\n \r\n", r"train\.jsonl: holds no example")
    with open(path, "wb") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match=r"train\.jsonl: has .* MB"):
        read_examples(tmp_path, "train", "mine", captions_per_image=1)
    path.unlink()
    for make in (os.mkfifo, os.mkdir):
        make(path)
        with pytest.raises(UserError, match=r"train\.jsonl: is a (pipe|folder)"):
            read_examples(tmp_path, "train", "mine", captions_per_image=1)
        path.unlink() if make is os.mkfifo else path.rmdir()
    path.symlink_to("nowhere")
    with pytest.raises(UserError, match=r"train\.jsonl: no such file"):
        read_examples(tmp_path, "train", "mine", captions_per_image=1)


def test_one_class_for_all_lines_is_refused_with_advice(tmp_path):
    lines = [{**GOOD, "class": 3}, {**GOOD, "image": "b.jpg", "class": 3}]
    refused(tmp_path, lines, r'train\.jsonl: all 2 images are of class 3.*two classes; leave "class" out')
    lines[1].pop("class")
    assert [example.class_id for example in read(tmp_path, lines)] == [3, 4]
    assert [example.class_id for example in read(tmp_path, [*lines[1:], GOOD])] == [0, 1]
    assert read(tmp_path, lines[:1])[0].class_id == 3


def test_box_sides_at_the_limits_are_read(tmp_path):
    (example,) = read(tmp_path, [{**GOOD, "box": [-1e6, -5, 1e6, 0.5]}])
    assert example.box == (-1e6, -5.0, 1e6, 0.5)


def test_a_long_manifest_is_read_without_holding_it(tmp_path):
    lines = "".join(json.dumps({"image": f"{i}.jpg", "captions": ["a bird"]}) + "\n" for i in range(3000))
    examples = read(tmp_path, lines)
    assert [example.class_id for example in examples] == list(range(3000))
