"""The readers of files, each with good files to spoil and the call that reads them."""

from __future__ import annotations

import io
import json
import pickle
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import yaml
from conftest import TINY_CLIP
from made_up_scores import made_up_scores
from PIL import Image
from tiny_model import write_tiny_model

from clipgan.config import Config, load_config
from clipgan.data.cache import ImageCache, Preparation
from clipgan.data.examples import Example, read_examples, read_own_captions
from clipgan.data.images import load_shrunk
from clipgan.data.toy_oracle import read_truth
from clipgan.data.toy_scene import ATTRIBUTES
from clipgan.drawing.model import Model
from clipgan.evaluation.comparing import compare
from clipgan.evaluation.from_snapshot import take_from_generator, training_of
from clipgan.evaluation.inception import read_score_weights
from clipgan.evaluation.real_features import read_features
from clipgan.evaluation.score_reports import read_fid, read_inception_score, read_r_precision
from clipgan.evaluation.statistics_file import read_statistics
from clipgan.files.safetensors_file import read_described
from clipgan.files.torch_file import read_torch_file
from clipgan.networks.clip_encoder import build_encoder
from clipgan.networks.discriminator import Discriminator
from clipgan.networks.generator import Generator
from clipgan.runs import checkpoint
from clipgan.runs.curves import draw_curves
from clipgan.runs.folder import RunFolder
from clipgan.runs.model_file import SCORE, read_model
from clipgan.runs.record import sessions_so_far, training_data_of
from clipgan.runs.snapshots import load_discriminator, load_encoder, load_generator, save_encoder
from clipgan.runs.state import Position, TrainingState

GENERATOR = {
    "gf_dim": 2, "z_dim": 3, "condition_dim": 3, "word_dim": 4, "sentence_dim": 5, "residual_num": 1, "base_size": 8,
    "branch_num": 2,
}  # fmt: skip
DISCRIMINATOR = {"image_size": 8, "df_dim": 2, "sentence_dim": 5}
NAMES = ["001.A/one", "002.B/two", "002.B/three"]


@dataclass(repr=False)
class Reader:
    """A reader of one kind of file.

    ``files`` are good ones, by a name; ``tree`` is the content of a good one as nested values and ``dump`` writes such
    a tree; ``read`` gets the spoilt file.
    """

    read: Callable[[Path], Any]
    suffix: str
    files: dict[str, bytes]
    tree: Any = None
    dump: Callable[[Any], bytes] | None = None
    tensors: bool = False
    kept: list = field(default_factory=list)


def torch_bytes(content: Any, archive: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=archive)
    return buffer.getvalue()


def json_bytes(tree: Any) -> bytes:
    return json.dumps(tree).encode("utf-8", errors="surrogatepass")


def yaml_bytes(tree: Any) -> bytes:
    return yaml.safe_dump(tree).encode("utf-8", errors="replace")


def written(write: Callable[[Path], Any], folder: Path) -> bytes:
    path = folder / "made"
    write(path)
    return path.read_bytes()


def readers(folder: Path) -> dict[str, Reader]:
    """All readers; ``folder`` is for their files."""
    torch.manual_seed(0)
    made: dict[str, Reader] = {}
    _checkpoints(made, folder)
    _model_file(made, folder)
    _state(made, folder)
    _encoders(made, folder)
    _data(made, folder)
    _images(made, folder)
    _small(made, folder)
    return made


