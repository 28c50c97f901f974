"""Tables of captions as spreadsheets, Kaggle and other programs write them."""

import pytest

from clipgan.data.sources import table
from clipgan.data.sources.pictures import NO_WORD, Given
from clipgan.errors import UserError

ROWS = "image,caption\na.jpg,A red bird\nb.jpg,A blue bird\na.jpg,It sits\n"


@pytest.fixture
def read(tmp_path, draw):
    """Reads a table in a folder with the pictures a.jpg, b.jpg and sub/c.jpg."""
    for name in ("a.jpg", "b.jpg", "sub/c.jpg"):
        draw(tmp_path / name)

    def read(content: str | bytes, **options):
        path = tmp_path / "table.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return table.read(Given((path,), **options))

    return read


def captions(source) -> dict:
    return {picture.name: picture.captions for picture in source.pictures}


def test_the_rows_of_one_image_are_its_captions(read, tmp_path):
    source = read(ROWS)
    assert captions(source) == {"a.jpg": ("A red bird", "It sits"), "b.jpg": ("A blue bird",)}
    assert source.root == source.home == tmp_path and source.split_by == "" and source.left_out.lines() == []
    assert all(picture.label is picture.split is picture.box is None for picture in source.pictures)


@pytest.mark.parametrize(
    "content",
    [
        ROWS.encode("utf-8-sig"), ROWS.encode("utf-16"), ROWS.replace("\n", "\r\n").encode(), b"\n\n" + ROWS.encode(),
        ROWS.replace(",", ";").encode(), ROWS.replace(",", "\t").encode(), ROWS.replace(",", " | ").encode(),
        b"sep=;\n" + ROWS.replace(",", ";").encode(), b"sep=@\n" + ROWS.replace(",", "@").encode(),
        ROWS.replace("image,caption", "File Name,COMMENT").encode(), ROWS.replace("a.jpg", '"a.jpg"').encode(),
        ROWS.replace("a.jpg", "a").encode(), ROWS.replace("\n", "\n,,\n").encode(),
        ROWS.replace("image,caption", "caption,image").replace("a.jpg,A red bird", "A red bird,a.jpg")
        .replace("b.jpg,A blue bird", "A blue bird,b.jpg").replace("a.jpg,It sits", "It sits,a.jpg").encode(),
    ],
    ids=["BOM", "UTF-16", "CR-LF", "blank lines", "semicolon", "tab", "pipe", "sep=;", "sep=@", "names", "quoted",
         "no ending", "empty rows", "columns turned"],
)  # fmt: skip
def test_a_table_is_read_whatever_wrote_it(read, content):
    assert captions(read(content)) == {"a.jpg": ("A red bird", "It sits"), "b.jpg": ("A blue bird",)}


def test_quoted_cells_hold_line_breaks_separators_and_quotes(read):
    source = read('image,caption\na.jpg,"A ""red"", big\nbird;\r\nsitting"\nb.jpg,Größe 2\n')
    assert captions(source) == {"a.jpg": ('A "red", big bird; sitting',), "b.jpg": ("Größe 2",)}


def test_quotes_between_tabs_that_are_no_quoting_are_characters(read):
    source = read('image\tcaption\na.jpg\t"Look" he says\nb.jpg\t5" tall\na.jpg\t"open\n')
    assert captions(source) == {"a.jpg": ('"Look" he says', '"open'), "b.jpg": ('5" tall',)}


@pytest.mark.parametrize("row", ['a.jpg,"Look" he says', 'a.jpg,"never closed\nb.jpg,x'])
def test_a_broken_quote_between_commas_is_named_by_line(read, row):
    with pytest.raises(UserError, match=r"table\.csv:[34]: .*quote.* must be doubled"):
        read(f"image,caption\nb.jpg,fine\n{row}\n")


def test_other_columns_are_named_by_flags(read):
    content = "id,pic,says,what,part\n1,a.jpg,red,x,train\n2,b.jpg,blue,y,test\n"
    columns = {"image": "Pic", "caption": "says", "class": "what", "split": "part"}
    source = read(content, columns=columns)
    assert [(p.name, p.captions, p.label, p.split) for p in source.pictures] == [
        ("a.jpg", ("red",), "x", "train"), ("b.jpg", ("blue",), "y", "test"),
    ]  # fmt: skip
    assert source.split_by == "a column of table.csv"
    with pytest.raises(
        UserError, match=r"no column called 'nothing' among 'id, pic, says, what, part'.*--class-column"
    ):
        read(content, columns={**columns, "class": "nothing"})


@pytest.mark.parametrize(
    "header, complaint",
    [
        ("picture;words", r"no column of the images among 'picture, words'; name it by --image-column"),
        ("image,words", r"no column of the captions .*--caption-column"),
        ("image,image,caption", r"two columns are called 'image'"),
        ("", "no column of the images"),
    ],
)
def test_a_table_without_the_columns_is_refused(read, tmp_path, header, complaint):
    with pytest.raises(UserError, match=rf"table\.csv: .*{complaint}"):
        read(f"{header}\na.jpg,x,y\n")
    assert table.fault(tmp_path / "table.csv", {}).startswith("table.csv: ")


