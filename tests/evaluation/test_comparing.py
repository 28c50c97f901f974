"""Scores of several files beside each other: what compares, what is refused, and which one is better."""

import os

import pytest
from made_up_scores import RANDOM, made_up_scores, score, write_scores

from clipgan.errors import UserError
from clipgan.evaluation.comparing import compare, headings, read_scores


def judge(fingerprint: str) -> dict:
    return {"judge": "x", "fingerprint": fingerprint, "trained_the_generator": False}


@pytest.fixture
def table(tmp_path):
    """Writes reports to a.json, b.json, … and returns the lines of their table, cells parted."""

    def made(*reports, keys=()) -> list[list[str]]:
        text = compare([write_scores(tmp_path / f"{chr(97 + i)}.json", r) for i, r in enumerate(reports)], True, keys)
        return [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines()]

    return made


@pytest.fixture
def refused(tmp_path):
    """Compares a good a.json with b.json, which must be refused; returns the message without the folder."""

    def made(other, first=None, **options) -> str:
        reports = {"a.json": first or made_up_scores(), "b.json": other}
        paths = [write_scores(tmp_path / name, report) for name, report in reports.items()]
        with pytest.raises(UserError) as caught:
            compare(paths, **options)
        message = str(caught.value)
        assert len(message) <= 480 and message.isprintable()
        return message.replace(f"{tmp_path}{os.sep}", "")

    return made


def cells(lines, name: str) -> list[str]:
    return next(line[1:] for line in lines if line[0] == name)


def test_scores_stand_in_rows_and_files_in_columns(table):
    ours = made_up_scores(inception_score=(4.0, 3.9, 4.1), fid=(20.0, 18.0, 22.0))
    lines = table(ours, made_up_scores(fid=(1234.56, 1200, 1300), kid=(0.5,)))
    assert lines[0] == ["score", "a", "b"] and lines[1] == ["---", "---:", "---:"]
    assert [line[0] for line in lines[2:5]] == ["FID", "KID", "Inception Score"]  # as tables of scores have them
    assert cells(lines, "FID") == ["**20 (18 to 22)**", "1234.6 (1200.0 to 1300.0)"]
    assert cells(lines, "KID") == ["–", "0.5"]
    assert cells(lines, "Inception Score") == ["4 (3.9 to 4.1)", "–"]


@pytest.mark.parametrize(
    ("key", "name", "ours", "theirs", "marked"),
    [
        ("fid", "FID", (20, 18, 22), (25, 22.5, 27), 0),
        ("fid", "FID", (25, 22.5, 27), (20, 18, 22), 1),
        ("inception_score", "Inception Score", (4, 3.9, 4.1), (5, 4.8, 5.2), 1),
        ("inception_score", "Inception Score", (5, 4.8, 5.2), (4, 3.9, 4.1), 0),
        ("fid", "FID", (20, 18, 22), (25, 22, 27), None),  # the intervals touch
        ("fid", "FID", (20, 18, 22), (25,), None),  # one is unknown
        ("fid", "FID", (20, 20, 20), (20, 20, 20), None),
    ],
)
def test_the_better_score_is_marked_where_the_intervals_do_not_overlap(table, key, name, ours, theirs, marked):
    found = cells(table(made_up_scores(**{key: ours}), made_up_scores(**{key: theirs})), name)
    assert [cell.startswith("**") for cell in found] == [marked == 0, marked == 1]


def test_of_three_files_one_is_marked_only_if_it_is_better_than_both_others(table):
    first, second, third = (made_up_scores(fid=numbers) for numbers in ((20, 18, 22), (30, 28, 32), (40, 21, 50)))
    assert not any("**" in cell for cell in cells(table(first, second, third), "FID"))
    third["scores"] = [score("fid", 40, 35, 50)]
    assert [("**" in cell) for cell in cells(table(first, second, third), "FID")] == [True, False, False]


