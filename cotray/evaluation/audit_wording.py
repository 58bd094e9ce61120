"""What the audits of leaks and shortcuts say, in plain words; each finding with what to do about it."""

from __future__ import annotations

from collections.abc import Sequence

from cotray.evaluation.leaks import Cluster, LeakAudit
from cotray.evaluation.shortcuts import PROBES, Probe, ShortcutAudit
from cotray.evaluation.wording import figure_text
from cotray.imaging.regions import Fractions

MUCH = 0.75
"""AUROC from which a probe says much, though it does not give the class away."""
CURES = {
    "file_size": "No model sees the file, but the classes were stored in different ways or show different "
    "things: pass all images through the same software, and look at what else differs.",
    "dimensions": "The classes have other sizes: crop or scale them alike before anything else, or the "
    "cut-outs of the two will be scaled differently.",
    "metadata": "No model sees the file's metadata, but the classes came through different cameras or "
    "software, and that shows in the pixels, too: export all images alike.",
    "border": "Something along the edge differs by class: crop the frame of all images alike.",
    "corner": "Something in that corner differs by class: look at it, and blank it if it is no part of the "
    "smear.",
    "background": "Stain, light or smear differ by class where there is no cell. Cells are cut out on black, "
    "so this part is not seen; but the same stain is in the cells. Read figures beside colour alone.",
    "colour": "Stain and light differ by class. Only figures well above this one show more than that; "
    "enhance.stain can even out stains.",
}


def headline(leaks: LeakAudit, shortcuts: ShortcutAudit | None) -> str:
    """The whole audit in one sentence."""
    copies = f"{leaks.count_text()} that are the same or nearly" if leaks.clusters else "no copies"
    if shortcuts is None:
        return f"Among {leaks.images:,} images there are {copies}; shortcuts were not measured."
    telling = sorted(shortcuts.probes, key=lambda probe: -probe.auroc)
    names = [PROBES[probe.name] for probe in telling if probe.gives_away]
    told = (
        f"can be told from {' or '.join(names)} alone" if names else "cannot be told from any shortcut alone"
    )
    return f"The class {told}; among {leaks.images:,} images there are {copies}."


def leak_findings(leaks: LeakAudit, split_mode: str = "disjoint") -> list[str]:
    """Sentences about duplicates, the most important first."""
    if not leaks.clusters:
        return [f"No two of the {leaks.images:,} images are the same or nearly the same."]
    found = [
        f"{leaks.exact_images:,} of {leaks.images:,} files are exact copies, in {leaks.exact_groups:,} "
        f"groups; {leaks.near_pairs:,} pairs of different pictures are nearly the same (at most "
        f"{leaks.max_bits} of 64 bits of their hashes differ). Together they form {leaks.count_text()}."
    ]
    if conflicts := leaks.count("conflict"):
        found.insert(
            0,
            f"{_clusters(conflicts)} both normal and malignant: a label is wrong, or different cells look "
            "alike. Look at them first.",
        )
    for what, text in (
        ("subjects", "several subjects: the same picture is filed under more than one of them"),
        ("folds", "several published folds: those folds leak, a split by them does not keep copies together"),
        ("leaks", f"several sides of this split (split.mode={split_mode}): the test side was partly learned"),
    ):
        if number := leaks.count(what):
            found.append(f"{_clusters(number)} {text}.")
    if not leaks.count("leaks"):
        found.append("No cluster is on two sides of this split.")
    return found


def _clusters(number: int) -> str:
    return f"{number:,} cluster spans" if number == 1 else f"{number:,} clusters span"


def cluster_text(cluster: Cluster) -> str:
    """One cluster: how many, how alike, what it spans."""
    pictures = cluster.pictures
    alike = "exact copies" if pictures == 1 else f"near-duplicates, {pictures} different pictures"
    parts = [f"{len(cluster.images)} files: {alike}"]
    for name, names in (("class", cluster.classes), ("subject", cluster.subjects), ("fold", cluster.folds)):
        if len(names) > 1:
            plural = name + ("es" if name == "class" else "s")
            parts.append(f"{plural} {', '.join(names[:4])}{' ...' if names[4:] else ''}")
        elif names:
            parts.append(f"{name} {names[0]}")
    parts.append(f"side {' and '.join(cluster.sides)}")
    return "; ".join(parts)


def probe_verdict(probe: Probe, confidence: float = 0.95) -> str:
    """One sentence: whether the class can be told from this alone."""
    what = PROBES[probe.name]
    if probe.constant:
        return f"{what[0].upper()}{what[1:]}: the same in every image, tells nothing."
    figure = f"AUROC {figure_text(probe.auroc, probe.interval, confidence)}"
    few = probe.interval is None or (probe.gives_away and not probe.above_chance)
    figure += ", too few groups to be sure" if few else ""
    if not probe.telling:
        return f"From {what} alone the class cannot be told ({figure})."
    if probe.gives_away:
        return f"The class can be told from {what} alone ({figure})."
    much = "much" if probe.auroc >= MUCH else "a little"
    return f"{what[0].upper()}{what[1:]} alone says {much} about the class ({figure})."


def probe_cure(probe: Probe, masked: Sequence[Fractions] = ()) -> str:
    """What to do about it; nothing where it tells nothing."""
    if not probe.telling:
        return ""
    if probe.region is not None:
        return f"Blank it with {mask_setting([probe.region], masked)}"
    return CURES.get(probe.name, CURES["corner"])


def mask_setting(regions: Sequence[Fractions], masked: Sequence[Fractions] = ()) -> str:
    """The option that blanks regions beside those that are blanked already."""
    texts = [f"[{','.join(f'{value:g}' for value in region)}]" for region in [*masked, *regions]]
    return f"--set ingest.mask_regions=[{','.join(texts)}]"


def shortcut_findings(audit: ShortcutAudit, masked: Sequence[Fractions] = ()) -> list[str]:
    """Sentences about shortcuts, the most important first."""
    telling = sorted((p for p in audit.probes if p.telling), key=lambda probe: -probe.auroc)
    above = sum(probe.above_chance for probe in telling)
    found = [
        f"{above} of {len(audit.probes)} probes tell the class better than chance, on {audit.test:,} test "
        f"images of {audit.test_groups:,} groups (trained on {audit.train:,})."
    ]
    found += [probe_verdict(probe) for probe in telling if probe.gives_away]
    if audit.regions:
        found.append(
            f"Parts of the edge stand out from the rest of the image. Blank them with "
            f"{mask_setting(audit.regions, masked)}"
        )
    elif any(probe.auroc >= MUCH for probe in telling):
        found.append("No part of the edge stands out from the rest: blanking a region would not help.")
    return found


def warnings_of(leaks: LeakAudit, shortcuts: ShortcutAudit | None) -> list[str]:
    """What a reader must know before any figure; empty where all is well."""
    found = []
    if conflicts := leaks.count("conflict"):
        found.append(f"{_clusters(conflicts)} both classes: nearly the same picture with both labels.")
    if leaking := leaks.count("leaks"):
        found.append(f"{_clusters(leaking)} two sides of the split: the test side was partly learned.")
    for probe in shortcuts.probes if shortcuts else ():
        local = probe.region is not None and probe.telling
        if local or (probe.gives_away and probe.name in ("dimensions", "metadata")):
            found.append(f"{probe_verdict(probe)} See Leaks and shortcuts.")
    return found
