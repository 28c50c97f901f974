"""tools/make_manifest.py from end to end: each kind of source becomes a data set that is read and trained on."""

import json
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from clipgan.config import load_config
from clipgan.data.dataset import TextImageDataset
from clipgan.data.examples import read_examples
from clipgan.data.sources.kinds import KINDS
from clipgan.data.sources.making import class_numbers
from clipgan.data.sources.report import CONFIGS
from clipgan.data.sources.table import COLUMNS
from clipgan.errors import UserError

TOOL = Path(__file__).resolve().parents[2] / "tools" / "make_manifest.py"


@pytest.fixture(scope="module")
def tool(script):
    return script("tools/make_manifest.py")


@pytest.fixture
def make(tool, capsys):
    """Calls the tool and gives back its lines."""

    def make(*arguments) -> list[str]:
        tool.main([str(argument) for argument in arguments])
        return capsys.readouterr().out.splitlines()

    return make


@pytest.fixture
def sources(tmp_path, draw, write):
    """A source of each kind: what to call the tool with, and where the manifest appears."""
    root = tmp_path / "sources"
    names = [f"{kind}/{i}.jpg" for kind in ("ant", "bee", "cat", "dog", "elk") for i in range(3)]
    for name in names:
        draw(root / "folder" / name)
        write((root / "folder" / name).with_suffix(".txt"), f"A {name[:3]}, number {name[4]}.\nMöwe {name[4]}\n")
        draw(root / "table/pics" / name.replace("/", "_"))
    rows = [f"{name.replace('/', '_')};{name[:3]};A {name[:3]}, {i}" for name in names for i in range(2)]
    write(root / "table/pics/captions.csv", "\n".join(["filename;label;comment", *rows]))
    for split, ids in (("train", range(1, 6)), ("val", range(6, 9))):
        images = [{"id": i, "file_name": f"{i:012d}.jpg"} for i in ids]
        said = [{"image_id": i, "caption": f"Picture {i}, {n}"} for i in ids for n in range(5)]
        write(root / f"coco/annotations/captions_{split}2017.json", json.dumps({"images": images, "annotations": said}))
        for image in images:
            draw(root / f"coco/{split}2017" / image["file_name"])
    birds = [f"{i:03d}.{name}/{name}_{n}" for i, name in enumerate(("Auk", "Jay", "Owl", "Tit"), 1) for n in (1, 2)]
    for name in birds:
        draw(root / "cub/CUB_200_2011/images" / f"{name}.jpg")
        write(root / "cub/text" / f"{name}.txt", f"{name[4:7]} one\n{name[4:7]} two\n")
    table = [(number, name) for number, name in enumerate(birds, 1)]
    write(root / "cub/CUB_200_2011/images.txt", "".join(f"{number} {name}.jpg\n" for number, name in table))
    write(root / "cub/CUB_200_2011/bounding_boxes.txt", "".join(f"{number} 1.5 2 {number} 4\n" for number, _ in table))
    write(root / "cub/CUB_200_2011/README", "no picture")
    for split, chosen in (("train", birds[:4]), ("test", birds[4:])):
        (root / "cub" / split).mkdir()
        (root / "cub" / split / "filenames.pickle").write_bytes(pickle.dumps(chosen, 2))
    labels = [7, 7, 9, 9, 3, 3, 102, 102]
    for number, label in enumerate(labels, 1):
        draw(root / f"flowers/jpg/image_{number:05d}.jpg")
        write(root / f"reed/cvpr2016_flowers/text_c10/class_{label:05d}/image_{number:05d}.txt", f"flower {number}\n")
    write(root / "reed/cvpr2016_flowers/testclasses.txt", "class_00009\nclass_00102\n")
    scipy.io.savemat(root / "flowers/imagelabels.mat", {"labels": np.array([labels], np.uint8)})
    return {
        "folder": ([root / "folder"], root / "folder"),
        "table": ([root / "table/pics/captions.csv"], root / "table/pics"),
        "coco": ([root / "coco"], root / "coco"),
        "cub": ([root / "cub"], root / "cub"),
        "flowers": ([root / "flowers", "--captions", root / "reed"], root / "flowers"),
    }


def read(folder, split):
    return read_examples(folder, split, "mine", captions_per_image=10, raw_captions=True)


def entries(folder, split) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def refused(tool, match, *arguments):
    with pytest.raises(UserError, match=match) as caught:
        tool.main([str(argument) for argument in arguments])
    assert len(str(caught.value)) < 490


