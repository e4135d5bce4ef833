"""Structure files as programs and people really write them: each kind is read as what it means."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from fm_science.errors import UserError
from fm_science_domains.protein import bcif
from fm_science_domains.protein.atoms import hybrid36
from fm_science_domains.protein.chains import backbones
from fm_science_domains.protein.files import read, read_backbones, read_numbered, write_cif, write_pdb
from fm_science_domains.protein.structure import Backbone

pytest.importorskip("Bio")
LENGTH = 12


@pytest.fixture(scope="module")
def native() -> Backbone:
    whole = backbones(True)[3]
    return Backbone(whole.coords[:LENGTH], whole.sequence[:LENGTH], "native")


@pytest.fixture
def pdb(native, tmp_path) -> list[str]:
    return write_pdb(native, tmp_path / "made.pdb").read_text().splitlines()[1:-2]


@pytest.fixture
def cif(native, tmp_path) -> str:
    return write_cif(native, tmp_path / "made.cif").read_text()


def save(path: Path, content: str | list[str]) -> Path:
    path.write_text(content if isinstance(content, str) else "\n".join(content) + "\n", encoding="latin-1")
    return path


def same(found: Backbone, native: Backbone, shift: float = 0.0) -> None:
    assert found.sequence == native.sequence
    torch.testing.assert_close(found.coords, native.coords + shift, atol=2e-3, rtol=0)


def moved(lines: list[str], shift: float) -> list[str]:
    return [line[:30] + "".join(f"{float(line[k : k + 8]) + shift:8.3f}" for k in (30, 38, 46)) + line[54:]
            for line in lines]  # fmt: skip


@pytest.mark.parametrize("end", [["TER"], []], ids=["TER", "numbering"])
@pytest.mark.parametrize("name", ["A", " "])
def test_two_copies_under_one_name_are_two_chains(tmp_path, native, pdb, end, name):
    pdb = [line[:21] + name + line[22:] for line in pdb]
    first, second = read([save(tmp_path / "x.pdb", [*pdb, *end, *moved(pdb, 30.0), *end, "END"])])
    same(first, native)
    same(second, native, 30.0)
    assert [first.chain, second.chain] == (["A", "A2"] if name == "A" else ["", "2"])
    assert [*read_numbered(tmp_path / "x.pdb")] == [first.chain, second.chain]


def test_names_of_chains_stay_apart(tmp_path, pdb):
    other = [line[:21] + "B" + line[22:] for line in moved(pdb, 60.0)]
    found = read([save(tmp_path / "x.pdb", [*pdb, "TER", *moved(pdb, 30.0), "TER", *other])])
    assert [(b.name, b.chain) for b in found] == [("x_A", "A"), ("x_A2", "A2"), ("x_B", "B")]


def test_numbers_that_fall_end_a_chain_only_where_no_bond_leads_on(tmp_path, native, pdb):
    fusion = [line[:22] + f"{int(line[22:26]) + (1000 if 5 <= int(line[22:26]) < 9 else 0):4d}" + line[26:]
              for line in pdb]  # fmt: skip
    (one,) = read([save(tmp_path / "fusion.pdb", fusion)])
    same(one, native)
    assert one.numbers[3:9] == ("4", "1005", "1006", "1007", "1008", "9")
    apart = [*[line[:22] + f"{int(line[22:26]) + 50:4d}" + line[26:] for line in moved(pdb, 30.0)], *pdb]
    assert [len(b) for b in read([save(tmp_path / "apart.pdb", apart)])] == [LENGTH, LENGTH]


OPTIONAL = ["pdbx_PDB_ins_code", "label_alt_id", "occupancy", "B_iso_or_equiv", "pdbx_PDB_model_num", "auth_seq_id",
            "auth_comp_id", "auth_asym_id", "auth_atom_id", "group_PDB", "type_symbol", "label_entity_id"]  # fmt: skip


def table(cif: str) -> tuple[list[str], list[list[str]]]:
    names = re.findall(r"^_atom_site\.(\S+)", cif, re.MULTILINE)
    return names, [line.split() for line in cif.splitlines() if line.startswith("ATOM")]


def as_cif(names: list[str], rows: list[list[str]]) -> str:
    return "\n".join(["data_x", "loop_", *(f"_atom_site.{n}" for n in names), *map(" ".join, rows), "#", ""])


@pytest.mark.parametrize("columns", [*([c] for c in OPTIONAL), ["occupancy", "B_iso_or_equiv"], OPTIONAL],
                         ids=lambda c: "+".join(c) if len(c) < 3 else "all")  # fmt: skip
@pytest.mark.parametrize("value", [None, ".", "?"])
def test_optional_columns_may_be_absent_or_empty(tmp_path, native, cif, columns, value):
    names, rows = table(cif)
    where = [names.index(c) for c in columns]
    if value is None:
        rows = [[w for k, w in enumerate(row) if k not in where] for row in rows]
        names = [n for n in names if n not in columns]
    else:
        rows = [[value if k in where else w for k, w in enumerate(row)] for row in rows]
    (found,) = read([save(tmp_path / "x.cif", as_cif(names, rows))])
    same(found, native)
    assert (found.chain, found.numbers) == ("A", tuple(map(str, range(1, LENGTH + 1))))


@pytest.mark.parametrize(("share", "kept"), [(0.57, "W"), (0.43, "H"), (0.50, "W")])
@pytest.mark.parametrize("blank", [0, 1], ids=["all", "blankN"])
@pytest.mark.parametrize("kind", ["pdb", "cif"])
def test_one_residue_type_at_each_place(tmp_path, native, pdb, cif, share, kept, blank, kind):
    """Two types share residue 5, the atom N in common or not: the most occupied one is read, the first on a tie."""
    if kind == "pdb":
        at = [k for k, line in enumerate(pdb) if int(line[22:26]) == 5]
        place = [pdb[k] for k in at]
        types = [
            [line[:16] + alt + name + line[20:54] + f"{part:6.2f}" + line[60:] for line in place[blank:]]
            for alt, name, part in (("A", "TRP", share), ("B", "HIS", 1 - share))
        ]
        shared = [line[:17] + "TRP" + line[20:] for line in place[:blank]]
        lines: str | list[str] = [*pdb[: at[0]], *shared, *types[0], *types[1], *pdb[at[-1] + 1 :]]
    else:
        names, rows = table(cif)
        k = {name: names.index(name) for name in names}
        at = [i for i, row in enumerate(rows) if row[k["auth_seq_id"]] == "5"]

        def typed(row: list[str], alt: str, name: str, part: float) -> list[str]:
            changed = {"label_alt_id": alt, "label_comp_id": name, "auth_comp_id": name, "occupancy": f"{part:.2f}"}
            return [changed.get(n, w) for n, w in zip(names, row, strict=True)]

        place = [rows[i] for i in at]
        new = [typed(row, ".", "TRP", 1.0) for row in place[:blank]]
        new += [typed(row, "A", "TRP", share) for row in place[blank:]]
        new += [typed(row, "B", "HIS", 1 - share) for row in place[blank:]]
        lines = as_cif(names, [*rows[: at[0]], *new, *rows[at[-1] + 1 :]])
    (found,) = read([save(tmp_path / f"x.{kind}", lines)])
    same(found, Backbone(native.coords, native.sequence[:4] + kept + native.sequence[5:]))


@pytest.mark.parametrize("header", [
    "HEADER    HYDROLASE                               01-Mai-24   1ABC", "HEADER    HYDROLASE  01-XXX-24   1ABC",
    "HEADER", "HEADER \xe9t\xe9", "REMARK 350 APPLY THE FOLLOWING", "CRYST1  nonsense", "SEQRES", "MODEL",
])  # fmt: skip
def test_nothing_of_a_header_is_needed(tmp_path, native, pdb, header):
    same(read([save(tmp_path / "x.pdb", [header, *pdb, "MASTER  0"])])[0], native)


def test_protonation_states_are_their_amino_acids(tmp_path, pdb):
    names = ["HIE", "HID", "HIP", "HSD", "HSE", "HSP", "CYX", "CYM", "GLH", "ASH", "LYN", "NALA"]
    lines = [line[:17] + f"{names[int(line[22:26]) - 1]:<4s}" + line[21:] for line in pdb]
    (found,) = read([save(tmp_path / "x.pdb", lines)])
    assert found.sequence == "HHHHHHCCEDKA"
    again = write_pdb(found, tmp_path / "again.pdb").read_text()
    assert [line[17:20] for line in again.splitlines() if line[12:16] == " CA "][:2] == ["HIS", "HIS"]


def test_hybrid_36(tmp_path, native, pdb):
    assert [hybrid36(t) for t in ("-999", "9999", "A000", "A001", "ZZZZ", "a000", "zzzz")] == [
        -999, 9999, 10000, 10001, 10000 + 26 * 36**3 - 1, 10000 + 26 * 36**3, 10000 + 52 * 36**3 - 1]  # fmt: skip
    words = [*(str(9994 + k) for k in range(6)), "A000", "A001", "A002", "A003", "A004", "A005"]
    lines = [line[:22] + words[int(line[22:26]) - 1] + line[26:] for line in pdb]
    (found,) = read([save(tmp_path / "x.pdb", lines)])
    same(found, native)
    assert found.numbers[5:7] == ("9999", "10000")


def test_ions_waters_and_ligands_are_left_out(tmp_path, native, pdb):
    def single(group, name, residue, number, chain="A"):
        return f"{group:<6s}  900 {name:<4s} {residue:<3s} {chain}{number:4d}       0.000   0.000  40.000  1.00 20.00"

    extra = [
        single("ATOM", "CA", "CA", 201), single("HETATM", "CA", "CA", 202), single("ATOM", " OW", "SOL", 1),
        single("ATOM", "ZN", "ZN", 203), *(single("HETATM", n, "LIG", 5) for n in (" C", " C", " N", " CA")),
    ]  # fmt: skip
    (found,) = read([save(tmp_path / "x.pdb", [*pdb, *extra])])
    same(found, native)
    (found,) = read([save(tmp_path / "y.pdb", [*extra, *pdb])])
    same(found, native)


def test_the_content_says_what_a_file_is(tmp_path, native, pdb, cif):
    names = [save(tmp_path / "a.pdb", cif), save(tmp_path / "b.cif", pdb)]
    names += [tmp_path / "c.cif", tmp_path / "d.pdb.gz"]
    names[2].write_bytes(gzip.compress(cif.encode()))
    names[3].write_text("\n".join(pdb))
    for name in names:
        same(read([name])[0], native)


def test_one_bad_file_does_not_stop_a_folder(tmp_path, native, pdb, cif):
    (tmp_path / "set").mkdir()
    save(tmp_path / "set" / "good.pdb", pdb)
    bad = {"empty.pdb": b"", "cut.cif.gz": gzip.compress(cif.encode())[:200], "web.pdb": b"<html>404</html>",
           "stars.pdb": "\n".join([*pdb[:9], pdb[9][:30] + "*" * 24 + pdb[9][54:]]).encode(),
           "bomb.pdb.gz": gzip.compress(bytes(1 << 29))}  # fmt: skip
    for name, content in bad.items():
        (tmp_path / "set" / name).write_bytes(content)
    kept, dropped = read_backbones(tmp_path / "set")
    assert [b.name for b in kept] == ["good"]
    reasons = {Path(d.file).name: d.reason for d in dropped}
    assert reasons.keys() == bad.keys()
    assert "empty" in reasons["empty.pdb"]
    assert "web page" in reasons["web.pdb"]
    assert "line 10" in reasons["stars.pdb"]
    assert "no measured data pack so tightly" in reasons["bomb.pdb.gz"]
    assert all("\n" not in reason for reason in reasons.values())
    for name in bad:
        with pytest.raises(UserError, match="no usable protein chain"):
            read([tmp_path / "set" / name])


@pytest.mark.parametrize("kind", ["pdb", "cif"])
def test_chains_keep_their_name_and_numbers(tmp_path, native, kind):
    numbers = ("-4", "-3", "1", "2", "52", "52A", "52B", "53", "60", "61", "62", "63")
    write = write_pdb if kind == "pdb" else write_cif
    made = Backbone(native.coords, native.sequence, chain="H", numbers=numbers)
    (found,) = read([write(made, tmp_path / f"x.{kind}")])
    assert (found.chain, found.numbers) == ("H", numbers)
    same(found, native)


def test_any_bytes_are_read_or_refused_in_one_line(tmp_path, pdb, cif):
    rng = np.random.default_rng(0)
    for k in range(120):
        raw = bytearray(("\n".join(pdb) if k % 2 else cif).encode())
        for _ in range(int(rng.integers(1, 30))):
            raw[rng.integers(len(raw))] = rng.integers(256)
        path = tmp_path / ("x.pdb" if k % 2 else "x.cif")
        path.write_bytes(bytes(raw[: rng.integers(1, len(raw))] if k % 3 == 0 else raw))
        try:
            found = read([path])
        except UserError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert all(bool(b.coords.isfinite().all()) for b in found)


# ---------------------------------------------------------------------------------------------------------- BinaryCIF


def packed_bytes(values: np.ndarray) -> tuple[bytes, list[dict]]:
    code = next(k for k, v in bcif.DTYPES.items() if np.dtype(v) == values.dtype)
    return values.tobytes(), [{"kind": "ByteArray", "type": code}]


def integers(values: list[int]) -> dict:
    """Whole numbers as differences, in entries of one byte, as BinaryCIF packs them."""
    steps = np.diff(np.array(values), prepend=values[0])
    small: list[int] = []
    for step in steps.tolist():
        while step >= 127 or step <= -128:
            small.append(127 if step > 0 else -128)
            step -= small[-1]
        small.append(step)
    data, encoding = packed_bytes(np.array(small, "<i1"))
    size = {"srcSize": len(values)}
    packing = {"kind": "IntegerPacking", "byteCount": 1, "isUnsigned": False, **size}
    return {"data": data, "encoding": [{"kind": "Delta", "origin": values[0], "srcType": 3}, packing, *encoding]}


def runs(values: list[int]) -> dict:
    pairs: list[int] = []
    for value in values:
        if pairs and pairs[-2] == value:
            pairs[-1] += 1
        else:
            pairs += [value, 1]
    data, encoding = packed_bytes(np.array(pairs, "<i4"))
    return {"data": data, "encoding": [{"kind": "RunLength", "srcType": 3, "srcSize": len(values)}, *encoding]}


def words(values: list[str]) -> dict:
    known = [*dict.fromkeys(values)]
    which, ends = runs([known.index(v) for v in values]), integers([0, *np.cumsum([len(w) for w in known]).tolist()])
    return {"data": which["data"], "encoding": [{
        "kind": "StringArray", "dataEncoding": which["encoding"], "stringData": "".join(known),
        "offsets": ends["data"], "offsetEncoding": ends["encoding"],
    }]}  # fmt: skip


def fixed(values: list[float]) -> dict:
    whole = integers([round(1000 * v) for v in values])
    return {**whole, "encoding": [{"kind": "FixedPoint", "factor": 1000, "srcType": 33}, *whole["encoding"]]}


def test_binary_cif(tmp_path, native, cif):
    msgpack = pytest.importorskip("msgpack")
    names, rows = table(cif)
    columns = []
    for k, name in enumerate(names):
        cells = [row[k] for row in rows]
        mask = None if not {".", "?"} & {*cells} else runs([".?".find(c) + 1 for c in cells])
        whole, real = name in ("id", "auth_seq_id", "label_seq_id"), name.startswith("Cartn")
        data = integers([*map(int, cells)]) if whole else fixed([*map(float, cells)]) if real else words(cells)
        columns.append({"name": name, "data": data, "mask": mask})
    block = {"header": "X", "categories": [{"name": "_atom_site", "rowCount": len(rows), "columns": columns}]}
    raw = msgpack.packb({"encoder": "here", "version": "0.3.0", "dataBlocks": [block]})
    (tmp_path / "x.bcif").write_bytes(raw)
    (tmp_path / "y.bcif.gz").write_bytes(gzip.compress(raw))
    for name in ("x.bcif", "y.bcif.gz"):
        same(read([tmp_path / name])[0], native)
    (tmp_path / "cut.bcif").write_bytes(raw[: len(raw) // 2])
    with pytest.raises(UserError, match="cannot be read as BinaryCIF"):
        read([tmp_path / "cut.bcif"])


def test_intervals_and_large_numbers_of_binary_cif():
    data, encoding = packed_bytes(np.array([0, 5, 10], "<u1"))
    steps = {"kind": "IntervalQuantization", "min": -1.0, "max": 4.0, "numSteps": 11, "srcType": 33}
    assert bcif._decoded({"data": data, "encoding": [steps, *encoding]}).tolist() == [-1.0, 1.5, 4.0]
    values = [0, 5, -300, 100_000, 254, 255, 256, -128, 127]
    assert bcif._decoded(integers(values)).tolist() == values
    assert bcif._decoded(runs(values)).tolist() == values
    with pytest.raises(ValueError, match="do not add up"):
        bcif._decoded({**runs(values), "encoding": [{"kind": "RunLength", "srcType": 3, "srcSize": 8},
                                                    *packed_bytes(np.array([0], "<i4"))[1]]})  # fmt: skip