def _checkpoints(made: dict[str, Reader], folder: Path) -> None:
    generator, discriminator = Generator(**GENERATOR), Discriminator(**DISCRIMINATOR)
    for name, network, arguments, load in (
        ("generator", generator, GENERATOR, load_generator),
        ("discriminator", discriminator, DISCRIMINATOR, load_discriminator),
    ):
        content = {
            "format": checkpoint.FORMAT, "kind": name, "architecture": dict(arguments), "epoch": 3, "step": 7,
            "weights": dict(network.state_dict()), "encoder": "0123456789abcdef", "config": {"TRAIN": {"EMA": 0.9}},
        }  # fmt: skip
        files = {"archive": torch_bytes(content), "legacy": torch_bytes(content, False)}
        files["published"] = torch_bytes(dict(network.state_dict()), False)
        made[name] = Reader(
            lambda path, load=load, arguments=arguments: load(path, dict(arguments)), ".pth", files, content,
            torch_bytes, tensors=True,
        )  # fmt: skip
    sizes = {
        **made["generator"].tree, "config": {"DATA": {"BOX_CROP": False, "CROP_SCALE": 1.5}, "TEXT": {"WORDS_NUM": 9}},
    }  # fmt: skip

    def evaluate(path: Path) -> None:
        config = Config()
        config.TRAIN.NET_G = str(path)
        architecture = take_from_generator(config)
        if architecture:
            load_generator(path, architecture)

    def trained(path: Path) -> None:
        training = training_of(path)
        assert training.config is None or training.config.image_sizes
        assert isinstance(training.data, str)

    told = {**sizes, "data": "0123456789abcdef", "config": asdict(Config())}
    made["training of a generator"] = Reader(
        trained, ".pth", {"archive": torch_bytes(told)}, told, torch_bytes, tensors=True
    )
    made["evaluated generator"] = Reader(
        evaluate, ".pth", {"archive": torch_bytes(sizes)}, sizes, torch_bytes, tensors=True
    )
    header = {"format": "pt", "description": "{}"}
    tensors = {"a": torch.zeros(2, 3), "b": torch.zeros(2, dtype=torch.bool), "none": torch.zeros(0)}
    made["safetensors"] = Reader(
        read_described, ".safetensors", {"a": safetensors.torch.save(tensors, header)}, header,
        lambda tree: safetensors.torch.save(tensors, tree),
    )  # fmt: skip
    made["foreign torch file"] = Reader(lambda path: read_torch_file(path, foreign=True), ".pt", {"a": torch_bytes(
        {"state_dict": {"model.a": torch.zeros(3)}, "callbacks": {"x": np.float64(3)}, "epoch": 3})})  # fmt: skip


def _model_file(made: dict[str, Reader], folder: Path) -> None:
    path = folder / "good.safetensors"
    write_tiny_model(path, TINY_CLIP, image_side=False)
    weights, said = read_described(path)
    description = json.loads(said["description"])

    def dump(tree: Any) -> bytes:
        return safetensors.torch.save(weights, {"description": json.dumps(tree)})

    def draw(path: Path) -> None:
        model = Model(read_model(path), "cpu")
        assert all(model.facts)
        model.draw("a small red bird")

    made["model file"] = Reader(draw, ".safetensors", {"a": path.read_bytes()}, description, dump)


def _state(made: dict[str, Reader], folder: Path) -> None:
    config = Config(OUTPUT_DIR=str(folder / "state"))
    network = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    run = TrainingState(RunFolder.create(config), {"network": network, "optimizer": optimizer}, config)
    with run:
        run.save(Position(step=3))
    (path,) = run._folder.state_files
    whole, content = path.read_bytes(), torch.load(path, weights_only=True)
    path.unlink()

    def read(spoilt: Path) -> None:
        path.write_bytes(spoilt.read_bytes())
        try:
            run.resume()
        finally:
            for left in path.parent.iterdir():
                left.unlink()

    made["training state"] = Reader(read, ".pt", {"a": whole}, content, torch_bytes, tensors=True)