EXPECTED = {  # splits' sizes, an image and what is known of it
    "folder": (12, 3, "ant/0.jpg", ("A ant, number 0.", "Möwe 0"), 0, None),
    "table": (12, 3, "bee_2.jpg", ("A bee, 0", "A bee, 1"), 1, None),
    "coco": (5, 3, "val2017/000000000007.jpg", tuple(f"Picture 7, {n}" for n in range(5)), None, None),
    "cub": (4, 4, "CUB_200_2011/images/003.Owl/Owl_1.jpg", ("Owl one", "Owl two"), 3, (1.5, 2.0, 5.0, 4.0)),
    "flowers": (4, 4, "jpg/image_00003.jpg", ("flower 3",), 9, None),
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_each_kind_becomes_a_data_set_that_is_read_and_trained_on(make, sources, kind):
    arguments, folder = sources[kind]
    if kind in ("folder", "table"):
        arguments = [*arguments, "--split-by", "random"]
    lines = make(*arguments)
    train, test, image, captions, class_id, box = EXPECTED[kind]
    examples = {split: read(folder, split) for split in ("train", "test")}
    assert (len(examples["train"]), len(examples["test"])) == (train, test)
    everything = {str(e.image.relative_to(folder)): e for split in examples.values() for e in split}
    assert len(everything) == train + test and all(e.image.is_file() for e in everything.values())
    example = everything[image]
    assert (example.captions, example.box) == (captions, box) and example.key == image.removesuffix(".jpg")
    assert class_id is None or example.class_id == class_id

    dataset = TextImageDataset(
        examples["train"], [4, 8], lambda texts: torch.ones(len(texts), 3, dtype=torch.long), seed=0
    )
    item = dataset[0, 0]
    assert [pixels.shape for pixels in item.images] == [(3, 4, 4), (3, 8, 8)]
    assert item.key == examples["train"][0].key and set(item.captions) <= set(examples["train"][0].captions)
    assert f"{train + test} pictures" in lines[1] and f"train: {train} pictures" in "\n".join(lines)


@pytest.mark.parametrize("kind", EXPECTED)
def test_what_is_written_is_what_the_reader_found(make, sources, kind):
    arguments, folder = sources[kind]
    make(*arguments, "--kind", kind)
    for split in ("train", "test"):
        found = read(folder, split)
        for entry, example in zip(entries(folder, split), found, strict=True):
            assert example.image == folder / entry["image"] and list(example.captions) == entry["captions"]
            assert entry.get("class", example.class_id) == example.class_id
            assert tuple(entry.get("box", ())) == (example.box or ())


def test_the_lines_say_what_was_found_left_out_and_how_to_go_on(make, sources, draw):
    arguments, folder = sources["folder"]
    draw(folder / "ant/bare.jpg")
    lines = make(*arguments)
    assert lines == [
        f"{folder}: a folder of pictures with a .txt beside each",
        "15 pictures, 30 captions (2 each), 5 classes",
        "left out: pictures without a caption: 1 (ant/bare.jpg)",
        "train: 9 pictures, 3 classes; test: 6 pictures, 2 classes (by class, seed 0)",
        f"written: {folder}/train.jsonl, {folder}/test.jsonl",
        "next:    no picture was opened here; the check opens each of them, and says which cannot be used",
        f"check:   python tools/check_data.py --cfg cfg/DAMSM/bird.yml --data_dir {folder} --set DATASET_NAME=folder "
        "TEXT.CAPTIONS_PER_IMAGE=2",
        f"train:   python pretrain_DAMSM.py --cfg cfg/DAMSM/bird.yml --data_dir {folder} --set DATASET_NAME=folder "
        "TEXT.CAPTIONS_PER_IMAGE=2 TRAIN.BATCH_SIZE=9",
        f"then:    python main.py --cfg cfg/clip_bird_DMGAN.yml --data_dir {folder} --set DATASET_NAME=folder "
        "TRAIN.CLIP_MODEL_CHECKPOINT=output/folder_DAMSM/Model/clip_best.pth TEXT.CAPTIONS_PER_IMAGE=2 "
        "TRAIN.BATCH_SIZE=9",
    ]


def test_the_commands_name_the_configs_that_suit_the_data_and_know_what_they_say(make, sources):
    lines = make(*sources["coco"][0])
    assert "cfg/DAMSM/coco.yml" in lines[-2] and "cfg/clip_coco_DMGAN.yml" in lines[-1] and "CAPTIONS" not in lines[-1]
    for name, known in CONFIGS.items():
        config = load_config(TOOL.parents[1] / name)
        assert known == (config.TRAIN.BATCH_SIZE, config.TEXT.CAPTIONS_PER_IMAGE)


def test_the_check_that_is_named_finds_no_fault(make, script, sources, tmp_path):
    arguments, _ = sources["cub"]
    check = next(line for line in make(*arguments) if line.startswith("check:"))
    words = check.split()[3:]
    words[words.index("cfg/DAMSM/bird.yml")] = str(TOOL.parents[1] / "cfg/DAMSM/bird.yml")
    script("tools/check_data.py").main([*words, "WORKERS=1"])


TINY = [
    "TRAIN.MAX_STEPS=1", "TRAIN.SNAPSHOT_INTERVAL=1", "WORKERS=0", "TRAIN.CLIP_PRETRAINED=", "TEXT.EMBEDDING_DIM=16",
]  # fmt: skip
TINY_GAN = ["TREE.BASE_SIZE=8", "TREE.BRANCH_NUM=2", "GAN.GF_DIM=4", "GAN.DF_DIM=2", "GAN.CONDITION_DIM=6"]


def test_the_commands_that_are_named_work_with_the_fewest_pictures(
    make, script, tmp_path, draw, write, tiny_clip, monkeypatch
):
    for name in "abcd":
        draw(tmp_path / f"few/{name}.jpg")
        write(tmp_path / f"few/{name}.txt", f"picture {name} one\npicture {name} two\n")
    lines = make(tmp_path / "few")
    monkeypatch.chdir(tmp_path)
    for line, tiny in zip(lines[-2:], (["TREE.BASE_SIZE=32"], TINY_GAN), strict=True):
        _, name, *words = shlex.split(line.partition(":")[2])
        words = [str(TOOL.parents[1] / word) if word.startswith("cfg/") else word for word in words]
        script(name).main([*words, *TINY, *tiny, f"TRAIN.CLIP_MODEL_BASE={tiny_clip}", "GPU_ID=-1"])
    assert list((tmp_path / "output/few_clip_DMGAN/Model").glob("netG_epoch_*.pth"))


def test_the_order_of_the_file_system_changes_nothing(make, sources, monkeypatch):
    arguments, folder = sources["folder"]
    make(*arguments)
    before = [(folder / f"{split}.jsonl").read_bytes() for split in ("train", "test")]
    scandir, listdir = os.scandir, os.listdir

    class Backwards:
        def __init__(self, path="."):
            with scandir(path) as entries:
                self._entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self):
            return iter(self._entries)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(os, "scandir", Backwards)
    monkeypatch.setattr(os, "listdir", lambda path=".": sorted(listdir(path), reverse=True))
    make(*arguments, "--overwrite")
    assert [(folder / f"{split}.jsonl").read_bytes() for split in ("train", "test")] == before
    make(*arguments, "--overwrite", "--seed", 5)
    assert [(folder / f"{split}.jsonl").read_bytes() for split in ("train", "test")] != before


