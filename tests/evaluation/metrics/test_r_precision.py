"""R-precision and retrieval: known results, and what must not change them."""

import pytest
import torch

from clipgan.errors import UserError
from clipgan.evaluation.metrics.r_precision import r_precision, retrieval_hits


def hits_of(queries, targets, own=None, classes=None, **options):
    own = torch.arange(len(queries)) if own is None else own
    classes = torch.arange(len(targets)) if classes is None else classes
    return retrieval_hits(queries, targets, own, classes[own], classes, **options)


def test_images_that_equal_their_captions_all_hit():
    features = torch.randn(150, 16, generator=torch.Generator().manual_seed(0))
    hits, candidates = hits_of(features, features)
    assert hits.all() and candidates == 100


def test_a_tie_is_a_miss():
    same = torch.ones(20, 8)
    hits, candidates = hits_of(same, same)
    assert not hits.any() and candidates == 20


def test_unrelated_features_hit_at_chance():
    generator = torch.Generator().manual_seed(1)
    queries, targets = torch.randn(4000, 32, generator=generator), torch.randn(4000, 32, generator=generator)
    hits, candidates = hits_of(queries, targets, candidates=10)
    assert candidates == 10
    assert abs(float(hits.double().mean()) - 0.1) < 0.02  # 0.1 ± 4 standard errors


def test_captions_of_the_own_class_are_never_candidates():
    """Two classes; within a class all captions are the same, so an own-class candidate would tie and miss."""
    targets = torch.tensor([[1.0, 0.0]] * 10 + [[0.0, 1.0]] * 10)
    classes = torch.tensor([0] * 10 + [1] * 10)
    hits, candidates = hits_of(targets.clone(), targets, classes=classes)
    assert hits.all() and candidates == 11


def test_the_result_of_an_image_does_not_depend_on_the_images_after_it():
    generator = torch.Generator().manual_seed(2)
    targets = torch.randn(300, 4, generator=generator)
    queries = targets + 0.4 * torch.randn(300, 4, generator=generator)
    everything, _ = hits_of(queries, targets, candidates=20)
    part, _ = hits_of(queries[:70], targets, own=torch.arange(70), candidates=20)
    assert torch.equal(everything[:70], part)
    assert 0 < part.double().mean() < 1


def test_scale_of_the_features_does_not_matter():
    generator = torch.Generator().manual_seed(3)
    queries, targets = torch.randn(50, 8, generator=generator), torch.randn(50, 8, generator=generator)
    assert torch.equal(hits_of(queries, targets)[0], hits_of(queries * 7, targets * 0.1)[0])


def test_one_class_alone_is_refused():
    features = torch.randn(5, 4)
    with pytest.raises(UserError, match="two classes"):
        hits_of(features, features, classes=torch.zeros(5, dtype=torch.long))


def test_folds_lose_no_image_and_give_mean_and_spread():
    hits = torch.zeros(23, dtype=torch.bool)
    hits[:3] = True  # folds of 3, 3, 3, 2 … images: the first is all hits
    result = r_precision(hits, candidates=100)
    assert result.images == 23 and result.folds == 10 and result.chance == 0.01
    assert result.mean == pytest.approx(3 / 23)
    assert result.std == pytest.approx(0.3)  # one fold at 1, nine at 0


def test_one_class_per_image_needs_little_memory():
    """In COCO, every image is its own class: a list per class would grow with the square of the images."""
    import tracemalloc

    features = torch.randn(4000, 4, generator=torch.Generator().manual_seed(4))
    tracemalloc.start()
    hits, candidates = hits_of(features, features, candidates=50)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert hits.all() and candidates == 50
    assert peak < 20e6  # 4000 lists of 3999 candidates would be 128 MB
