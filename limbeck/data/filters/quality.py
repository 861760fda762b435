"""Records whose answers can be trusted: by their own confidence, or by the classifier's."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import override

from limbeck.contracts.config import Config
from limbeck.contracts.fields import InnerRatio, RatioBelowOne
from limbeck.contracts.records import UNSCORED, Reason, Record, Source
from limbeck.data.filters.base import FilterConfig, FilterContext

SHOWN_CHARS = 60
LOW_CONFIDENCE = Reason("low_confidence", "自带置信度低", "low confidence of its own")
LOW_SCORE = Reason("low_score", "评分低", "low score")


class ClassifierConfig(Config):
    """When the scorer is fitted, and how it turns odds into a confidence."""

    good_ratio: InnerRatio = 0.95
    """Share of good answers expected where too few records carry a confidence."""
    min_examples: Annotated[int, Field(ge=10)] = 40
    """Fewer good examples than this fit nothing: every record then has the expected share."""
    max_examples: Annotated[int, Field(ge=100)] = 20_000
    """Good examples used at most, the first ones."""


class Quality(FilterConfig):
    """Free text above a confidence.

    The classifier compares texts; where an image answers, there is nothing to compare, and all
    records without a confidence pass.
    """

    kind: Literal["quality"] = "quality"
    min_confidence: RatioBelowOne = 0.9
    """A record stays only above this."""
    classifier: ClassifierConfig = ClassifierConfig()

    @property
    @override
    def domain_need(self) -> str:
        return "the filter `quality`, which compares names and phrases,"

    @override
    def applies_to(self, source: Source) -> bool:
        return source.free_text

    @override
    def run(self, records: Iterable[Record], *, context: FilterContext) -> Iterator[Record]:
        from limbeck.data.filters.quality_classifier import QualityClassifier

        records = [
            dataclasses.replace(record, confidence=1.0)
            if record.images and record.confidence == UNSCORED
            else record
            for record in records
        ]
        classifier = QualityClassifier(context.lexicon, pack=context.pack)
        free_text = [r for r in records if self.applies_to(context.sources[r.source])]
        classifier.fit(
            free_text, config=self.classifier, threshold=self.min_confidence, seed=context.seed
        )
        context.card["confidence"] = classifier.report
        unscored = [record for record in free_text if record.confidence == UNSCORED]
        scores = iter(classifier.score_all(unscored))
        for record in records:
            if not self.applies_to(context.sources[record.source]):
                yield record
                continue
            reason = LOW_CONFIDENCE
            if record.confidence == UNSCORED:
                reason = LOW_SCORE
                record = dataclasses.replace(record, confidence=round(next(scores), 4))
            if record.confidence > self.min_confidence:
                yield record
            else:
                shown = f"{record.confidence:.2f}: {record.question[:SHOWN_CHARS]}"
                context.log.drop_record(record, reason=reason, detail=shown)