def test_flags_choose_classes_split_and_share(make, sources):
    arguments, folder = sources["folder"]
    make(*arguments, "--no-classes", "--test-share", "0.4")
    assert len(entries(folder, "test")) == 6 and "class" not in entries(folder, "train")[0]
    arguments, folder = sources["table"]
    make(*arguments, "--split-by", "class", "--test-share", "0.6", "--class-column", "label")
    assert len({entry["class"] for entry in entries(folder, "test")}) == 3


@pytest.mark.parametrize("ending, captions", [(".tgz", "folder"), (".zip", "archive"), (".tar", "archive")])
def test_archives_of_pictures_and_captions_become_a_data_set(make, sources, tmp_path, ending, captions):
    root = tmp_path / "sources"
    path, texts = tmp_path / f"102flowers{ending}", root / "reed"
    pack(path, root / "flowers/jpg", "jpg")
    shutil.copy(root / "flowers/imagelabels.mat", tmp_path)
    if captions == "archive":
        texts = tmp_path / f"cvpr2016_flowers{'.tar.gz' if ending == '.tar' else ending}"
        pack(texts, root / "reed/cvpr2016_flowers", "cvpr2016_flowers")
    out = tmp_path / "out/flowers"
    lines = make(path, "--captions", texts, "--out", out)
    assert "captions from text_c10/, classes from imagelabels.mat" in lines[0]
    assert sorted(os.listdir(out)) == ["jpg", "test.jsonl", "train.jsonl"]
    assert [e.class_id for e in read(out, "test")] == [9, 9, 102, 102]


