import pytest

from sam_deploy.class_names import imagenet_names, names_for, read_class_names
from sam_deploy.errors import InputError


def write(tmp_path, content):
    path = tmp_path / "names.txt"
    path.write_bytes(content)
    return path


def test_imagenet_names_are_in_order():
    names = imagenet_names()
    assert len(names) == len(set(names)) == 1000
    assert all(name and name == name.strip() for name in names)
    known = {0: "tench", 1: "goldfish", 207: "golden retriever", 281: "tabby", 999: "toilet tissue"}
    assert {index: names[index] for index in known} == known
    assert (names[134], names[517]) == ("crane bird", "crane")  # not swapped, as some lists are


@pytest.mark.parametrize(
    "content",
    [b"cat\ndog", b"cat\ndog\n", b"cat\r\ndog\r\n\r\n", b"\xef\xbb\xbfcat\n dog \n\n \n"],
)
def test_reads_one_name_a_line(tmp_path, content):
    assert read_class_names(write(tmp_path, content)) == ("cat", "dog")


def test_reads_utf8_and_splits_at_line_ends_only(tmp_path):
    names = ("köttbullar", "line\u2028separator", "猫")
    assert read_class_names(write(tmp_path, "\n".join(names).encode())) == names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no class names"),
        (b"\n \n", "holds no class names"),
        (b"cat\n\ndog\n", "line 2 is blank"),
        (b"\ncat\n", "line 1 is blank"),
        (b"cat\n\xff\xfe", r"not UTF-8 \(byte 4\)"),
    ],
)
def test_refuses_what_is_not_a_list_of_names(tmp_path, content, message):
    with pytest.raises(InputError, match=rf"names\.txt.*{message}"):
        read_class_names(write(tmp_path, content))


def test_refuses_missing_files_and_folders(tmp_path):
    with pytest.raises(InputError, match=r"none\.txt: No such file"):
        read_class_names(tmp_path / "none.txt")
    with pytest.raises(InputError, match="cannot read class names"):
        read_class_names(tmp_path)


def test_names_for(tmp_path):
    path = write(tmp_path, b"cat\ndog\n")
    assert names_for(2, path) == ("cat", "dog")
    assert names_for(1000, None) == imagenet_names()
    assert names_for(21841, None) == ()
    with pytest.raises(InputError, match="holds 2 class names, but the model has 3 classes"):
        names_for(3, path)