@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
def test_a_caption_in_the_last_column_keeps_separators_that_nobody_quoted(read, sign):
    rows = ["image,caption", "a.jpg,a bird, with a comma", 'b.jpg,"a bird", it,sits', "a.jpg,small,,", "b.jpg,x, , y"]
    source = read("\n".join(rows).replace(",", sign))
    expected = {"a.jpg": ["a bird, with a comma", "small"], "b.jpg": ["a bird, it,sits", "x, , y"]}
    assert captions(source) == {  # within a caption, a tab is a space, and several are one
        name: tuple(" ".join(text.replace(",", sign).split()) for text in texts) for name, texts in expected.items()
    }
    assert source.left_out.lines() == []


@pytest.mark.parametrize("header", ["image,caption,,", "image,caption, "])
def test_columns_without_a_name_do_not_cut_a_caption(read, header):
    source = read(f"{header}\na.jpg,a bird, with a comma,\nb.jpg,small,,\n")
    assert captions(source) == {"a.jpg": ("a bird, with a comma",), "b.jpg": ("small",)}


@pytest.mark.parametrize(
    "header, row", [("caption,image", "big, red,a.jpg"), ("image,caption,class", "a.jpg,big, red,x")]
)
def test_a_row_whose_caption_cannot_be_told_from_other_cells_is_left_out(read, header, row):
    sound = {"caption,image": "red,b.jpg", "image,caption,class": "b.jpg,red,x,,"}[header]
    source = read(f"{header}\n{row}\n{sound}\n")
    assert captions(source) == {"b.jpg": ("red",)}
    assert source.left_out.lines() == [
        "rows with more cells than the header (a caption that holds the separator must be quoted): 1 (table.csv:2)"
    ]


def test_absolute_names_within_the_folder_are_found_and_no_others(read, tmp_path, draw):
    draw(tmp_path.parent / f"{tmp_path.name}-beside/out.jpg")
    (tmp_path / "way").symlink_to(tmp_path, target_is_directory=True)
    names = ["a.jpg", "way/b.jpg", "sub/../sub/c.jpg", f"../{tmp_path.name}-beside/out.jpg", "gone.jpg"]
    source = read("image,caption\n" + "".join(f"{tmp_path}/{name},x\n" for name in names))
    assert [picture.name for picture in source.pictures] == ["a.jpg", "sub/c.jpg", "way/b.jpg"]
    assert [line.split(":")[0] for line in source.left_out.lines()] == [
        "rows with a name that is none of a file within the folder", "pictures that are named but not there",
    ]  # fmt: skip
    through = read(f"image,caption\n{tmp_path}/a.jpg,x\n", images=tmp_path / "way")
    assert [picture.name for picture in through.pictures] == ["a.jpg"]


def test_names_lead_to_pictures_of_another_folder_and_its_sub_folders(read, tmp_path, draw):
    draw(tmp_path / "elsewhere/Images/d.png")
    source = read("image,caption\nd.png,x\nImages\\d.png,y\n", images=tmp_path / "elsewhere")
    assert captions(source) == {"Images/d.png": ("y",)} and source.root == tmp_path / "elsewhere"
    assert any(line.startswith("pictures that rows call by two names: 1 (d.png") for line in source.left_out.lines())


def test_rows_that_cannot_be_used_are_counted(read):
    rows = [
        "a.jpg,fine,x", "gone.jpg,there is none,x", "../a.jpg,leads out,x", "/etc/passwd,absolute,x", "b.jpg,🐦,x",
        "b.jpg,,x", ",no image,x", "b.jpg", "sub/c.jpg,one,x", "sub/c.jpg,two,y", f"a.jpg,{'a' * 20_001},x",
    ]  # fmt: skip
    source = read("image,caption,class\n" + "\n".join(rows))
    assert captions(source) == {"a.jpg": ("fine",)}
    counts = {line.split(":")[0]: line.split(": ")[1] for line in source.left_out.lines()}
    assert counts == {
        "rows without an image, a caption or all columns": "3 (table.csv:7, table.csv:8, table.csv:9)",
        "rows with a name that is none of a file within the folder": "2 (../a.jpg, /etc/passwd)",
        NO_WORD: "1 (b.jpg)",
        "pictures that are named but not there": "1 (gone.jpg)",
        "pictures to which rows give two classes or splits": "1 (sub/c.jpg)",
    }


def test_a_split_column_is_taken_in_all_its_spellings(read):
    source = read("image,caption,split\na.jpg,x,Training\nb.jpg,x,VAL\nsub/c.jpg,x,test\n")
    assert [(p.name, p.split) for p in source.pictures] == [
        ("a.jpg", "train"), ("b.jpg", "train"), ("sub/c.jpg", "test"),
    ]  # fmt: skip
    assert source.split_by == "a column of table.csv, val counted as train"
    with pytest.raises(UserError, match=r"table\.csv:3: the split 'part 1' is unknown; expected train, val or test"):
        read("image,caption,split\na.jpg,x,train\nb.jpg,x,part 1\n")
    with pytest.raises(UserError, match=r"table\.csv: the row of b\.jpg says no split"):
        read("image,caption,split\na.jpg,x,train\nb.jpg,x,\n")


def test_what_is_no_table_is_refused_by_name(read):
    for content in (b"", b"\0\1\2", b"<!DOCTYPE html><html>"):
        with pytest.raises(UserError, match=r"table\.csv: "):
            read(content)
    with pytest.raises(UserError, match=r"table\.csv:3: field larger"):
        read("image,caption\nb.jpg,x\na.jpg," + "a" * 200_000 + "\n")