def pack(path: Path, folder: Path, name: str) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as file:
            for inner in sorted(folder.rglob("*")):
                file.write(inner, f"{name}/{inner.relative_to(folder)}")
    else:
        with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as file:
            file.add(folder, name)


def test_cubs_own_archive_with_attngans_metadata_becomes_a_data_set(make, sources, tmp_path):
    root = tmp_path / "sources/cub"
    with tarfile.open(tmp_path / "CUB_200_2011.tgz", "w:gz") as file:
        file.add(root / "CUB_200_2011", "CUB_200_2011")
        file.add(root / "CUB_200_2011/README", "attributes.txt")
    pack(tmp_path / "text.zip", root / "text", "text")
    with zipfile.ZipFile(tmp_path / "birds.zip", "w") as file:
        file.write(tmp_path / "text.zip", "birds/text.zip")
        for split in ("train", "test"):
            file.write(root / split / "filenames.pickle", f"birds/{split}/filenames.pickle")
    lines = make(tmp_path / "CUB_200_2011.tgz", "--captions", tmp_path / "birds.zip", "--out", tmp_path / "birds")
    assert "(by train/ and test/filenames.pickle)" in lines[2]
    assert [example.class_id for example in read(tmp_path / "birds", "test")] == [3, 3, 4, 4]
    assert (tmp_path / "birds/CUB_200_2011/CUB_200_2011/images/001.Auk/Auk_1.jpg").is_file()


def test_an_archive_of_a_folder_with_texts_becomes_a_data_set(make, sources, tmp_path):
    pack(tmp_path / "Mein Möwenarchiv.zip", tmp_path / "sources/folder", "mine")
    lines = make(tmp_path / "Mein Möwenarchiv.zip", "--out", tmp_path / "to here")
    assert lines[1] == "15 pictures, 30 captions (2 each), 5 classes"
    assert f"--data_dir '{tmp_path}/to here' --set DATASET_NAME=to_here" in lines[-1]
    assert read(tmp_path / "to here", "train")[0].image.parent.parent == tmp_path / "to here/mine"


def test_an_archive_that_fails_later_leaves_nothing(tool, sources, tmp_path):
    pack(tmp_path / "flowers.zip", tmp_path / "sources/flowers", "flowers")
    refused(tool, "come without captions", tmp_path / "flowers.zip", "--out", tmp_path / "out/deep")
    assert not (tmp_path / "out").exists()
    refused(tool, r"flowers\.zip: is an archive; name the folder .* by --out", tmp_path / "flowers.zip")
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as file:
        file.writestr("a.jpg", b"x")
        file.writestr("../b.jpg", b"x")
    refused(tool, r"bad\.zip: holds a member .*: '\.\./b\.jpg' must", tmp_path / "bad.zip", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "b.jpg").exists()


def test_a_manifest_that_is_there_stops_it_before_an_archive_is_read(tool, tmp_path, write):
    write(tmp_path / "out/test.jsonl", "{}")
    write(tmp_path / "broken.zip", "PK")
    refused(tool, r"test\.jsonl: is there already", tmp_path / "broken.zip", "--out", tmp_path / "out")
    refused(tool, r"broken\.zip: ", tmp_path / "broken.zip", "--out", tmp_path / "out", "--overwrite")
    assert os.listdir(tmp_path / "out") == ["test.jsonl"]


def test_pictures_elsewhere_are_copied_on_demand_only(tool, make, sources, tmp_path):
    arguments, folder = sources["cub"]
    before = sorted(folder.rglob("*"))
    refused(tool, r"these lie in .*CUB_200_2011/images: add --copy", *arguments, "--out", tmp_path / "out")
    make(*arguments, "--out", tmp_path / "out", "--copy")
    assert sorted(os.listdir(tmp_path / "out")) == ["images", "test.jsonl", "train.jsonl"]
    assert read(tmp_path / "out", "train")[0].key == "images/001.Auk/Auk_1"
    assert sorted(folder.rglob("*")) == before
    refused(tool, r"train\.jsonl: is there already; --overwrite", *arguments, "--out", tmp_path / "out", "--copy")
    make(*arguments, "--out", folder.parent)  # a folder above holds the pictures, too
    assert read(folder.parent, "train")[0].key == "cub/CUB_200_2011/images/001.Auk/Auk_1"


