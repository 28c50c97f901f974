"""``tools/compare.py`` from the command line."""

import pytest
from made_up_scores import made_up_scores, write_scores

from clipgan.flags import run_script


@pytest.fixture
def main(script):
    return script("tools/compare.py").main


@pytest.fixture
def files(tmp_path):
    worse = made_up_scores(r_precision=(0.5, 0.4, 0.6), fid=(30.0, 28.0, 32.0), kid=(0.01, 0.005, 0.015))
    return [write_scores(tmp_path / "bird" / "scores.json", made_up_scores()),
            write_scores(tmp_path / "coco" / "scores.json", worse)]  # fmt: skip


def test_it_prints_an_aligned_table(main, files, capsys):
    main(files)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:5] == [
        "score                        bird                   coco",
        "R-precision      0.5 (0.4 to 0.6)       0.5 (0.4 to 0.6)",
        "FID               * 20 (18 to 22)          30 (28 to 32)",
        "KID                             –  0.01 (0.005 to 0.015)",
        "Inception Score    4 (3.9 to 4.1)                      –",
    ]
    assert lines[5] == "in brackets: 95 % intervals" and lines[6].startswith("*: better than all others")


def test_it_prints_markdown(main, files, capsys):
    main([*files, "--markdown", "--metrics", "fid"])
    assert capsys.readouterr().out.splitlines()[:3] == [
        "| score | bird | coco |",
        "|---|---:|---:|",
        "| FID | **20 (18 to 22)** | 30 (28 to 32) |",
    ]


def test_what_does_not_compare_ends_with_one_line_and_status_2(main, files, tmp_path, capsys):
    foreign = made_up_scores()
    foreign["protocol"]["name"] = "dmgan"
    with pytest.raises(SystemExit) as ended:
        run_script(lambda: main([*files, write_scores(tmp_path / "other.json", foreign)]))
    said = capsys.readouterr()
    assert ended.value.code == 2 and said.out == ""
    assert said.err.startswith("error: ") and said.err.count("\n") == 1
    assert "other.json: protocol.name is 'dmgan', but 'here' in " in said.err
