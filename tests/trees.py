"""Datasets in miniature under their published names: path -> bytes of small drawn images and their tables."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

Tree = dict[str, bytes]
TRAINING, TOP = "C-NMC_training_data", "C-NMC_Leukemia"
PRELIMINARY = "C-NMC_test_prelim_phase_data"
FINAL = "C-NMC_test_final_phase_data"
LABELS = f"{PRELIMINARY}/{PRELIMINARY}_labels.csv"


def drawn(seed: int, kind: str = "bmp", width: int = 24, height: int = 24) -> bytes:
    """A smooth picture that no other seed's perceptual hash comes near, encoded as ``kind``."""
    coarse = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    sink = io.BytesIO()
    picture = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    picture.save(sink, {"jpg": "jpeg", "tif": "tiff"}.get(kind, kind))
    return sink.getvalue()


def cnmc(per_subject: int = 1) -> Tree:
    """Three folds of two subjects a class, two preliminary and two final images, numbered alike."""
    tree: Tree = {}
    for fold in range(3):
        for kind, subjects in (
            ("all", (f"{fold + 1}", f"{fold + 11}")),
            ("hem", (f"H{fold + 1}", f"H{fold + 11}")),
        ):
            for subject in subjects:
                for cell in range(1, per_subject + 1):
                    name = f"UID_{subject}_{cell}_1_{kind}.bmp"
                    tree[f"{TRAINING}/fold_{fold}/{kind}/{name}"] = drawn(len(tree))
    for folder in (PRELIMINARY, FINAL):
        for number in (1, 2):
            tree[f"{folder}/{folder}/{number}.bmp"] = drawn(len(tree))
    rows = ("Patient_ID,new_names,labels", "UID_57_29_1_all.bmp,1.bmp,1", "UID_H49_29_3_hem.bmp,2.bmp,0")
    tree[LABELS] = "\r\n".join(rows).encode()
    return tree


def idb1(images: int = 4) -> Tree:
    """Fields; those of patients first, with as many centroids as their number."""
    tree: Tree = {}
    for number in range(1, images + 1):
        blast = int(number <= images // 2)
        tree[f"ALL_IDB1/im/Im{number:03d}_{blast}.jpg"] = drawn(number, "jpg", 48, 36)
        points = "".join(f"{10 * i}\t{10 * i + 5}\r\n" for i in range(1, number + 1)) if blast else ""
        tree[f"ALL_IDB1/xyc/Im{number:03d}_{blast}.xyc"] = points.encode()
    return tree


def idb2(images: int = 4) -> Tree:
    """Single cells."""
    names = [f"ALL_IDB2/img/Im{n:03d}_{int(n <= images // 2)}.tif" for n in range(1, images + 1)]
    return {name: drawn(seed, "tif") for seed, name in enumerate(names)}


def snam(images: int = 2) -> Tree:
    """Fields in the two folders, below one whose name holds both of theirs."""
    folders = ("SN-AM-BALL-MM/B-ALL", "SN-AM-BALL-MM/MM")
    return {f"{f}/{n}.bmp": drawn(n, "bmp", 64, 48) for f in folders for n in range(1, images + 1)}


TREES = {"c-nmc": cnmc, "all-idb1": idb1, "all-idb2": idb2, "sn-am": snam}


def plant(tree: Tree, root: Path) -> Path:
    """Write a tree below ``root``, which is returned."""
    for name, data in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root