def test_below_the_table_stand_the_notices_and_unequal_numbers_of_images(table):
    ours, theirs = made_up_scores(), made_up_scores()
    for report in (ours, theirs):
        report["networks"]["inception"]["random"] = True
        report["scores"][1]["notice"] = RANDOM
    theirs["generated"]["count"] = 30000
    lines = [line[0] for line in table(ours, theirs)]
    assert f"- FID: {RANDOM}" in lines
    assert any(line.startswith("- generated images: a: 400, b: 30000;") for line in lines)
    assert not any("generated images" in line[0] for line in table(ours, ours))


def test_scores_are_matched_by_judge_whatever_its_place(table):
    ours, theirs = made_up_scores(), made_up_scores()
    ours["scores"] = [score("r_precision", 0.9, judge=0), score("r_precision", 0.6, judge=1)]
    theirs["networks"]["judges"] = [judge("e" * 16), judge("d" * 16)]
    theirs["scores"] = [score("r_precision", 0.7, judge=0), score("r_precision", 0.8, judge=1)]
    lines = table(ours, theirs)
    assert [line[1:] for line in lines[2:5]] == [["0.9", "–"], ["0.6", "0.7"], ["–", "0.8"]]
    assert ["- judge 1: ViT-B-32 (encoder.pth), which trained the generator of a and flatters it"] in lines


def test_chosen_scores_are_compared_alone(table):
    lines = table(made_up_scores(), made_up_scores(), keys=["fid"])
    assert [line[0] for line in lines[2:4]] == ["FID", ""]


@pytest.mark.parametrize(
    ("part", "change", "said"),
    [
        (("protocol",), {"name": "dmgan", "resize": "x"}, "protocol.name is 'dmgan', but 'here' in a.json: they do"),
        (("protocol", "rules"), {"ties_hit": True}, "protocol.rules.ties_hit is True, but False in a.json"),
        (("protocol",), {"resize": "x"}, "protocol.resize is 'x', but 'bilinear"),
        (("protocol",), {"more": 1}, "protocol.more is 1, but none in a.json"),
        (("reference",), {"images": 3, "files": "x"}, "reference.images is 3, but 2933 in a.json: they do not compare"),
        (("reference",), {"image_size": 64}, "reference.image_size is 64, but 256 in a.json"),
        (("reference",), {"crop": "whole"}, "reference.crop is 'whole', but 'as trained' in a.json"),
        (("reference",), {"files": "x"}, "reference.files is 'x', but '0123456789abcdef' in a.json"),
        (("networks", "inception"), {"dims": 64}, "networks.inception.dims is 64, but 2048 in a.json: their fid does "),
        (("networks", "inception"), {"sha256": "x"}, "networks.inception.sha256 is 'x', but 'aaa"),
        (("networks", "inception"), {"random": True}, "networks.inception.random is True, but False"),
        (("networks", "probabilities"), {"sha256": "x"}, "networks.probabilities.sha256 is 'x', but 'bbb"),
        (("networks",), {"judges": [judge("x")]}, "networks.judges.fingerprint is 'x', but 'ffffffffffffffff' in a"),
    ],
)
def test_what_does_not_compare_is_refused_with_the_file_the_field_and_both_values(refused, part, change, said):
    other = made_up_scores()
    of = other
    for key in part:
        of = of[key]
    of.update(change)
    assert refused(other).startswith(f"b.json: {said}")


def test_sizes_that_a_protocol_does_not_use_may_differ(table):
    ours, theirs = made_up_scores(), made_up_scores()
    for report in (ours, theirs):
        report["reference"]["crop"] = "whole"
    theirs["reference"].update(image_size=64, box_crop=False, crop_scale=1.0)
    assert table(ours, theirs)[0] == ["score", "a", "b"]


def test_a_network_that_only_other_scores_use_does_not_matter(table):
    theirs = made_up_scores()
    theirs["networks"]["inception"]["sha256"] = theirs["networks"]["judges"][0]["fingerprint"] = "x"
    lines = table(made_up_scores(), theirs, keys=["inception_score"])
    assert cells(lines, "Inception Score") == ["4 (3.9 to 4.1)", "4 (3.9 to 4.1)"]


