"""The data sets that can be packed: one file a data set."""

from mivolo_lite.packing.sources.annotations import AnnotationSource
from mivolo_lite.packing.sources.csv import CsvSource
from mivolo_lite.packing.sources.fairface import FairFaceSource
from mivolo_lite.packing.sources.identities import IdentitySource
from mivolo_lite.packing.sources.people import PeopleSource
from mivolo_lite.packing.sources.source import Source
from mivolo_lite.packing.sources.utkface import UTKFaceSource

SOURCES: dict[str, type[Source]] = {
    "csv": CsvSource,
    "annotations": AnnotationSource,
    "identities": IdentitySource,
    "people": PeopleSource,
    "fairface": FairFaceSource,
    "utkface": UTKFaceSource,
}
"""The general sources, then data sets by name."""


def summary_of(source: type[Source]) -> str:
    """The first sentence of a source's description."""
    return " ".join((source.__doc__ or "").split()).partition(". ")[0].rstrip(".")
