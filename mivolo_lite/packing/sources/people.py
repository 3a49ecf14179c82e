"""Synthetic people: a data set without downloads and without photos of real people."""

from mivolo_lite.errors import UserError
from mivolo_lite.packing.crops import CropRules
from mivolo_lite.packing.sources.cutting import cut_person
from mivolo_lite.packing.sources.source import Source, SourceImage
from mivolo_lite.packing.synthetic.person import Ages
from mivolo_lite.packing.synthetic.photo import render_photo
from mivolo_lite.shards.sample import Labels, Sample


class PeopleSource(Source):
    """Synthetic photos of one person each, with crops of face and body.

    Proportions, hair, wrinkles, posture and clothes depend on age, gender and group, with random variation. Light,
    noise, background and pose do not.

    Args:
        count: number of people.
        seed: of the series; photo ``n`` of a series never changes.
        covered: share of the photos with a covered face, which the sample's JSON records.
        crop_size: largest side of a stored crop in pixels.
        ages: distribution of the ages: as in a population, with few old people, or uniform.
    """

    def __init__(
        self, count: int, seed: int = 0, covered: float = 0.0, crop_size: int = 224, ages: Ages = "population"
    ):
        if count < 1:
            raise UserError(f"--count {count}: give the number of people to draw, 1 or more")
        if seed < 0:
            raise UserError(f"--seed {seed}: give a whole number, 0 or more")
        if not 0 <= covered <= 1:
            raise UserError(f"--covered {covered}: give the share of hidden faces, from 0 to 1")
        self.count = count
        self.seed = seed
        self.covered = covered
        self.ages = ages
        self.rules = CropRules(crop_size=crop_size)
        options: dict[str, float | str] = {"seed": seed, "covered": covered}
        if ages != "population":  # keeps the digest of data from before this option
            options["ages"] = ages
        self.crop_policy = self.rules.policy() | {"synthetic": options}

    def items(self) -> list[str]:
        return [f"{photo:07d}" for photo in range(self.count)]

    def read(self, item: str) -> SourceImage:
        photo = render_photo(self.seed, int(item), self.covered, self.ages)
        person = photo.person
        extra = {"covered": photo.covered, "face_box": list(photo.face), "body_box": list(photo.body)}
        crops = cut_person(photo.image, photo.face, photo.body, [], self.rules)
        name = f"people_{self.seed}_{item}"
        labels = Labels((person.age, person.age), person.gender, person.group, extra)
        return SourceImage(name.encode(), [Sample(name, crops.face, crops.body, labels)], missing=crops.missing)
