"""What users, schedulers and strangers type and hand over by mistake: tables of commands, folders, files.

Each row is a mistake. :mod:`.test_bad_inputs` expects of every one exit code 2, one line on stderr that says what is
wrong, and nothing half done.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

# ---------------------------------------------------------------------------------------------- words of commands

#: words that stand for themselves; RUN is a run of the domain ring, which is trained
COMMANDS = """
trane; --frobnicate; -v; ''; train train; =; domain=ring; RUN; Train domain=ring; help=me; --help=train; TRAIN
train; train domain; train domain=; train domain=''; train domain=null; train domain=[ring]; train domain={a: 1}
train domain=3; train domain=true; train domain=nan; train domain=ring/; train domain=../ring; train DOMAIN=ring
train domain=ring domain=; train domain=ring preset=; train domain=ring preset=nothing; train domain=ring preset=true
train domain=ring preset=3; train domain=ring preset=../small; train domain=ring preset=[small]
train domain=ring run=''; train domain=ring run=[a]; train domain=ring run={a: 1}; train domain=ring run=false
train domain=ring run=true; train domain=ring run=RUN; train domain=ring run=RUN/config.yaml
train domain=ring run=/proc/none; train domain=ring run=/dev/null/x; train domain=ring resume=RUN
train resume=; train resume=null; train resume=[RUN]; train resume=RUN/config.yaml; train resume=/dev/null
train resume=RUN seed=3; train resume=RUN data.radius=3; train resume=RUN network.width=8; train -m resume=RUN
train resume=RUN optimizer.lr=3; train resume=RUN domain=ring; train resume=RUN trainer.max_steps=nan
train resume=RUN trainer.max_steps=0; train resume=RUN trainer.nothing=1; train resume=RUN run=elsewhere
train resume=RUN from=RUN; train from=; train from=nothing; train from=RUN/config.yaml; train from=3; train from=[RUN]
train -m from=RUN seed=1,2; train from=RUN domain=image; train from=RUN network.nothing=1; train join=; train join=RUN/x
train domain=ring seed=; train domain=ring seed=-0.5; train domain=ring seed=1e3; train domain=ring seed=[1]
train domain=ring seed=99999999999999999999999; train domain=ring seed=0x10; train domain=ring seed='1'
train domain=ring data=; train domain=ring data=[]; train domain=ring data=null; train domain=ring data.=3
train domain=ring .data=3; train domain=ring data.points.x=3; train domain=ring data.points={x: 3}
train domain=ring data={points: x}; train domain=ring data={pints: 3}; train domain=ring data={points: {x: 1}}
train domain=ring data.points=[3]; train domain=ring data.points=1,2; train domain=ring data.points=range(3)
train domain=ring data.points=choice(1,2); train domain=ring data.points=${seed}x; train domain=ring data.points=${data}
train domain=ring data.points=${data.points}; train domain=ring data.points=${oc.env:NOTHING_AT_ALL}
train domain=ring data.points=${now:}; train domain=ring data.points=; train domain=ring data.points='3'
train domain=ring data.points="3; train domain=ring data.points={; train domain=ring +data.points=3
train domain=ring ~data; train domain=ring ~data.points; train domain=ring ~nothing; train domain=ring ++nothing=1
train domain=ring +domain=ring2; train domain=ring data@x=3; train domain=ring hydra.nothing=1
train domain=ring hydra=3
train domain=ring hydra/launcher=nothing; train domain=ring --cfg; train domain=ring --cfg all; train domain=ring -c
train domain=ring --cfg job --package nothing; train domain=ring --config-name x; train domain=ring --config-dir x
train domain=ring --multirun=x; train domain=ring -m data.points=[; train domain=ring -m data.nothing=1,2
train -m domain=ring,nothing; train -m domain=; train -m domain=ring preset=small,nothing
train domain=ring trainer.max_steps=2**3
train domain=ring trainer.devices=''
train domain=ring trainer.nodes=2; train domain=ring trainer.nodes=0; train domain=ring trainer.devices=1.5
train domain=ring trainer.devices=[0]; train domain=ring trainer.devices=0,
train domain=ring trainer.devices='-1'; train domain=ring trainer.devices=0,999; train domain=ring trainer.devices=gpu
train domain=ring trainer.strategy=''; train domain=ring trainer.strategy=3; train domain=ring trainer.strategy=DDP
train domain=ring trainer.accelerator=GPU; train domain=ring trainer.precision=16
train domain=ring trainer.precision=64
train domain=ring trainer.threads=1000000; train domain=ring trainer.threads=0.5; train domain=ring trainer.threads=''
train domain=ring trainer.ema=1.5; train domain=ring trainer.ema=nan; train domain=ring trainer.gradient_clip=nan
train domain=ring trainer.gradient_clip=inf; train domain=ring optimizer.final=nan; train domain=ring optimizer.lr=inf
train domain=ring optimizer.decay=0; train domain=ring optimizer.beta1=nan; train domain=ring optimizer.beta2=1.1
train domain=ring optimizer.weight_decay=nan; train domain=ring optimizer.lr=1e400; train domain=ring optimizer.lr=1e-
train domain=ring network.width=99999999999; train domain=ring objective.x=1
train domain=ring trust=; train domain=ring trust=1; train domain=ring data.radius=+-3
train domain=ring data.radius=3nm
train domain=ring data.radius=3,5; train domain=ring data.radius=1e999; train domain=ring data.radius=.inf
sample; sample nothing; sample RUN RUN; sample RUN/config.yaml; sample RUN/metrics.csv; sample /dev/null; sample .
sample RUN n=; sample RUN n=''; sample RUN n=0; sample RUN n=1e3; sample RUN n={a: 1}; sample RUN n=99999999999999999999
sample RUN first=-1; sample RUN first=1.5; sample RUN seed=1.5; sample RUN seed=-3; sample RUN seed=null
sample RUN seed=99999999999999999999999; sample RUN steps=0; sample RUN steps=1e9; sample RUN steps=[1]
sample RUN batch=0; sample RUN batch=nan; sample RUN batch=[1]; sample RUN device=gpu; sample RUN device=cuda:-1
sample RUN device=mps:9; sample RUN device=null; sample RUN device=meta9; sample RUN device=; sample RUN solver=eular
sample RUN solver=[]; sample RUN solver=true; sample RUN trajectory=1; sample RUN out=
sample RUN out=null; sample RUN out=[x]; sample RUN out=RUN/config.yaml; sample RUN out=/proc/x; sample RUN nn=3
sample RUN spread=-1; sample RUN spread={}; sample RUN data.radius=3; sample RUN domain=ring; sample RUN --cfg all
sample RUN preset=small; sample RUN ~seed; sample RUN trust=maybe; sample -m RUN steps=1,
sample RUN n=3 --fast; sample RUN solver=flow_map
evaluate; evaluate nothing; evaluate nothing domain=ring; evaluate RUN RUN; evaluate RUN n=-1; evaluate RUN n=x
evaluate RUN domain=nothing; evaluate RUN domain=; evaluate -m RUN n=1,2; evaluate RUN untrained=; evaluate RUN steps=0
evaluate RUN untrained=2; evaluate RUN out=; evaluate RUN metrics=3; evaluate RUN metrics.x=3; evaluate RUN seed=x
evaluate RUN trajectory=true; evaluate RUN batch=0; evaluate RUN device=gpu; evaluate RUN solver=nothing
evaluate RUN n=2 batch=-3; evaluate RUN n=2 device=cuda:77; evaluate RUN n=2 spread=nan; evaluate RUN first=-2
evaluate RUN/config.yaml domain=ring; evaluate RUN domain=ring data.radius=x; evaluate . domain=ring
domains x y; domains nothing; domains ''; domains -x; domains domain=ring; info x y; info nothing; info ''; info .
info RUN/config.yaml; info --verbose; info run=RUN; models nothing; models add; models add x y; models add nothing
models add RUN; models add RUN/config.yaml; models remove x; models add /dev/null; models add hf:; models add hf:x
models add hf:a/b sha256=3; push; push RUN; push RUN to=a/b; push nothing to=a/b; push dw4 to=a; push dw4 to=../b
push dw4 to=a/b private=3; push dw4 to=a/b x=1; push dw4 dw4 to=a/b
export; export RUN; export nothing out=a.safetensors; export RUN out=; export RUN out=a.pt; export RUN out=a
export RUN out=a.safetensors half=2; export RUN out=a.safetensors half=; export RUN out=/proc/a.safetensors
export RUN out=a.safetensors x=3; export RUN RUN out=a.safetensors; export RUN out=[a]; export -m RUN out=a.safetensors
new-domain; new-domain Ring; new-domain ring; new-domain 3d; new-domain a-b; new-domain a b; new-domain ''
new-domain ../x; new-domain protein; new-domain x out=; new-domain x out=RUN; new-domain x y=3; new-domain é
""".strip()

# ------------------------------------------------------------------------ options that do not fit their science

#: mistakes that only the domain itself can find, such as words with a meaning of their own
OPTIONS = {
    "point_cloud": """
data.source=nothing; data.source=a:b:c; data.source=lj14; data.source=math:nothing; data.source=nomodule:u
data.source=shapes data.families=cube; data.source=shapes data.families=''; data.train=99999999999999
data.source=shapes data.points=9999999999; network.width=99999999; network.bumps=99999999999
network.layers=99999999; path.std=-1; path.std=0; sample.points=99999; sample.points=3; sample.known=nothing.xyz
network.kind=transformer network.heads=3; data.workers=99999999; data.workers=1000 data.batch=2
""",
    "function": """
data.source=nothing.npz; data.grid=0; data.grid=x; data.grid=8x; data.grid=8x0; data.grid=99999999999; data.grid=1
data.grid=100000x100000; data.sensors=99999999999; data.train=99999999999; network.width=999999999
network.modes=99999999; objective.shown=x; objective.shown=5-2; objective.shown=-1; objective.shown=9999
sample.grid=x; sample.grid=0; sample.grid=4y; sample.grid=-2x; sample.grid=99999999999; sample.observations=none.csv
data.dim=2 data.grid=8x8x8; network.kind=operator network.heads=3; data.source=''; network.layers=99999999
""",
    "image": """
data.source=nowhere; data.held_out=nowhere; data.size=99999999; network.width=9999999; network.multipliers=x
network.multipliers=''; network.multipliers=0; network.multipliers=1-0; network.multipliers=-; network.multipliers=1.5
network.attention=x; network.attention=-3; network.attention=1--2; network.kind=transformer network.patch=3
network.kind=transformer network.width=30 network.head=7; sample.label=99; sample.label=cat
network.multipliers=1-2-2-2-2-2-2; data.workers=-1; network.width=7
""",
    "table": """
data.source=nowhere.csv; data.source=sun; data.columns=x; data.columns=:; data.columns=x:colour
data.columns=x:bounded=1..0; data.condition=nothing; data.train=99999999999999; sample.given=none.csv; data.source=''
sample.label=1; network.waves=99999999; coupling.kind=ot
""",
    "molecule": """
data.source=nothing.sdf; data.elements=Xx; network.width=9999999; path.std=0; network.layers=2000
objective.condition=colour; sample.atoms=20-10; sample.atoms=99999999; sample.target=gap; sample.fragment=none.sdf
""",
    "protein": """
data.dir=nowhere; data.min_length=200; network.width=99999999; network.blocks=99999999; sample.length=99999999
sample.length=100-50; sample.length=-4; sample.length=40-; sample.length=40--50; sample.length=4.5; sample.length=40:50
""",
}

# ------------------------------------------------------------------------------------------------- run folders

YAML = {
    "empty": "", "null": "null\n", "number": "3\n", "text": "domain\n", "list": "- domain\n", "broken": "domain: [\n",
    "tabs": "domain:\n\t- x\n", "no_domain": "version: 0.1.0\n", "domain_number": "domain: 3\nversion: 0.1.0\n",
    "domain_null": "domain: null\n", "domain_list": "domain: [ring]\n", "unknown": "domain: nothing\nversion: 0.1.0\n",
    "version_99": "CONFIG\nversion: 99.0.0\n", "version_9999": "CONFIG\nversion: 9999\n",
    "seed_text": "CONFIG\nseed: x\n", "seed_list": "CONFIG\nseed: [1]\n", "seed_float": "CONFIG\nseed: 1.5\n",
    "seed_negative": "CONFIG\nseed: -1\n", "seed_huge": "CONFIG\nseed: 99999999999999999999999\n",
    "data_number": "CONFIG\ndata: 3\n", "data_list": "CONFIG\ndata: [1]\n", "network_text": "CONFIG\nnetwork: x\n",
    "unknown_option": "CONFIG\nnetwork: {widht: 3}\n", "bad_type": "CONFIG\nnetwork: {width: x}\n",
    "bad_value": "CONFIG\nnetwork: {width: -3}\n", "nan": "CONFIG\ndata: {radius: .nan}\n",
    "inf": "CONFIG\nsample: {spread: .inf}\n", "sample_number": "CONFIG\nsample: 3\n",
    "other_width": "CONFIG\nnetwork: {width: 31}\n", "absurd_width": "CONFIG\nnetwork: {width: 99999999}\n",
    "other_domain": "CONFIG\ndomain: image\n", "env": "CONFIG\nx: ${oc.env:HOME}\n", "self": "CONFIG\nx: ${x}\n",
    "tag": "CONFIG\nx: !!python/name:os.system\n", "anchor": "CONFIG\nx: &a [*a]\n",
    "date": "CONFIG\nnetwork: {width: 2020-01-01}\n",
    "binary": "\udcff\udcfe\udc80", "nul": "domain: ring\0\n", "deep": "x: " + "[" * 3000 + "\n",
    "laughs": "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ),
}  # fmt: skip

# ------------------------------------------------------------------------------------------------------- files


def packed(arrays: dict[str, object]) -> bytes:
    """A .npz file."""
    stream = io.BytesIO()
    np.savez(stream, **{name: np.asarray(value) for name, value in arrays.items()})
    return stream.getvalue()


def array(value: object) -> bytes:
    """A .npy file."""
    stream = io.BytesIO()
    np.save(stream, np.asarray(value), allow_pickle=True)
    return stream.getvalue()


def announced(shape: tuple[int, ...], zeros: int, name: str = "x.npy", kind: str = "<f8") -> bytes:
    """A .npz file whose array announces a shape and holds so many bytes of zeros."""
    head, stream = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": kind, "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(name, head.getvalue() + bytes(zeros))
    return stream.getvalue()


def png(width: int, height: int) -> bytes:
    """A picture that announces a size and holds nothing."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", 0)


