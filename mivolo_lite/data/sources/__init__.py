"""The data sets that can be packed: one file a data set."""

from mivolo_lite.data.sources.annotations import AnnotationSource
from mivolo_lite.data.sources.fairface import FairFaceSource
from mivolo_lite.data.sources.identities import IdentitySource
from mivolo_lite.data.sources.people import PeopleSource
from mivolo_lite.data.sources.source import Source
from mivolo_lite.data.sources.utkface import UTKFaceSource

SOURCES: dict[str, type[Source]] = {
    "annotations": AnnotationSource,
    "fairface": FairFaceSource,
    "identities": IdentitySource,
    "people": PeopleSource,
    "utkface": UTKFaceSource,
}
