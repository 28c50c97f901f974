"""R-precision and retrieval: known results, and what must not change them."""

import pytest
import torch

from clipgan.errors import UserError
from clipgan.evaluation.metrics.r_precision import count_candidates, r_precision, retrieval_hits


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


@pytest.mark.parametrize("dim", [3, 16, 77, 512])
def test_rounding_decides_no_tie(dim):
    queries, target = features(60, dim), features(1, dim, seed=7)
    assert not hits_of(queries, target.expand(60, -1))[0].any()


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


def features(count, dim, seed=5):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def test_captions_equal_to_the_own_are_never_candidates_whoever_s_they_are():
    """Thirty images of no class share five captions: perfect features hit, where equal captions used to tie."""
    ids = torch.arange(150) % 5
    targets = features(5, 16)[ids]
    assert not hits_of(targets, targets, classes=torch.arange(150) // 5)[0].any()
    hits, candidates = hits_of(
        targets, targets, classes=torch.arange(150) // 5, query_captions=ids, target_captions=ids
    )
    assert hits.all() and candidates == 100


def test_candidates_are_all_but_the_own_class_and_equal_captions():
    """A query hits exactly if no candidate is nearer, so one near target after another tells who the candidates are."""
    classes = torch.tensor([0, 0, 1, 1, 2, 2, 3])
    ids = torch.tensor([10, 11, 10, 12, 13, 10, 14])  # caption 10 is one of class 1's and of class 2's, too
    found = []
    for near in range(1, 7):
        targets = torch.eye(7)
        query = (targets[0] + 2 * targets[near])[None]
        own = torch.zeros(1, dtype=torch.long)
        options = {"query_captions": ids[own], "target_captions": ids}
        hits, candidates = retrieval_hits(query, targets, own, classes[own], classes, **options)
        assert candidates == 7 - 2 - 2 + 1
        found += [near] * (not hits)
    assert found == [3, 4, 6]


def test_an_image_that_has_the_caption_beside_others_is_no_candidate_for_it():
    """Images 0 and 3 have caption 7. Their features are one, so that a candidate would tie."""
    targets = torch.eye(3)[[0, 1, 2, 0]]
    of_images = torch.tensor([[6, 7], [2, 3], [4, 3], [7, 7]])
    options = {"own": torch.tensor([0]), "query_classes": torch.tensor([0]), "target_classes": torch.arange(4)}
    query = torch.eye(3)[:1]
    hits, candidates = retrieval_hits(
        query, targets, query_captions=torch.tensor([7]), target_captions=of_images, **options
    )
    assert hits.all() and candidates == 3
    hits, candidates = retrieval_hits(
        query, targets, query_captions=torch.tensor([[9, 7]]), target_captions=of_images[:, 1], **options
    )
    assert hits.all() and candidates == 3


def test_different_captions_leave_every_draw_as_it_was():
    targets, classes = features(300, 4), torch.arange(300) // 7
    queries = targets + 0.4 * features(300, 4, seed=6)
    ids = classes * 3 + torch.arange(300) % 2  # equal ones are within a class
    expected, candidates = hits_of(queries, targets, classes=classes, candidates=20)
    hits, same = hits_of(queries, targets, classes=classes, candidates=20, query_captions=ids, target_captions=ids)
    assert torch.equal(hits, expected) and candidates == same == 20
    assert 0 < hits.double().mean() < 1


def test_a_caption_of_every_image_of_another_class_is_refused():
    targets, ids = features(5, 4), torch.tensor([1, 1, 1, 1, 2])
    hits_of(targets, targets, query_captions=ids, target_captions=ids)
    with pytest.raises(UserError, match="a different one in another class"):
        hits_of(targets, targets, query_captions=ids, target_captions=torch.ones(5, dtype=torch.long))
    assert count_candidates(torch.arange(5), torch.arange(5), ids, ids) == 2


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


def test_the_original_s_ties_are_hits_and_nothing_else_changes():
    same = torch.ones(20, 3)
    assert hits_of(same, same, ties_hit=True)[0].all()
    targets = features(20, 3)
    queries = targets + features(20, 3, seed=1)
    hits = [hits_of(queries, targets, ties_hit=way)[0] for way in (False, True)]
    assert torch.equal(*hits) and 0 < hits[0].sum() < 20


def test_the_original_drops_the_last_image_of_each_fold():
    hits = torch.tensor([True, True, False, True, False, True, False, True, True, False])
    kept = r_precision(hits, 100, folds=2, drops_one=True)  # 1 1 0 1 | 1 0 1 1
    assert (kept.mean, kept.images, kept.folds) == (0.75, 8, 2)
    assert kept.std == 0
    assert r_precision(hits, 100, folds=2).mean == 0.6
    assert r_precision(hits[:3], 100, folds=3, drops_one=True).images == 3  # a fold of one keeps it