def test_a_folder_marked_read_only_is_left_alone_whoever_asks(tool, sources):
    arguments, folder = sources["folder"]
    folder.chmod(0o555)
    try:
        refused(tool, r"folder: is a read-only folder; name another one by --out", *arguments)
    finally:
        folder.chmod(0o755)
    assert not (folder / "train.jsonl").exists()


def test_names_that_clash_or_that_no_data_set_takes_are_left_out(make, tmp_path, draw, write):
    for name in ("a.jpg", "a.png", "b.c.jpg", "b.d.jpg", "Ü ber.jpg", "x" * 201 + ".jpg", "tab\there.jpg"):
        draw(tmp_path / name)
        write((tmp_path / name).with_suffix(".txt"), "a bird")
    lines = make(tmp_path)
    assert [line for line in lines if line.startswith("left out")] == [
        "left out: pictures whose name differs from another's by its ending only: 1 (a.png)",
        f"left out: pictures whose name no data set takes: 2 (tab here.jpg, {'x' * 80} … {'x' * 33}.jpg)",
    ]
    keys = [example.key for split in ("train", "test") for example in read(tmp_path, split)]
    assert sorted(keys) == ["a", "b.c", "b.d", "Ü ber"]


def test_names_that_are_no_text_are_left_out(make, tmp_path, draw, write):
    for name in ("a", "b", "c", "d"):
        draw(tmp_path / f"{name}.jpg")
        write(tmp_path / f"{name}.txt", "a bird")
    odd = os.fsencode(tmp_path) + b"/\xff"
    try:
        shutil.copy(os.fsencode(tmp_path / "a.jpg"), odd + b".jpg")
    except OSError:
        pytest.skip("this file system takes no such name")
    shutil.copy(os.fsencode(tmp_path / "a.txt"), odd + b".txt")
    assert "pictures whose name no data set takes: 1" in "\n".join(make(tmp_path))
    assert [len(read(tmp_path, split)) for split in ("train", "test")] == [2, 2]


def test_a_split_of_one_class_gets_none_and_says_so(make, tmp_path, draw, write):
    for name in ("train/cat/a.jpg", "train/dog/b.jpg", "test/cat/c.jpg", "test/cat/d.jpg"):
        draw(tmp_path / name)
        write((tmp_path / name).with_suffix(".txt"), "a pet")
    lines = make(tmp_path)
    assert "test: all pictures are of one class, so none is written: each is a class of its own there" in lines
    assert [entry["class"] for entry in entries(tmp_path, "train")] == [0, 1]
    assert len({example.class_id for example in read(tmp_path, "test")}) == 2


def test_raw_captions_are_named_in_the_commands(tool, make, tmp_path, draw, write):
    for name in "abcd":
        draw(tmp_path / f"{name}.jpg")
        write(tmp_path / f"{name}.txt", "红鸟")
    refused(
        tool, r"no picture can be used: pictures of whose captions no word is left \(.*--raw.*\): 4 \(a\.jpg", tmp_path
    )
    assert "TEXT.RAW_CAPTIONS=True" in make(tmp_path, "--raw")[-1]
    assert read(tmp_path, "train")[0].captions == ("红鸟",)


def test_what_is_no_source_is_refused_with_what_would_be_one(tool, sources, tmp_path, write):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "x.xyz", "x")
    write(tmp_path / "jsonl/train.jsonl", "{}")
    known = r"expected CUB-200-2011, COCO's captions_\*\.json, a folder of pictures with a \.txt beside each, .*Oxford"
    refused(tool, rf"empty: is no source that is known; {known}.*--captions", tmp_path / "empty")
    refused(tool, rf"x\.xyz: is no source that is known; {known}", tmp_path / "x.xyz")
    refused(tool, rf"gone: no such file or folder; {known}", tmp_path / "gone")
    refused(tool, r"jsonl: is a manifest already", tmp_path / "jsonl")
    refused(tool, r"expected one source", tmp_path / "empty", tmp_path / "jsonl")
    refused(tool, r"expected one source", tmp_path / "x.xyz", tmp_path / "x.xyz", "--kind", "table")
    refused(
        tool, r"--captions .*gone: expected a folder or an archive", tmp_path / "empty", "--captions", tmp_path / "gone"
    )
    refused(tool, r"--images .*gone: expected a folder$", tmp_path / "empty", "--images", tmp_path / "gone")
    for kind in KINDS:
        refused(tool, r"empty", tmp_path / "empty", "--kind", kind)
    for share in ("0", "1", "x", "nan", "-1"):
        refused(tool, r"--test-share must lie between 0 and 1", tmp_path / "empty", "--test-share", share)


