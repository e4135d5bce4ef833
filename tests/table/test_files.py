"""Tables as people write them, and what is wrong with them in one line."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from fm_science.errors import UserError
from fm_science_domains.table.files import Frame, read

NAN = float("nan")


def written(tmp_path: Path, text: str, name: str = "a.csv", encoding: str = "utf-8") -> Path:
    (tmp_path / name).write_bytes(text.encode(encoding))
    return tmp_path / name


def numbers(frame: Frame) -> list[list[float]]:
    return [s.numbers.tolist() for s in frame.series if s.numbers is not None]


PLAIN = [[1.5, 2.0], [-3.0, 0.25]]


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1.5,-3\n2,0.25\n",
        "a,b\r\n1.5,-3\r\n2,0.25\r\n",
        "\ufeffa,b\n1.5,-3\n2,0.25\n",
        "a;b\n1,5;-3\n2;0,25\n",
        "a\tb\n1,5\t-3\n2\t0,25\n",
        "a\tb\n1.5\t-3\n2\t0.25\n",
        "a|b\n1.5|-3\n2|0.25\n",
        "a b\n1.5   -3\n 2  0.25\n",
        '"a","b"\n"1.5","-3"\n"2","0.25"\n',
        "# made today\na, b\n1.5, -3\n# half way\n2, 0.25\n",
        "a,b,\n1.5,-3,\n2,0.25,\n",
        "# a b\n1.5 -3\n2 0.25\n",
        "a,b\n\n1.5,-3\n\n2,0.25\n",
    ],
)
def test_the_same_table_in_many_ways(tmp_path: Path, text: str) -> None:
    frame = read(written(tmp_path, text))
    assert frame.names == ("a", "b")
    assert frame.header
    assert numbers(frame) == PLAIN


def test_without_a_header_columns_get_names(tmp_path: Path) -> None:
    frame = read(written(tmp_path, "1.5,-3\n2,0.25\n"))
    assert frame.names == ("x1", "x2")
    assert not frame.header
    assert numbers(read(written(tmp_path, "1,2\n3,4\n"), header="yes")) == [[3.0], [4.0]]
    assert read(written(tmp_path, "red,1\nblue,2\n")).names == ("x1", "x2")


def test_missing_cells_are_spelt_in_many_ways(tmp_path: Path) -> None:
    text = "a,b\n1,x\nNA,\nnan,n/a\n?,NULL\n,-\n2,y\n"
    a, b = read(written(tmp_path, text)).series
    assert a.numbers is not None
    assert np.isnan(a.numbers).tolist() == [False, True, True, True, True, False]
    assert a.whole
    assert b.texts == ("x", None, None, None, None, "y")
    assert b.numbers is None


def test_words_may_hold_the_sign_that_parts_cells_and_be_of_any_alphabet(tmp_path: Path) -> None:
    frame = read(written(tmp_path, 'a,b\n1,"red, dark"\n2,größer\n', encoding="cp1252"))
    assert frame.series[1].texts == ("red, dark", "größer")
    with gzip.open(tmp_path / "b.csv.gz", "wt", encoding="utf-8") as stream:
        stream.write("a,b\n1,2\n")
    assert numbers(read(tmp_path / "b.csv.gz")) == [[1.0], [2.0]]
    assert read(written(tmp_path, "a,b\n1,2\n", encoding="utf-16")).names == ("a", "b")


def test_a_row_over_two_lines_counts_from_where_it_begins(tmp_path: Path) -> None:
    frame = read(written(tmp_path, 'a,b\n"one\ntwo",2\nthree,4\n'))
    assert frame.series[0].texts is not None
    assert frame.series[0].texts[1] == "three"
    with pytest.raises(UserError, match="line 4: 3 cells"):
        read(written(tmp_path, 'a,b\n"one\ntwo",2\n1,2,3\n'))


def test_arrays(tmp_path: Path) -> None:
    rows = np.array([[1.0, 2.0], [NAN, 4.0]])
    np.save(tmp_path / "a.npy", rows)
    assert read(tmp_path / "a.npy").names == ("x1", "x2")
    np.savez(tmp_path / "a.npz", data=rows, columns=["p", "q"])
    assert read(tmp_path / "a.npz").names == ("p", "q")
    np.savez(tmp_path / "b.npz", t=np.arange(3), kind=np.array(["a", "", "b"]))
    assert [s.whole for s in read(tmp_path / "b.npz").series] == [True, False]
    record = np.array([(1, 2.5), (2, 3.5)], dtype=[("n", int), ("v", float)])
    np.save(tmp_path / "c.npy", record)
    assert numbers(read(tmp_path / "c.npy")) == [[1.0, 2.0], [2.5, 3.5]]


def test_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table({"n": [1, None, 3], "v": [0.5, 1.5, None], "w": ["a", None, "b"], "t": [True, False, None]})
    pq.write_table(table, tmp_path / "a.parquet")
    n, v, w, t = read(tmp_path / "a.parquet").series
    assert n.whole
    assert not v.whole
    assert n.numbers is not None
    assert np.isnan(n.numbers[1])
    assert w.texts == ("a", None, "b")
    assert t.texts == ("true", "false", None)


def test_a_data_frame() -> None:
    pd = pytest.importorskip("pandas")
    frame = read(pd.DataFrame({"n": [1, 2], "w": ["a", None], "b": [True, False]}))
    assert frame.names == ("n", "w", "b")
    assert frame.series[1].texts == ("a", None)
    assert read(pd.DataFrame({"n": [1, None]})).series[0].whole  # which pandas keeps as floats


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n3\n", "line 3: 1 cells, and the header names 2"),
        ("1,2\n3,4,5\n", "line 2: 3 cells, and the first row has 2"),
        ("", "holds no rows"),
        ("a,b\n", "holds no rows"),
        ("# nothing\n", "holds no rows"),
        ("a,a\n1,2\n", "column 'a' occurs twice"),
    ],
)
def test_wrong_tables_get_one_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        read(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_wrong_files_get_one_line(tmp_path: Path) -> None:
    np.save(tmp_path / "cube.npy", np.zeros((2, 3, 4)))
    np.savez(tmp_path / "object.npz", x=np.array([{}], dtype=object))
    (tmp_path / "a.npy").write_bytes(b"nothing")
    (tmp_path / "a.parquet").write_bytes(b"nothing")
    (tmp_path / "a.xlsx").write_bytes(b"nothing")
    (tmp_path / "a.csv").write_bytes(b"\0\1\2")
    for name in ("cube.npy", "object.npz", "a.npy", "a.xlsx", "a.csv", "none.csv", "a.parquet"):
        with pytest.raises(UserError) as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)
