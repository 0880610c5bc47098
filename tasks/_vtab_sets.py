"""The nineteen data sets of VTAB-1k: group, classes, pictures of the test set, and the names that others give them."""

from collections.abc import Mapping
from typing import NamedTuple

GROUPS = ("natural", "specialized", "structured")


class Dataset(NamedTuple):
    """One of the nineteen."""

    group: str
    classes: int
    test: int
    """Pictures of the whole test set."""
    aliases: tuple[str, ...] = ()
    """What else published code and packs call it."""


NATURAL, SPECIALIZED, STRUCTURED = GROUPS
DATASETS: Mapping[str, Dataset] = {
    "cifar": Dataset(NATURAL, 100, 10_000, ("cifar100",)),
    "caltech101": Dataset(NATURAL, 102, 6_084, ("caltech",)),
    "dtd": Dataset(NATURAL, 47, 1_880),
    "oxford_flowers102": Dataset(NATURAL, 102, 6_149, ("flowers102", "flowers")),
    "oxford_iiit_pet": Dataset(NATURAL, 37, 3_669, ("oxford_pet", "pets")),
    "svhn": Dataset(NATURAL, 10, 26_032),
    "sun397": Dataset(NATURAL, 397, 21_750),
    "patch_camelyon": Dataset(SPECIALIZED, 2, 32_768, ("camelyon",)),
    "eurosat": Dataset(SPECIALIZED, 10, 5_400),
    "resisc45": Dataset(SPECIALIZED, 45, 6_300),
    "diabetic_retinopathy": Dataset(SPECIALIZED, 5, 42_670, ("retinopathy",)),
    "clevr_count": Dataset(STRUCTURED, 8, 15_000),
    "clevr_dist": Dataset(STRUCTURED, 6, 15_000),
    "dmlab": Dataset(STRUCTURED, 6, 22_735),
    "kitti": Dataset(STRUCTURED, 4, 711),
    "dsprites_loc": Dataset(STRUCTURED, 16, 73_728),
    "dsprites_ori": Dataset(STRUCTURED, 16, 73_728),
    "smallnorb_azi": Dataset(STRUCTURED, 18, 12_150),
    "smallnorb_ele": Dataset(STRUCTURED, 9, 12_150),
}
"""By the name of the community's folder, in the order of every published table; `task_adaptation` defines them."""

OWN = "own"
"""A folder of yours, with a folder of pictures for each class: a set like those, and in none of their means."""

ALIASES: Mapping[str, str] = {alias: name for name, dataset in DATASETS.items() for alias in dataset.aliases}
