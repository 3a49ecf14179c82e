"""Knowledge distillation (Hinton, Vinyals and Dean, 2015): a model learns teachers' answers to its training images.

It can learn their features as well (Romero et al., "FitNets", ICLR 2015): a linear projection of the student's features
learns the direction of each teacher's, so that neither the width nor the scale of a backbone matters.

Teachers see the same images as the model, after augmentation, so that both answer about the same evidence (Beyer et
al., "Knowledge distillation: A good teacher is patient and consistent", 2022). Their answers are a function of the
images, so a run with teachers resumes as exactly as one without.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mivolo_lite.batch_labels import AgeRange
from mivolo_lite.errors import UserError
from mivolo_lite.estimator import Estimator
from mivolo_lite.images.packed import Images
from mivolo_lite.methods.distribution import DistributionMethod
from mivolo_lite.methods.interface import AgeSpan
from mivolo_lite.models.head import Head


@dataclass(frozen=True)
class Answers:
    """The mean answers of the teachers that see an image of the sample.

    Attributes:
        seen: (T, B) bool, whether a teacher sees an image of a sample: a face teacher sees none if a model with two
            inputs gets the body only.
        share: (T, B) each teacher's share of a sample's answer; 0 for all if none sees it.
        age: (B,) mean age in years.
        probability: (B, A) over the ages of the student's span; None if a teacher has no distribution.
        gender: (B, 2) probabilities from the teachers that estimate the gender, 0 for samples that none of them sees;
            None if none estimates it.
        features: (B, P) concatenated over the teachers; None if they are not learnt.
    """

    seen: Tensor
    share: Tensor
    age: Tensor
    probability: Tensor | None
    gender: Tensor | None
    features: Tensor | None = None


class Teachers:
    """Trained estimators whose answers a student learns.

    Args:
        folders: checkpoints, as for ``Estimator.load``.
        student: the model that learns; gets a ``projection`` if it learns features.
        feature_weight: of the features' distance, which is added to that of the answers.
        device: of the teachers; the student's by default.

    Raises:
        UserError: a checkpoint is missing or damaged, learnt no ages, or has none of the student's inputs.
    """

    def __init__(
        self,
        folders: Sequence[str | Path],
        student: Estimator,
        feature_weight: float = 0.0,
        device: torch.device | None = None,
    ):
        self.student, self.feature_weight = student, feature_weight
        device = student.device if device is None else device
        self.teachers = [Estimator.load(folder).to(device).requires_grad_(False) for folder in folders]
        for folder, teacher in zip(folders, self.teachers, strict=True):
            if not teacher.card.age:
                raise UserError(f"optim.teachers: {folder} learnt no ages, and would teach random ones; choose another")
            if not set(teacher.inputs) & set(student.inputs):
                raise UserError(
                    f"optim.teachers: {folder} looks at {' and '.join(teacher.inputs)}, this model at "
                    f"{' and '.join(student.inputs)}; choose a teacher that sees what the model sees"
                )
        self.widths = [teacher.model.num_features for teacher in self.teachers]
        if feature_weight:
            for teacher in self.teachers:
                teacher.projection = nn.Identity()
            student.projection = Head(student.model.num_features, sum(self.widths)).to(student.device)

    @torch.no_grad()
    def answers(self, images: Mapping[str, Images | int]) -> Answers:
        """The teachers' answers to a batch's ``images()``."""
        outputs = []
        for teacher in self.teachers:
            size = teacher.card.image_size
            resized = {
                name: value.resized(size) if isinstance(value, Images) else value for name, value in images.items()
            }
            outputs.append(teacher(**resized))
        estimates = [teacher.estimate(output) for teacher, output in zip(self.teachers, outputs, strict=True)]
        span = self.student.method.span
        probabilities = [
            None if age.probability is None else _on_span(age.probability.float(), teacher.method.span, span)
            for teacher, (age, _) in zip(self.teachers, estimates, strict=True)
        ]
        seen = torch.stack([_sees(teacher, images) for teacher in self.teachers])
        share = _shares(seen)
        all_have_distributions = all(probability is not None for probability in probabilities)
        features = torch.cat([output["projection"].float() for output in outputs], 1) if self.feature_weight else None
        return Answers(
            seen,
            share,
            age=(share * torch.stack([age.mean for age, _ in estimates])).sum(0),
            probability=_mean(probabilities, seen) if all_have_distributions else None,
            gender=_mean([gender for _, gender in estimates], seen),
            features=features,
        )

    def loss(self, output: dict[str, Tensor], answers: Answers, gender_weight: float) -> Tensor:
        """(B,) float32 distance of the student's raw outputs from the teachers' answers.

        This is the divergence KL(teachers || student) of the distributions of age and gender. If a teacher has no
        distribution of ages, or the student no softmax over them, the age part is the student's own loss against the
        teachers' mean age: ordinal methods give ages a probability of 0, which makes the divergence infinite. For
        samples that no teacher sees, the loss is meaningless.
        """
        method = self.student.method
        estimate, gender = self.student.estimate(output)
        is_distribution = isinstance(method, DistributionMethod)
        if is_distribution and answers.probability is not None and estimate.probability is not None:
            loss = _divergence(answers.probability, estimate.probability)
        else:
            known = torch.ones_like(answers.age, dtype=torch.bool)
            loss = method.loss(output["age"], AgeRange(answers.age, answers.age, known)) / method.loss_unit
        if gender is not None and answers.gender is not None:
            loss = loss + gender_weight * _divergence(answers.gender, gender)
        if answers.features is not None:
            distance = self._feature_distance(output["projection"], answers.features, answers.share)
            loss = loss + self.feature_weight * distance
        return loss

    def _feature_distance(self, projection: Tensor, features: Tensor, share: Tensor) -> Tensor:
        """(B,) 1 minus the cosine similarity of (B, P) projection and features, averaged over the teachers."""
        pairs = zip(projection.float().split(self.widths, 1), features.split(self.widths, 1), strict=True)
        return 1 - (share * torch.stack([F.cosine_similarity(student, teacher) for student, teacher in pairs])).sum(0)


def _divergence(target: Tensor, probability: Tensor) -> Tensor:
    """(B,) KL(target || probability) of (B, K) distributions."""
    tiny = torch.finfo(torch.float32).tiny
    return (target * (target.clamp(min=tiny).log() - probability.clamp(min=tiny).log())).sum(-1)


def _on_span(probability: Tensor, teacher_span: AgeSpan, span: AgeSpan) -> Tensor:
    """(B, A) probabilities over the ages of another span; its ends get those of ages outside it."""
    index = (teacher_span.ages(probability.device).clamp(span.min_age, span.max_age) - span.min_age).long()
    return torch.zeros(len(probability), len(span), device=probability.device).index_add_(1, index, probability)


def _shares(seen: Tensor) -> Tensor:
    """(T, B) each teacher's share of a sample's answer, from (T, B) the samples that each sees."""
    return seen / seen.sum(0).clamp(min=1)


def _mean(answers: Sequence[Tensor | None], seen: Tensor) -> Tensor | None:
    """(B, K) mean of the (B, K) answers of the teachers that see the sample; None if there are no answers."""
    known = [pair for pair in zip(seen, answers, strict=True) if pair[1] is not None]
    if not known:
        return None
    # No indexing by a mask: every step would copy it to the GPU and wait.
    seen, answer = map(torch.stack, zip(*known, strict=True))
    return (_shares(seen)[..., None] * answer).sum(0)


def _sees(teacher: Estimator, images: Mapping[str, Any]) -> Tensor:
    """(B,) bool: whether a teacher sees an image of the sample."""
    taken = [images[name] for name in teacher.inputs if name in images]
    return torch.stack([shown.present(images["batch"]) for shown in taken]).any(0)
