"""Attribute accuracy on the drawn data: do images show what their captions say? An oracle reads them, no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from clipgan.data.examples import Example
from clipgan.data.toy_oracle import accuracies, chance_accuracy, read_truth
from clipgan.errors import UserError
from clipgan.evaluation.metrics.card import ATTRIBUTES, Card, Measured, Metric, Rules


def read_truths(data_dir: str | Path, examples: Sequence[Example]) -> list[dict[str, str]] | None:
    """What each example shows, or None if the data set is not the drawn one.

    Raises:
        UserError: the drawn data set's file of attributes is broken, or lacks an example.
    """
    truth = read_truth(data_dir)
    if truth is None:
        return None
    unknown = next((example.key for example in examples if example.key not in truth), None)
    if unknown is not None:
        raise UserError(
            f"{data_dir}/attributes.json does not know the image {unknown}: draw the toy data set again with "
            "tools/make_toy_data.py, or remove the file from data of your own"
        )
    return [truth[example.key] for example in examples]


def _measure(readings: Tensor, *, rules: Rules) -> list[Measured]:
    """Scores of what ``toy_oracle.right_attributes`` gave for N images, float64 [N, 1 + attributes] of 0 and 1."""
    readings = torch.as_tensor(readings).double().cpu()
    of_images = readings[:, 1:].mean(dim=1).numpy()
    return [
        Measured.mean_of(of_images, chance=chance_accuracy(), **accuracies(readings)),
        Measured.mean_of(readings[:, 0].numpy()),
    ]


METRIC = Metric(
    cards=(
        Card(
            key="attributes",
            name="attributes right",
            meaning="share of the attributes that the caption's bird has in the image, as an oracle reads it",
            lowest=0,
            highest=1,
            better="higher",
            source="of this project: analysis by synthesis, see data/toy_oracle.py",
            bias="none: the mean over the images",
            blind="whatever the drawing does not vary; a bird that is drawn twice; the caption's other words",
        ),
        Card(
            key="birds_found",
            name="birds found",
            meaning="share of the images in which the oracle finds a bird that explains the pixels",
            lowest=0,
            highest=1,
            better="higher",
            source="of this project: analysis by synthesis, see data/toy_oracle.py",
            bias="none: the mean over the images",
            blind="whether the bird is the caption's, and whether all birds are the same",
        ),
    ),
    needs=ATTRIBUTES,
    measure=_measure,
)