def _encoders(made: dict[str, Reader], folder: Path) -> None:
    model = {
        "embed_dim": 8, "quick_gelu": False,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 8, "head_width": 4, "patch_size": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
    }  # fmt: skip
    base = folder / "model.json"
    base.write_bytes(json_bytes(model))
    encoder = build_encoder(str(base), "", 6)
    made["model JSON"] = Reader(
        lambda path: build_encoder(str(path), "", 6), ".json", {"a": json_bytes(model)}, model, json_bytes
    )
    whole = written(lambda path: save_encoder(path, encoder, epoch=1), folder)
    content = torch.load(folder / "made", weights_only=True)
    content["weights"] = dict(content["weights"])
    del content["weights"]["clip.token_embedding.weight"]  # large, and so every input would be
    small = {name: value for name, value in encoder.clip.state_dict().items() if "token_embedding" not in name}
    made["encoder"] = Reader(
        lambda path: load_encoder(path, str(base), 6), ".pth", {"a": whole}, content, torch_bytes, tensors=True
    )
    made["CLIP weights"] = Reader(
        lambda path: build_encoder(str(base), str(path), 6), ".pt",
        {"a": torch_bytes(small), "nested": torch_bytes({"state_dict": {f"model.{k}": v for k, v in small.items()}})},
        small, torch_bytes, tensors=True,
    )  # fmt: skip


def _data(made: dict[str, Reader], folder: Path) -> None:
    root = folder / "birds"
    for name in NAMES:
        image = root / "CUB_200_2011" / "images" / f"{name}.jpg"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (200, 30, 30)).save(image)
        text = root / "text" / f"{name}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("a red bird\na bird\n")
    (root / "test").mkdir()
    good = {
        "test/filenames.pickle": pickle.dumps(NAMES, 0), "test/class_info.pickle": pickle.dumps([1, 2, 2], 2),
        "CUB_200_2011/images.txt": "".join(f"{i} {name}.jpg\n" for i, name in enumerate(NAMES, 1)).encode(),
        "CUB_200_2011/bounding_boxes.txt": b"1 1 2 10 10\n2 3.5 4 9 9\n3 0 0 20 20\n",
        "text/001.A/one.txt": "a red bird\r\nein Vogel, größer\n".encode(),
    }  # fmt: skip
    for name, content in good.items():
        (root / name).write_bytes(content)

    def read(path: Path, place: str) -> None:
        (root / place).write_bytes(path.read_bytes())
        try:
            for example in read_examples(root, "test", "birds", captions_per_image=2):
                example.image.exists()
        finally:
            (root / place).write_bytes(good[place])

    for place, content in good.items():
        files = {"a": content}
        if place.endswith(".pickle"):
            values = pickle.loads(content)
            files |= {str(protocol): pickle.dumps(values, protocol) for protocol in range(6)}
            if "class" in place:
                files["numpy"] = pickle.dumps(list(np.array(values)), 2)
        made[place.rpartition("/")[2] if "text" not in place else "captions"] = Reader(
            lambda path, place=place: read(path, place), ".any", files
        )

    coco = folder / "coco"
    (coco / "test").mkdir(parents=True)
    (coco / "test" / "filenames.pickle").write_bytes(pickle.dumps(["a", "b"]))
    words = {0: "<end>", 1: "red", 2: "bird"}
    captions = [[[1, 2], [1]], [[1, 2, 0], [2], [2, 1], [1]], words, {word: i for i, word in words.items()}]

    def read_pickled(path: Path) -> None:
        (coco / "captions.pickle").write_bytes(path.read_bytes())
        read_examples(coco, "test", "coco", captions_per_image=2)

    made["captions.pickle"] = Reader(
        read_pickled, ".pickle", {str(p): pickle.dumps(captions, p) for p in range(6)}, captions,
        lambda tree: pickle.dumps(tree, 2),
    )  # fmt: skip

    lines = [
        {"image": "a.jpg", "captions": ["a red bird", "größer"], "class": 3, "box": [1, 2, 3, 4.5]},
        {"image": "b/c.jpg", "captions": ["x"], "class": 4},
    ]
    mine = folder / "mine"
    mine.mkdir()

    def read_manifest(path: Path) -> None:
        (mine / "train.jsonl").write_bytes(path.read_bytes())
        for example in read_examples(mine, "train", "mine", captions_per_image=2):
            example.image.exists()

    def manifest(tree: Any) -> bytes:
        return b"\n".join(json_bytes(line) for line in tree) if isinstance(tree, list) else json_bytes(tree)

    made["manifest"] = Reader(read_manifest, ".jsonl", {"a": manifest(lines)}, lines, manifest)

    def read_own(path: Path) -> None:
        (mine / "own.txt").write_bytes(path.read_bytes())
        (mine / "example_filenames.txt").write_bytes(b"\xef\xbb\xbfown\n")
        read_own_captions(mine)

    made["own captions"] = Reader(read_own, ".txt", {"a": "a red bird\n\nein größerer\n漢字\n".encode()})

    def read_list(path: Path) -> None:
        (mine / "own.txt").write_bytes(b"a red bird\n")
        (mine / "example_filenames.txt").write_bytes(path.read_bytes())
        read_own_captions(mine)

    made["list of own captions"] = Reader(read_list, ".txt", {"a": b"own\nown\n"})


