"""CUB-200-2011 and Oxford's flowers with the published captions and splits, in the places where people keep them."""

import pickle
import shutil

import numpy as np
import pytest
import scipy.io

from clipgan.data.sources import cub, flowers
from clipgan.data.sources.pictures import Given
from clipgan.errors import UserError

BIRDS = ["001.Auk/Auk_1", "001.Auk/Auk_2", "002.Owl/Owl_1", "003.Jay/Jay_1", "004.Tit/Tit_1"]
FLOWERS = {1: 77, 2: 77, 3: 5, 4: 102}  # number of an image → its class


@pytest.fixture
def birds(tmp_path, draw, write):
    """CUB as its archive holds it, with AttnGAN's texts beside it."""
    place = tmp_path / "birds/CUB_200_2011"
    for name in BIRDS:
        draw(place / "images" / f"{name}.jpg")
        write(tmp_path / "birds/text" / f"{name}.txt", f"{name[4:7]} one.\n{name[4:7]} two.\n")
    write(place / "images.txt", "".join(f"{i} {name}.jpg\n" for i, name in enumerate(BIRDS, 1)))
    write(place / "bounding_boxes.txt", "".join(f"{i} {i}.0 2.0 3.0 4.0\n" for i, _ in enumerate(BIRDS, 1)))
    return tmp_path / "birds"


@pytest.fixture
def oxford(tmp_path, draw, write):
    """The flowers' pictures and labels, with Reed's texts beside them."""
    place = tmp_path / "flowers"
    for number, label in FLOWERS.items():
        draw(place / f"jpg/image_{number:05d}.jpg")
        write(place / f"text_c10/class_{label:05d}/image_{number:05d}.txt", f"flower {number}\n")
    scipy.io.savemat(place / "imagelabels.mat", {"labels": np.array([list(FLOWERS.values())], np.uint8)})
    return place


def read(reader, place, **options):
    return reader.read(Given((place,), **options))


def pickles(folder, train, test):
    for split, names in (("train", train), ("test", test)):
        (folder / split).mkdir(parents=True)
        (folder / split / "filenames.pickle").write_bytes(pickle.dumps(names, 2))


def splits(source):
    return {picture.name.removesuffix(".jpg"): picture.split for picture in source.pictures}


def test_texts_in_capitals_are_texts(birds, oxford):
    for path in [*(birds / "text").rglob("*.txt"), *(oxford / "text_c10").rglob("*.txt")]:
        path.rename(path.with_suffix(".TXT"))
    assert len(read(cub, birds).pictures) == len(BIRDS) and len(read(flowers, oxford).pictures) == len(FLOWERS)
    shutil.copy(oxford / "text_c10/class_00005/image_00003.TXT", oxford / "jpg")
    assert not flowers.is_here(oxford)


def test_birds_come_with_class_box_and_captions(birds):
    for place in (birds, birds / "CUB_200_2011"):
        assert cub.is_here(place)
        source = read(cub, place)
        assert source.root == birds / "CUB_200_2011/images" and source.home == place
        assert [picture.name for picture in source.pictures] == [f"{name}.jpg" for name in BIRDS]
        owl = source.pictures[2]
        assert (owl.captions, owl.label, owl.box) == (("Owl one.", "Owl two."), "002.Owl", (3.0, 2.0, 3.0, 4.0))
        assert source.split_by == "" and set(splits(source).values()) == {None} and source.left_out.lines() == []
    assert not cub.is_here(birds / "text")


def test_reeds_captions_of_birds_are_found_in_a_folder_of_their_own(birds, tmp_path):
    reed = tmp_path / "cvpr2016_cub/text_c10"
    shutil.move(birds / "text", reed)
    (reed / "001.Auk.t7").write_bytes(b"x")
    with pytest.raises(UserError, match=r"birds: CUB-200-2011 comes without captions.*--captions"):
        read(cub, birds)
    for captions in (tmp_path / "cvpr2016_cub", reed):
        assert read(cub, birds, captions=captions).pictures[0].captions == ("Auk one.", "Auk two.")
    assert len(read(cub, birds, near=(tmp_path,)).pictures) == 5
    assert read(cub, birds, near=(tmp_path,)).what == "CUB-200-2011, captions from text_c10/"


