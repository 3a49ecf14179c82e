"""The data sets that can be packed: one file a data set."""

from mivolo_lite.packing.sources.annotations import AnnotationSource
from mivolo_lite.packing.sources.fairface import FairFaceSource
from mivolo_lite.packing.sources.identities import IdentitySource
from mivolo_lite.packing.sources.people import PeopleSource
from mivolo_lite.packing.sources.source import Source
from mivolo_lite.packing.sources.utkface import UTKFaceSource

SOURCES: dict[str, type[Source]] = {
    "annotations": AnnotationSource,
    "fairface": FairFaceSource,
    "identities": IdentitySource,
    "people": PeopleSource,
    "utkface": UTKFaceSource,
}