def _images(made: dict[str, Reader], folder: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 30, 3), dtype=np.uint8))
    forms = {
        "JPEG": picture, "PNG": picture, "WEBP": picture, "BMP": picture, "GIF": picture.convert("P"), "TIFF": picture,
        "PPM": picture,
    }  # fmt: skip
    files = {}
    for name, image in forms.items():
        buffer = io.BytesIO()
        image.save(buffer, name)
        files[name] = buffer.getvalue()
    for name, mode, form in (("grey 16", "I;16", "PNG"), ("float", "F", "TIFF"), ("alpha", "RGBA", "PNG"),
                             ("cmyk", "CMYK", "JPEG"), ("bits", "1", "PNG"), ("lzw", "L", "TIFF")):  # fmt: skip
        buffer = io.BytesIO()
        image = Image.new(mode, (9, 7)) if mode in ("I;16", "F") else picture.convert(mode)
        image.save(buffer, form, **({"compression": "tiff_lzw"} if name == "lzw" else {}))
        files[name] = buffer.getvalue()
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", exif=exif)
    files["turned"] = buffer.getvalue()
    made["image"] = Reader(lambda path: load_shrunk(path, (2, 2, 10, 12), 16, 76 / 64), ".png", files)

    source = folder / "source.png"
    picture.save(source)
    examples = [Example(source, "source", ("a bird",), 1, None)]
    preparation = Preparation(16, 1.0, False)

    def cache() -> ImageCache:
        return ImageCache.of(examples, preparation, folder / "cache", "x", 1)

    expected = np.array(cache()[0])
    place = cache().path

    def read_cache(path: Path) -> None:
        place.write_bytes(path.read_bytes())
        found = cache()[0]
        assert found.shape == expected.shape

    made["image cache"] = Reader(read_cache, ".images", {"a": place.read_bytes()})


