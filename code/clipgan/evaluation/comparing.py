"""The JSON of scores read back, and the scores of several files side by side where they compare at all."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipgan.errors import UserError, one_line
from clipgan.evaluation.metrics.card import INCEPTION, PROBABILITIES
from clipgan.evaluation.metrics.registry import cards, metric_of, metrics_of
from clipgan.evaluation.outputs import JUDGED
from clipgan.evaluation.real_images import AS_TRAINED, CENTRE, WHOLE
from clipgan.evaluation.score_table import aligned, between, plain
from clipgan.files import shapes
from clipgan.files.gate import MEGABYTE, read_json, reading, short
from clipgan.files.shapes import Misfit

KIND = "scores"
PROGRAM = 1  # the form of the JSON: raised when a field changes its meaning

_EXPECTED = "scores that python tools/score.py writes"
_LARGEST = 64 * MEGABYTE
_NUMBER = shapes.number(-1e12, 1e12)
_COUNT = shapes.whole(0, 10**9)
_NAME, _LINE, _PATH = shapes.text(100), shapes.text(1000), shapes.text(4000)


def _or_none(shape: shapes.Shape) -> shapes.Shape:
    return shapes.either(shapes.nothing, shape)


_SETTING = shapes.either(shapes.nothing, shapes.flag, _NUMBER, _LINE)
_WEIGHTS = {"source": _PATH, "sha256": _NAME, "random": shapes.flag}
_JUDGE = shapes.record({"judge": _PATH, "fingerprint": _NAME, "trained_the_generator": shapes.flag}, others=True)
_NETWORKS = shapes.record(
    {
        "inception": _or_none(shapes.record(_WEIGHTS | {"dims": _COUNT}, others=True)),
        "probabilities": _or_none(shapes.record(_WEIGHTS | {"classes": _COUNT}, others=True)),
        "judges": shapes.list_of(_JUDGE, at_most=20),
    },
    others=True,
)
_SCORE = shapes.record(
    {
        "metric": _NAME,
        "name": _NAME,
        "judge": _or_none(shapes.whole(0, 19)),
        "value": _NUMBER,
        "interval": _or_none(shapes.list_of(_NUMBER, at_least=2, at_most=2)),
        "better": shapes.one_of("higher", "lower"),
        "chance": _or_none(_NUMBER),
        "real": _or_none(_NUMBER),
        "notice": _LINE,
        "details": shapes.mapping_of(shapes.anything),
    },
    others=True,
)
_PROTOCOL = {
    "name": _NAME, "splits": shapes.list_of(_NAME, at_least=1, at_most=10), "crop": _NAME, "images": _or_none(_COUNT),
    "inception_weights": _or_none(_NAME), "score_weights": _or_none(_NAME), "thumbnail": _or_none(_COUNT),
    "rules": shapes.mapping_of(_SETTING, at_most=100), "resize": _LINE,
}  # fmt: skip
_REFERENCE = {"path": _PATH, "images": _COUNT, "files": _LINE}  # the last is a digest
_OF_SPLIT = {  # a folder of real images has none of these
    "split": _NAME, "image_size": _COUNT, "crop": _NAME, "box_crop": shapes.flag, "crop_scale": _NUMBER,
    "reading": _COUNT, "captions": _NAME,
}  # fmt: skip
SCORES = shapes.record(
    {
        "kind": shapes.one_of(KIND),
        "program": shapes.one_of(PROGRAM),
        "protocol": shapes.record(_PROTOCOL, others=True),
        "generated": shapes.record({"path": _PATH, "count": _COUNT}, others=True),
        "reference": shapes.record(_REFERENCE, _OF_SPLIT, others=True),
        "networks": _NETWORKS,
        "scores": shapes.list_of(_SCORE, at_most=1000),
        "left_out": shapes.list_of(_PATH, at_most=1000),
        "warnings": shapes.list_of(_PATH, at_most=1000),
        "seed": _COUNT,
        "versions": shapes.mapping_of(_LINE, at_most=100),
    },
    others=True,
)


def read_scores(path: str | Path) -> dict[str, Any]:
    """The JSON of scores, in the shape of ``SCORES``.

    Raises:
        UserError: it cannot be read, is no such file, or contradicts itself.
    """
    with reading(path, _EXPECTED):
        report = read_json(path, _LARGEST)
        SCORES(report, "it")
        _require_sense(report)
    return report


def _require_sense(report: Mapping[str, Any]) -> None:
    """What shapes cannot say: each score has its network and stands there once; intervals run upwards."""
    judges, seen = len(report["networks"]["judges"]), set()
    for place, score in enumerate(report["scores"]):
        name, judge = f"it.scores[{place}]", score["judge"]
        if judge is not None and judge >= judges:
            raise Misfit(f"{name} is of judge {judge}, but it has {judges} judges")
        needs = _needs(score["metric"])
        if needs is not None and (needs in JUDGED) != (judge is not None):
            raise Misfit(f"{name}.judge must be {'a number' if judge is None else 'empty'}")
        if needs in (INCEPTION, PROBABILITIES) and report["networks"][needs] is None:
            raise Misfit(f"it.networks.{needs} is empty, but {name} was measured with it")
        if score["interval"] is not None and score["interval"][0] > score["interval"][1]:
            raise Misfit(f"{name}.interval must run upwards, not {short(score['interval'])}")
        if (score["metric"], judge) in seen:
            raise Misfit(f"{name} is a second {short(score['metric'])}")
        seen.add((score["metric"], judge))


def _needs(key: str) -> str | None:
    """What a score is measured on; None for a score that this program does not know."""
    return metric_of(key, "").needs if key in cards() else None


Scored = tuple[str, Mapping[str, Any]]  # a path, and the scores in it


@dataclass(frozen=True)
class Row:
    """A score in several files.

    Attributes:
        name: of the score.
        judge: fingerprint of the encoder that judged; None for a score without one.
        scores: that of each file, in the shape ``SCORES`` has it; None where a file lacks it.
    """

    name: str
    judge: str | None
    scores: Sequence[Mapping[str, Any] | None]

    @property
    def best(self) -> int | None:
        """The place of the score that is better than all others; None where an interval is unknown or overlaps."""
        found = [(place, score) for place, score in enumerate(self.scores) if score is not None]
        if len(found) < 2 or any(score["interval"] is None for _, score in found):
            return None
        higher = found[0][1]["better"] == "higher"
        choose = max if higher else min
        best, winner = choose(found, key=lambda entry: entry[1]["value"])
        low, high = winner["interval"]
        others = [score["interval"] for place, score in found if place != best]
        apart = all(low > theirs[1] if higher else high < theirs[0] for theirs in others)
        return best if apart else None


def compare(paths: Sequence[str], markdown: bool = False, keys: Collection[str] = ()) -> str:
    """A table of the scores of several files, and below it what a reader must know of them.

    Args:
        paths: of files that ``tools/score.py`` wrote.
        markdown: make a Markdown table.
        keys: of the scores to compare; empty: all.

    Raises:
        UserError: fewer than two files; one that cannot be read; or two that do not compare.
    """
    metrics_of(list(keys), "--metrics")  # refuses a name that no score has
    if len(paths) < 2:
        raise UserError("comparing takes the scores of two generators or more: name two files of tools/score.py")
    titles = headings(paths)
    files = [(path, read_scores(path)) for path in paths]
    for other in files[1:]:
        require_comparable(files[0], other)
    rows = rows_of(files, keys)
    if not rows:
        raise UserError(f"{paths[0]}: holds no scores{' of these --metrics' if keys else ''}, nor do the other files")
    judges = list(dict.fromkeys(row.judge for row in rows if row.judge is not None))
    lines = [["score", *titles], *(_line(row, judges, markdown) for row in rows)]
    below = [*_legend(rows, markdown), *_notices(rows), *_of_judges(files, titles, judges), *_of_counts(files, titles)]
    if markdown:
        return "\n".join([*_markdown(lines), *([""] if below else []), *(f"- {line}" for line in below)])
    return "\n".join([aligned(lines), *below])


def require_comparable(one: Scored, other: Scored) -> None:
    """Refuse files of another protocol or of other real images.

    Raises:
        UserError: names the first field that differs, and both values.
    """
    _require_equal("protocol", one, other, *(_flat(report["protocol"]) for _, report in (one, other)))
    _require_equal("reference", one, other, *(_reference(report) for _, report in (one, other)))


def _require_equal(
    of: str, one: Scored, other: Scored, ours: Mapping[str, Any], theirs: Mapping[str, Any], metric: str = ""
) -> None:
    for field in dict.fromkeys([*ours, *theirs]):
        mine, yours = ours.get(field), theirs.get(field)
        if mine != yours:
            what = f"their {metric} does not compare, --metrics can name others" if metric else "they do not compare"
            raise UserError(f"{other[0]}: {of}.{field} is {_said(yours)}, but {_said(mine)} in {one[0]}: {what}")


def _said(value: Any) -> str:
    return "none" if value is None else short(value)


def _flat(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a protocol, its name first and its rules among them."""
    fields = {"name": protocol["name"]} | {name: value for name, value in protocol.items() if name != "rules"}
    return fields | {f"rules.{name}": value for name, value in protocol["rules"].items()}