@pytest.mark.parametrize("lists", [("trainvalclasses.txt",), ("trainclasses.txt", "valclasses.txt"), ()])
def test_lists_of_classes_are_the_split(birds, write, lists):
    classes = ["001.Auk", "003.Jay"] if lists else []
    for number, name in enumerate(lists):
        write(birds / name, "\n".join(classes[number :: len(lists)]) + "\n\n")
    write(birds / "testclasses.txt", "002.Owl\r\n")
    source = read(cub, birds)
    expected = dict(zip(BIRDS, ["train", "train", "test", "train", "train"], strict=True))
    if lists:
        del expected["004.Tit/Tit_1"]
        assert source.left_out.lines() == ["pictures that the published split does not name: 1 (004.Tit/Tit_1)"]
    assert splits(source) == expected and source.split_by == "testclasses.txt"


@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_lists_of_images_are_the_split(birds, tmp_path, kind):
    pickles(birds / "inner", kind(BIRDS[3:]), kind(BIRDS[:3]))
    source = read(cub, birds)
    assert splits(source) == dict(zip(BIRDS, ["test"] * 3 + ["train"] * 2, strict=True))
    assert source.split_by == "train/ and test/filenames.pickle"


@pytest.mark.parametrize("names", [5, [1, 2], {"a": 1}])
def test_lists_of_images_of_another_form_are_refused(birds, names):
    pickles(birds, names, BIRDS)
    with pytest.raises(UserError, match=r"train/filenames\.pickle: expected a list of image names"):
        read(cub, birds)


def test_a_class_or_image_in_both_lists_is_refused(birds, write):
    pickles(birds, BIRDS[:3], BIRDS[2:])
    with pytest.raises(UserError, match=r"birds: '002\.Owl/Owl_1' is in the list to test and in that to train"):
        read(cub, birds)
    write(birds / "testclasses.txt", "001.Auk\n")
    write(birds / "trainclasses.txt", "001.Auk\n002.Owl\n")
    with pytest.raises(UserError, match=r"'001\.Auk' is in the list to test"):
        read(cub, birds)


def test_birds_that_cannot_be_used_are_counted(birds, write):
    (birds / "CUB_200_2011/images/001.Auk/Auk_2.jpg").unlink()
    write(birds / "text/002.Owl/Owl_1.txt", "")
    (birds / "text/003.Jay/Jay_1.txt").rename(birds / "text/001.Auk/Jay_1.txt")  # the text of another class
    write(birds / "CUB_200_2011/bounding_boxes.txt", "".join(f"{i} 1 2 3 {4 * (i != 5)}\n" for i in range(1, 6)))
    source = read(cub, birds)
    assert [picture.name for picture in source.pictures] == ["001.Auk/Auk_1.jpg"]
    missing, unreadable, without, no_box = source.left_out.lines()
    assert missing == "pictures that are named but not there: 1 (001.Auk/Auk_2)"
    assert unreadable.startswith("pictures whose captions cannot be read: 1 (002.Owl/Owl_1.txt: has no caption")
    assert without == "pictures without a caption: 1 (Jay_1)" and no_box.startswith("pictures whose box is none: 1 (")


def test_names_that_lead_out_of_the_folder_are_not_looked_up(birds, write, draw):
    draw(birds / "secret.jpg")
    write(birds / "text/x/secret.txt", "a")
    write(birds / "CUB_200_2011/images.txt", "1 ../../secret.jpg\n2 /etc/secret.jpg\n3 002.Owl/Owl_1.jpg\n")
    write(birds / "CUB_200_2011/bounding_boxes.txt", "".join(f"{i} 1 2 3 4\n" for i in (1, 2, 3)))
    assert [picture.name for picture in read(cub, birds).pictures] == ["002.Owl/Owl_1.jpg"]