BOMB = announced((48 << 20,), 300 << 20)
ATOMS = "".join(f"C {k}.0 0.0 0.0\n" for k in range(3))
SOUND = packed({"x": np.random.default_rng(0).normal(size=(4, 6, 2))})
Content = bytes | str | Callable[[Path], None]
#: files that nothing can be made of, whatever the science
GARBAGE: dict[str, Content] = {
    "empty": b"", "zeros": bytes(4096), "ones": b"\xff" * 999, "text": "these are words\nand more\n", "nul": "a\0b\n",
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x05hello\x94.", "gzip": gzip.compress(b""),
    "cut_gzip": gzip.compress(bytes(range(256)) * 9)[:-30], "zip": b"PK\x05\x06" + bytes(18), "cut_zip": b"PK\x03\x04",
    "html": "<!DOCTYPE html><html><body>404 not found</body></html>\n", "json": json.dumps({"x": [1, 2]}),
    "lfs": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
}  # fmt: skip
ENDINGS = {
    "point_cloud": [".npz", ".npy", ".csv", ".xyz", ".ply", ".pcd", ".off", ".obj", ".pts"],
    "function": [".npz", ".npy", ".csv", ".nc"], "image": [".png", ".npz", ".npy", ".bin", ".tif"],
    "table": [".parquet", ".npz"], "molecule": [".sdf", ".xyz", ".smi"], "protein": [".pdb", ".cif", ".bcif"],
}  # fmt: skip
#: files of the right kind that hold what cannot be meant
FILES: dict[str, dict[str, Content]] = {
    "point_cloud": {
        "bomb.npz": BOMB, "one_point.npz": packed({"x": np.zeros((3, 1, 2))}), "no_cloud.npz": packed({"x": []}),
        "no_point.npz": packed({"x": np.zeros((3, 0, 2))}), "complex.npz": packed({"x": np.ones((2, 3, 2)) * 1j}),
        "bool.npz": packed({"x": np.ones((2, 3, 2), bool)}), "words.npz": packed({"x": [["a", "b"]]}),
        "huge.npz": packed({"x": np.full((2, 3, 2), 1e300)}), "large.npz": packed({"x": np.full((2, 3, 2), 1e30)}),
        "nan.npz": packed({"x": np.full((2, 3, 2), np.nan)}), "inf.npz": packed({"x": np.full((2, 3, 2), np.inf)}),
        "lie.npz": announced((1 << 40, 2), 1 << 12), "object.npy": array([{}, {}]), "scalar.npy": array(3.0),
        "sizes.npz": packed({"x": np.zeros((2, 4, 2)), "sizes": [1.5, 2.5]}), "words.csv": "x,y\na,b\nc,d\n",
        "negative.npz": packed({"x": np.zeros((2, 4, 2)), "sizes": [-1, 3]}), "cut.npz": SOUND[:-40],
        "four.csv": "1,2,3,4\n5,6,7,8\n9,1,2,3\n", "nan.csv": "x,y\nnan,nan\n1,2\n", "short.xyz": f"9\n\n{ATOMS}",
        "one.xyz": "1\n\nC 0 0 0\n", "words.off": "OFF\nx y z\n", "absurd.off": "OFF\n99999999999 0 0\n0 0 0\n",
        "absurd.pcd": "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nPOINTS 99999999999\nDATA ascii\n0 0 0\n",
        "absurd.ply": "ply\nformat ascii 1.0\nelement vertex 99999999999\nproperty float x\nend_header\n0\n",
    },
    "function": {
        "bomb.npz": BOMB, "constant.npz": packed({"x": np.ones((20, 16))}), "one.npz": packed({"x": np.ones((20, 1))}),
        "huge.npz": packed({"x": 1e300 * np.random.default_rng(0).normal(size=(20, 16))}),
        "nan.npz": packed({"x": np.full((20, 16), np.nan)}), "complex.npz": packed({"x": np.ones((20, 16)) * 1j}),
        "none.npz": packed({"x": np.zeros((0, 16))}), "words.csv": "a,b\nx,y\n", "lie.npz": announced((1 << 40,), 99),
        "five_axes.npz": packed({"x": np.zeros((2, 2, 2, 2, 2, 2))}), "object.npy": array([{}, {}]),
        "two.npz": packed({"a": np.zeros((3, 4)), "b": np.zeros((3, 4))}), "cut.npy": array(np.zeros((9, 9)))[:-9],
        "scalar.npy": array(1.0), "classic.nc": b"CDF\x01" + bytes(4), "hdf.nc": b"\x89HDF\r\n\x1a\n" + bytes(99),
    },
    "image": {
        "bomb.npz": BOMB, "absurd.png": png(99999, 99999), "cut.png": png(8, 8), "zero.png": png(0, 0),
        "words.npz": packed({"x": ["a"]}), "float.npz": packed({"x": np.full((9, 8, 8), np.nan)}),
        "none.npz": packed({"x": np.zeros((0, 8, 8), np.uint8)}), "flat.npz": packed({"x": np.zeros(9, np.uint8)}),
        "short.bin": bytes(100), "object.npy": array([{}]), "lie.npy": announced((1 << 40,), 99),
        "channels.npz": packed({"x": np.zeros((9, 8, 8, 7), np.uint8)}),
    },
    "table": {
        "empty.csv": "", "header.csv": "a,b\n", "one.csv": "a,b\n1,2\n", "ragged.csv": "a,b\n1,2\n3\n4,5,6\n",
        "twice.csv": "a,a\n1,2\n3,4\n5,6\n", "constant.csv": "a\n" + "1\n" * 9, "blank.csv": "\n\n\n",
        "nul.csv": "a\0b\n",
        "missing.csv": "a,b\n" + ",\n" * 9, "cut.csv.gz": gzip.compress(b"a,b\n" + b"1,2\n" * 99)[:-9],
        "bomb.csv.gz": gzip.compress(bytes(300 << 20), 1), "quote.csv": 'a,b\n"1,2\n3,4\n',
    },
    "molecule": {
        "empty.sdf": "\n\n\n  0  0  0  0  0  0  0  0  0  0999 V2000\nM  END\n$$$$\n", "words.smi": "no molecule\n",
        "cut.sdf": "\n\n\n  9  9  0  0  0  0  0  0  0  0999 V2000\n", "far.xyz": f"9\n\n{ATOMS}",
        "odd.smi": "C1CC\n((\n",
        "absurd.xyz": f"99999999999\n\n{ATOMS}", "element.xyz": "2\n\nXx 0 0 0\nXx 0 0 1\n",
        "nan.xyz": "1\n\nC nan 0 0\n",
        "negative.xyz": f"-3\n\n{ATOMS}",
    },
    "protein": {
        "header.pdb": "HEADER    NOTHING\nEND\n", "one.pdb": "ATOM      1  CA  ALA A   1       0.000   0.000   0.000\n",
        "same.pdb": "".join(
            f"ATOM  {3 * k + j:5d}  {name:<3} ALA A{k:4d}       0.000   0.000   0.000  1.00  0.00           {name[0]}\n"
            for k in range(60) for j, name in enumerate(("N", "CA", "C"))
        ),
        "loop.cif": "data_x\nloop_\n_atom_site.id\n", "quote.cif": "data_x\nloop_\n_atom_site.id\n'a\n",
        "water.pdb": "HETATM    1  O   HOH A   1       0.000   0.000   0.000  1.00  0.00           O\n",
        "short.bcif": b"\x82", "deep.bcif": b"\x91" * 9999,
    },
}  # fmt: skip


def rows(text: str) -> list[str]:
    """The commands of a table."""
    return [row.strip() for line in text.splitlines() for row in line.split(";") if row.strip()]


def put(content: Content, file: Path) -> Path:
    """Write a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        file.write_bytes(content.encode("utf-8", "surrogateescape"))
    elif isinstance(content, bytes):
        file.write_bytes(content)
    return file