def _small(made: dict[str, Reader], folder: Path) -> None:
    config = {
        "CONFIG_NAME": "x", "WORKERS": 2, "TREE": {"BASE_SIZE": 16, "BRANCH_NUM": 2},
        "TRAIN": {"BATCH_SIZE": 4, "GENERATOR_LR": 2e-4, "SMOOTH": {"GAMMA1": 4.0}, "FLAG": True},
    }  # fmt: skip
    made["YAML"] = Reader(load_config, ".yml", {"a": yaml_bytes(config)}, config, yaml_bytes)
    good = folder / "good.yml"
    good.write_bytes(yaml_bytes(config))

    def override(path: Path) -> None:
        load_config(good, [path.read_bytes().decode("utf-8", errors="surrogateescape")])

    made["--set"] = Reader(override, ".txt", {"a": b"TRAIN.BATCH_SIZE=4", "b": b"TRAIN.SMOOTH.GAMMA1=1e-4"})

    buffer = io.BytesIO()
    np.savez(buffer, mu=np.zeros(4), sigma=np.eye(4), count=np.array(9), provenance=np.array(json.dumps({"dims": 4})))
    compressed = io.BytesIO()
    np.savez_compressed(compressed, mu=np.zeros(4), sigma=np.eye(4))
    trained = {"state_dict": {"fc.bias": torch.zeros(3)}, "fine_tuned": {"dataset": "birds", "classes": 3, "lr": 0.01}}

    def read_trained(path: Path) -> None:
        json.dumps(read_score_weights(str(path))[1].as_dict(), allow_nan=False)

    made["Inception weights"] = Reader(
        read_trained, ".pth", {"a": torch_bytes(trained)}, trained, torch_bytes, tensors=True
    )

    def read_kept(path: Path) -> None:
        kept = read_features(path, images=3)
        assert kept is None or (len(kept) == 3 and kept.is_floating_point())

    features = {"features": torch.zeros(3, 5)}
    made["features"] = Reader(read_kept, ".safetensors", {"a": safetensors.torch.save(features)})

    made["statistics"] = Reader(read_statistics, ".npz", {"a": buffer.getvalue(), "b": compressed.getvalue()})

    line = {"kind": "train", "step": 10, "epoch": 1, "seconds": 1.0, "loss": 1.5, "best_split": "x"}
    lines = [line, {**line, "step": 20}]

    def read_lines(path: Path) -> None:
        draw_curves(path, folder / "curves.png")

    def dump_lines(tree: Any) -> bytes:
        return b"\n".join(json_bytes(line) for line in tree) if isinstance(tree, list) else json_bytes(tree)

    made["metrics.jsonl"] = Reader(read_lines, ".jsonl", {"a": dump_lines(lines)}, lines, dump_lines)

    runs = RunFolder(folder / "run")
    runs.root.mkdir()
    record = {"sessions": [{"command": "python main.py", "seed": 1, "ended": None, "hardware": {"gpus": []},
                            "encoder": "ab", "data": {"train": "cd"}}]}  # fmt: skip

    def read_record(path: Path) -> None:
        runs.record.write_bytes(path.read_bytes())
        training_data_of(runs.record, "ab")
        sessions_so_far(runs.record)

    made["run.json"] = Reader(read_record, ".json", {"a": json_bytes(record)}, record, json_bytes)

    side = {"mean": 0.5, "std": 0.01, "images": 400}
    judge = {"judge": "judge (x/y.pth)", "judge_trained_the_generator": True, "generated": side, "real": side}
    measured = {"generator_fingerprint": "ab", "protocol": "cosine", "judges": [judge]}
    said = {"protocol": "as said", "notice": None}
    for name, reader, report in (
        ("r_precision.json", read_r_precision, measured),
        ("fid.json", read_fid, {"metric": "FID", "value": 3.5, **said}),
        ("inception_score.json", read_inception_score, {"metric": "Inception Score", "mean": 2.0, "std": 0.1, **said}),
    ):

        def read_report(path: Path, reader: Any = reader) -> None:
            found = reader(path)
            for score in found[1] if isinstance(found, tuple) else [found]:
                SCORE(score, "a score")

        made[name] = Reader(read_report, ".json", {"a": json_bytes(report)}, report, json_bytes)

    scores = made_up_scores()
    good_scores = folder / "good_scores.json"
    good_scores.write_bytes(json_bytes(scores))
    made["scores"] = Reader(
        lambda path: compare([str(good_scores), str(path)], markdown=True), ".json", {"a": json_bytes(scores)}, scores,
        json_bytes,
    )  # fmt: skip

    toy = folder / "toy"
    toy.mkdir()
    truth = {"attributes": {"a": {name: values[0] for name, values in ATTRIBUTES.items()}}, "palettes": {}}

    def read_toy(path: Path) -> None:
        (toy / "attributes.json").write_bytes(path.read_bytes())
        read_truth(toy)

    made["attributes.json"] = Reader(read_toy, ".json", {"a": json_bytes(truth)}, truth, json_bytes)

    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
    try:
        from prepare_coco import read_captions
    finally:
        sys.path.pop(0)
    coco = {
        "images": [{"id": 1, "file_name": "COCO_val2014_000000000001.jpg"}],
        "annotations": [{"image_id": 1, "id": 5, "caption": "A dog."}],
    }
    made["COCO captions"] = Reader(read_captions, ".json", {"a": json_bytes(coco)}, coco, json_bytes)