def test_flowers_come_with_class_and_captions(oxford):
    for place in (oxford, oxford / "jpg"):
        assert flowers.is_here(place)
        source = read(flowers, place)
        assert source.root == oxford / "jpg" and source.home == place
        assert [(p.name, p.captions, p.label) for p in source.pictures] == [
            (f"image_{number:05d}.jpg", (f"flower {number}",), str(label)) for number, label in FLOWERS.items()
        ]
        assert source.left_out.lines() == [] and "classes from imagelabels.mat" in source.what


def test_without_labels_the_captions_folders_are_the_classes(oxford):
    (oxford / "imagelabels.mat").unlink()
    source = read(flowers, oxford)
    assert [picture.label for picture in source.pictures] == ["77", "77", "5", "102"]
    assert "classes from the captions' folders" in source.what
    shutil.rmtree(oxford / "text_c10/class_00077")
    for number in (1, 2):
        (oxford / f"text_c10/other/image_{number:05d}.txt").parent.mkdir(exist_ok=True)
        (oxford / f"text_c10/other/image_{number:05d}.txt").write_text("a flower")
    assert [picture.label for picture in read(flowers, oxford).pictures] == [None, None, "5", "102"]


@pytest.mark.parametrize("names", ["jpg/image_{:05d}", "image_{:05d}", "image_{:05d}.jpg"])
def test_flowers_are_split_by_lists_of_images_or_of_classes(oxford, write, names):
    pickles(oxford, [names.format(number) for number in (1, 2, 3)], [names.format(4)])
    expected = {"image_00001": "train", "image_00002": "train", "image_00003": "train", "image_00004": "test"}
    assert splits(read(flowers, oxford)) == expected
    write(oxford / "testclasses.txt", "class_00005\n")
    assert splits(read(flowers, oxford)) == {**expected, "image_00003": "test", "image_00004": "train"}


def test_flowers_that_cannot_be_used_are_counted(oxford, draw):
    draw(oxford / "jpg/image_00005.jpg")
    draw(oxford / "jpg/other.jpg")
    (oxford / "text_c10/class_00005/image_00003.txt").rename(oxford / "text_c10/class_00077/image_00003.txt")
    scipy.io.savemat(oxford / "imagelabels.mat", {"labels": np.array([[77, 77, 5]])})
    source = read(flowers, oxford)
    assert [picture.name for picture in source.pictures] == ["image_00001.jpg", "image_00002.jpg"]
    assert source.left_out.lines() == [
        "pictures whose class differs between imagelabels.mat and their captions' folder: 1 (image_00003.jpg)",
        "pictures that imagelabels.mat does not number: 1 (image_00004.jpg)",
        "pictures without a caption: 1 (image_00005)",
    ]


def test_flowers_without_captions_or_with_forged_labels_are_refused(oxford, tmp_path):
    (oxford / "imagelabels.mat").write_bytes(b"x" * 500)
    with pytest.raises(UserError, match=r"imagelabels\.mat: is no MATLAB file"):
        read(flowers, oxford)
    shutil.rmtree(oxford / "text_c10")
    with pytest.raises(UserError, match=r"flowers: the flowers come without captions.*--captions"):
        read(flowers, oxford)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: the flowers come without captions"):
        read(flowers, oxford, captions=tmp_path / "empty")
    for reader in (cub, flowers):
        with pytest.raises(UserError, match=r"empty: expected (CUB-200-2011|Oxford's 102 flowers)"):
            read(reader, tmp_path / "empty")


def test_pictures_called_as_the_flowers_with_texts_beside_them_are_none(tmp_path, draw, write):
    draw(tmp_path / "image_00001.jpg")
    draw(tmp_path / "image_00002.jpg")
    assert flowers.is_here(tmp_path)
    write(tmp_path / "image_00002.txt", "a bird")
    assert not flowers.is_here(tmp_path)