def _reference(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the real images depend on; the digest, which tells a reader the least, comes last."""
    reference = report["reference"]
    crop = reference.get("crop", AS_TRAINED)
    unused = {WHOLE: ("image_size", "box_crop", "crop_scale"), CENTRE: ("box_crop", "crop_scale")}.get(crop, ())
    fields = {"images": reference["images"], "crop": crop}
    fields |= {name: reference.get(name) for name in _OF_SPLIT if name not in (*unused, "crop")}
    return fields | {"files": reference["files"]}


def rows_of(files: Sequence[Scored], keys: Collection[str] = ()) -> list[Row]:
    """The scores of all files in the order of the tables; those by each judge have a row of their own.

    Raises:
        UserError: two files measured a score by different networks.
    """
    found: dict[tuple[str, str | None], list[Mapping[str, Any] | None]] = {}
    for place, (_, report) in enumerate(files):
        for score in report["scores"]:
            if not keys or score["metric"] in keys:
                row = found.setdefault((score["metric"], _judge_of(report, score)), [None] * len(files))
                row[place] = row[place] or score
    for metric in dict.fromkeys(metric for metric, _ in found):
        having = [file for file in files if _of_metric(file, metric)]
        for number, one in enumerate(having):
            for other in having[number + 1 :]:
                _require_same_networks(metric, one, other)
    order = {key: place for place, key in enumerate(cards())}
    rows = sorted(found.items(), key=lambda entry: order.get(entry[0][0], len(order)))
    return [Row(next(s["name"] for s in scores if s is not None), judge, scores) for (_, judge), scores in rows]


def _of_metric(file: Scored, metric: str) -> list[Mapping[str, Any]]:
    return [score for score in file[1]["scores"] if score["metric"] == metric]


def _judge_of(report: Mapping[str, Any], score: Mapping[str, Any]) -> str | None:
    """The fingerprint of a score's judge."""
    return None if score["judge"] is None else report["networks"]["judges"][score["judge"]]["fingerprint"]


def _require_same_networks(metric: str, one: Scored, other: Scored) -> None:
    """Refuse a score that two files measured by different networks; of several judges, one must be the same."""
    needs = _needs(metric)
    for name in (INCEPTION, PROBABILITIES):
        if needs in (name, None):  # of a score that this program does not know, both must be the same
            facts = (_network(report["networks"][name]) for _, report in (one, other))
            _require_equal(f"networks.{name}", one, other, *facts, metric=metric)
    ours, theirs = ([_judge_of(file[1], score) for score in _of_metric(file, metric)] for file in (one, other))
    if not set(ours) & set(theirs):
        facts = ({"fingerprint": ours[0]}, {"fingerprint": theirs[0]})
        _require_equal("networks.judges", one, other, *facts, metric=metric)


def _network(network: Mapping[str, Any] | None) -> dict[str, Any]:
    return {} if network is None else {name: network.get(name) for name in ("random", "dims", "sha256")}


def headings(paths: Sequence[str]) -> list[str]:
    """The shortest names that tell files apart: the last parts of their paths, without those that all share.

    Raises:
        UserError: a file is named twice.
    """
    whole = [Path(os.path.abspath(path)).parts for path in paths]
    for place, parts in enumerate(whole):
        if parts in whole[:place]:
            raise UserError(f"{paths[place]}: is named twice")
    short_names = [(*parts[:-1], parts[-1].removesuffix(".json")) for parts in whole]
    names = short_names if len(set(short_names)) == len(paths) else whole
    count = next(n for n in range(1, max(map(len, names)) + 1) if len({parts[-n:] for parts in names}) == len(paths))
    ends = [parts[-count:] for parts in names]
    if len(set(map(len, ends))) == 1:
        differing = [len(set(column)) > 1 for column in zip(*ends, strict=True)]
        ends = [tuple(part for part, kept in zip(end, differing, strict=True) if kept) for end in ends]
    return [one_line(os.path.join(*end), 200) for end in ends]


def _line(row: Row, judges: Sequence[str], markdown: bool) -> list[str]:
    judge = f", judge {judges.index(row.judge) + 1}" if row.judge is not None and len(judges) > 1 else ""
    cells = []
    for place, score in enumerate(row.scores):
        if score is None:
            cells.append("–")
            continue
        value = plain(score["value"]) + (f" ({between(score['interval'])})" if score["interval"] else "")
        marked = f"**{value}**" if markdown else f"* {value}"
        cells.append(marked if place == row.best else value)
    return [one_line(row.name, 100) + judge, *cells]


def _markdown(lines: Sequence[Sequence[str]]) -> list[str]:
    head, *body = ("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return [head, "|---" + "|---:" * (len(lines[0]) - 1) + "|", *body]


def _legend(rows: Sequence[Row], markdown: bool) -> list[str]:
    legend = ["in brackets: 95 % intervals"] if any(s and s["interval"] for row in rows for s in row.scores) else []
    if any(row.best is not None for row in rows):
        legend.append(f"{'bold' if markdown else '*'}: better than all others, whose intervals do not overlap with it")
    return legend


def _notices(rows: Sequence[Row]) -> list[str]:
    """Each notice once, after the scores that have it."""
    names: dict[str, dict[str, None]] = {}
    for row in rows:
        for score in row.scores:
            if score is not None and score["notice"]:
                names.setdefault(score["notice"], {})[one_line(row.name, 100)] = None
    return [f"{', '.join(of)}: {one_line(notice, 1000)}" for notice, of in names.items()]


def _of_judges(files: Sequence[Scored], titles: Sequence[str], judges: Sequence[str]) -> list[str]:
    """The name of each judge, and whose generator it trained."""
    lines = []
    for number, fingerprint in enumerate(judges, 1):
        theirs = [[j for j in report["networks"]["judges"] if j["fingerprint"] == fingerprint] for _, report in files]
        name = one_line(next(found[0]["judge"] for found in theirs if found), 300)
        trained = [t for t, found in zip(titles, theirs, strict=True) if any(j["trained_the_generator"] for j in found)]
        flattered = f", which trained the generator of {', '.join(trained)} and flatters it" if trained else ""
        lines.append(f"judge{f' {number}' if len(judges) > 1 else ''}: {name}{flattered}")
    return lines


def _of_counts(files: Sequence[Scored], titles: Sequence[str]) -> list[str]:
    """A warning where the files score different numbers of images."""
    counts = [report["generated"]["count"] for _, report in files]
    if len(set(counts)) == 1:
        return []
    said = ", ".join(f"{title}: {count}" for title, count in zip(titles, counts, strict=True))
    return [f"generated images: {said}; their number shifts scores such as FID and Inception Score"]