TAKEN = {  # what each kind takes of the flags that only some kinds take
    "folder": {"--captions", "--no-classes"},
    "table": {"--images", "--no-classes", *(f"--{column}-column" for column in COLUMNS)},
    "coco": {"--images"},
    "cub": {"--captions", "--no-classes"},
    "flowers": {"--captions", "--no-classes"},
}


@pytest.mark.parametrize("flag", sorted(set().union(*TAKEN.values())))
@pytest.mark.parametrize("kind", TAKEN)
def test_a_flag_that_has_no_effect_on_a_kind_is_refused(tool, make, sources, tmp_path, kind, flag):
    arguments, folder = sources[kind]
    value = {"--captions": [tmp_path], "--images": [folder], "--no-classes": []}.get(flag, ["filename"])
    if flag not in TAKEN[kind]:
        said = rf"^{flag}: has no effect on {re.escape(KINDS[kind].what)}; leave it out"
        refused(tool, said, *arguments, flag, *value)
        assert not (folder / "train.jsonl").exists()
    elif flag in ("--images", "--no-classes"):
        make(*arguments, flag, *value)
        assert (folder / "train.jsonl").exists()


@pytest.mark.parametrize("flag, value", [("--test-share", "0.2"), ("--seed", "0")])
@pytest.mark.parametrize("kind", ["coco", "cub", "flowers"])
def test_a_share_or_seed_is_refused_where_the_source_is_divided_already(tool, make, sources, kind, flag, value):
    arguments, folder = sources[kind]
    said = rf"^{flag}: has no effect, as the split is that by .*--split-by class or random"
    refused(tool, said, *arguments, flag, value)
    assert not (folder / "train.jsonl").exists()
    make(*arguments, flag, value, "--split-by", "random")


def test_copies_need_a_folder_to_go_to(tool, sources):
    refused(tool, r"^--copy: has no effect without --out", *sources["folder"][0], "--copy")


def test_a_folder_that_lacks_the_files_of_a_kind_is_told_what_is_missing(tool, sources, tmp_path, write):
    (tmp_path / "empty").mkdir()
    refused(tool, r"empty: holds no captions_train\*\.json .*annotations/", tmp_path / "empty", "--kind", "coco")
    refused(tool, r"empty: holds no table .*; expected one \(\.csv, \.tsv\)", tmp_path / "empty", "--kind", "table")
    _, folder = sources["table"]
    why = r"pics: holds no table .*: captions\.csv: no column called 'x' among .*--caption-column"
    for kind in ([], ["--kind", "table"]):
        refused(tool, why, folder, "--caption-column", "x", *kind)


def test_two_tables_in_one_folder_are_named(tool, make, sources):
    _, folder = sources["table"]
    assert "a table of captions (captions.csv)" in make(folder)[0]
    shutil.copy(folder / "captions.csv", folder / "other.tsv")
    refused(tool, r"pics: holds the tables captions\.csv and other\.tsv: name the one", folder, "--overwrite")


def test_class_numbers_are_those_of_the_names_where_they_have_some():
    assert class_numbers(["003.Sooty", None, "001.Auk", "003.Sooty"]) == {"001.Auk": 1, "003.Sooty": 3}
    assert class_numbers(["77", "102", "5"]) == {"102": 102, "5": 5, "77": 77}
    assert class_numbers(["b", "a"]) == {"a": 0, "b": 1}
    assert class_numbers(["1.a", "01.b"]) == {"01.b": 0, "1.a": 1}
    assert class_numbers(["1a", "b"]) == {"1a": 0, "b": 1}
    assert class_numbers(["99999999999", "1"]) == {"1": 0, "99999999999": 1}
    assert class_numbers([None]) == {}


def test_a_mistake_is_one_line_and_status_2(tmp_path):
    done = subprocess.run([sys.executable, TOOL, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"error: {tmp_path}: is no source") and done.stderr.count("\n") == 1