def test_a_difference_between_later_files_is_found_too(tmp_path):
    reports = [made_up_scores(kid=(0.5,)), made_up_scores(fid=(1,)), made_up_scores(fid=(2,))]
    reports[2]["networks"]["inception"]["dims"] = 64
    paths = [write_scores(tmp_path / f"{i}.json", report) for i, report in enumerate(reports)]
    with pytest.raises(UserError, match=r"2\.json: networks\.inception\.dims is 64"):
        compare(paths)


def test_seed_dataset_and_place_of_the_data_may_differ(table):
    other = made_up_scores()
    other["seed"], other["dataset"] = 7, "cub"
    other["reference"].update(path="/elsewhere", dataset="cub")
    assert len(table(made_up_scores(), other)) > 4


def test_a_score_that_this_program_does_not_know_demands_the_same_networks(refused, table):
    ours, theirs = made_up_scores(), made_up_scores()
    for report in (ours, theirs):
        report["scores"] = [report["scores"][1] | {"metric": "of_another_program", "name": "Novel"}]
    assert cells(table(ours, theirs), "Novel")[0] == "20 (18 to 22)"
    theirs["networks"]["probabilities"] = None
    assert "networks.probabilities.random is none, but False" in refused(theirs, ours)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r.pop("kind"), "b.json: it lacks kind; expected scores that python tools/score.py writes"),
        (lambda r: r.update(kind="model"), "it.kind must be 'scores', not 'model'"),
        (lambda r: r.update(program=2), "it.program must be 1, not 2"),
        (lambda r: r["scores"][1].update(value=float("nan")), "it.scores[1].value must be a finite number"),
        (lambda r: r["scores"][1].update(interval=[3, 2]), "it.scores[1].interval must run upwards, not [3, 2]"),
        (lambda r: r["scores"].append(r["scores"][1]), "it.scores[3] is a second 'fid'"),
        (lambda r: r["scores"][0].update(judge=2), "it.scores[0] is of judge 2, but it has 2 judges"),
        (lambda r: r["scores"][0].update(judge=None), "it.scores[0].judge must be a number"),
        (lambda r: r["scores"][1].update(judge=1), "it.scores[1].judge must be empty"),
        (lambda r: r["networks"].update(inception=None), "it.networks.inception is empty, but it.scores[1] was"),
    ],
)
def test_a_damaged_file_is_refused_by_one_line(refused, change, said):
    other = made_up_scores()
    change(other)
    assert said in refused(other)


def test_other_json_is_refused(refused):
    assert refused({"metric": "FID", "value": 3.5}).startswith("b.json: it lacks kind, program, protocol")
    with pytest.raises(UserError, match=r"nowhere\.json: no such file; expected scores that python tools/score\.py"):
        read_scores("nowhere.json")


def test_nothing_to_compare_is_refused(refused, tmp_path):
    assert "holds no scores of these --metrics" in refused(made_up_scores(), keys=["kid"])
    assert "there is no score 'fidd'" in refused(made_up_scores(), keys=["fidd"])
    with pytest.raises(UserError, match="two generators or more"):
        compare([write_scores(tmp_path / "a.json", made_up_scores())])


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a.json", "b.json"], ["a", "b"]),
        (["x/scores.json", "y/scores.json"], ["x", "y"]),
        (["o/bird_1/netG_6/valid/scores.json", "o/bird_2/netG_6/valid/scores.json"], ["bird_1", "bird_2"]),
        (["1/m/6/s.json", "2/m/8/s.json"], ["6", "8"]),
        (["1/m/6/s.json", "2/m/8/s.json", "1/m/8/s.json"], ["1/6", "2/8", "1/8"]),
        (["x/s.json", "x/y/s.json"], ["x", "y"]),
        (["a.json", "a"], ["a.json", "a"]),
        (["x/a.json", "y/b.txt"], ["a", "b.txt"]),
    ],
)
def test_headings_are_the_shortest_names_that_tell_files_apart(paths, names):
    assert headings(paths) == names


def test_a_file_that_is_named_twice_is_refused():
    with pytest.raises(UserError, match=r"x/\.\./a\.json: is named twice"):
        headings(["a.json", "x/../a.json"])
