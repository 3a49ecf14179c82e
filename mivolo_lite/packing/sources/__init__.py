"""The data sets that can be packed: one file a data set."""

from mivolo_lite.packing.sources.adience import AdienceSource
from mivolo_lite.packing.sources.afad import AFADSource
from mivolo_lite.packing.sources.agedb import AgeDBSource
from mivolo_lite.packing.sources.annotations import AnnotationSource
from mivolo_lite.packing.sources.appa_real import AppaRealSource
from mivolo_lite.packing.sources.cacd import CACDSource
from mivolo_lite.packing.sources.celeba import CelebASource
from mivolo_lite.packing.sources.csv import CsvSource
from mivolo_lite.packing.sources.fairface import FairFaceSource
from mivolo_lite.packing.sources.fgnet import FGNetSource
from mivolo_lite.packing.sources.identities import IdentitySource
from mivolo_lite.packing.sources.imdb_clean import ImdbCleanSource
from mivolo_lite.packing.sources.lagenda import LagendaSource
from mivolo_lite.packing.sources.morph import MorphSource
from mivolo_lite.packing.sources.paplhjak import PaplhjakSource
from mivolo_lite.packing.sources.people import PeopleSource
from mivolo_lite.packing.sources.peta import PETASource
from mivolo_lite.packing.sources.rafdb import RafDBSource
from mivolo_lite.packing.sources.rec import RecSource
from mivolo_lite.packing.sources.shards import ShardsSource
from mivolo_lite.packing.sources.source import Source
from mivolo_lite.packing.sources.utkface import UTKFaceSource

SOURCES: dict[str, type[Source]] = {
    "csv": CsvSource,
    "annotations": AnnotationSource,
    "shards": ShardsSource,
    "identities": IdentitySource,
    "people": PeopleSource,
    "adience": AdienceSource,
    "afad": AFADSource,
    "agedb": AgeDBSource,
    "appa_real": AppaRealSource,
    "cacd": CACDSource,
    "celeba": CelebASource,
    "fairface": FairFaceSource,
    "fgnet": FGNetSource,
    "imdb_clean": ImdbCleanSource,
    "lagenda": LagendaSource,
    "morph": MorphSource,
    "paplhjak": PaplhjakSource,
    "peta": PETASource,
    "rafdb": RafDBSource,
    "rec": RecSource,
    "utkface": UTKFaceSource,
}
"""The general sources, then data sets by name."""


def summary_of(source: type[Source]) -> str:
    """The first sentence of a source's description."""
    return " ".join((source.__doc__ or "").split()).partition(". ")[0].rstrip(".").replace("``", "")
