import dataclasses
import itertools
import pickle
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch

from clipgan.data.caption_ids import caption_ids
from clipgan.data.dataset import EpochBatchSampler, TextImageDataset, collate, make_loader
from clipgan.data.examples import read_examples
from clipgan.errors import UserError

CPU = torch.device("cpu")


def tokenize(captions: list[str]) -> torch.Tensor:
    """One token per word, padded to 20: enough to tell captions apart."""
    rows = [[sum(map(ord, word)) for word in caption.split()] for caption in captions]
    return torch.tensor([(row + [0] * 20)[:20] for row in rows])


@pytest.fixture(scope="module")
def examples(toy_birds):
    return read_examples(toy_birds, "train", "birds", captions_per_image=10)


def make_dataset(examples, seed=7, **options):
    return TextImageDataset(examples, [16, 32], tokenize, seed=seed, **options)


def same(first, second) -> bool:
    return (
        first.keys == second.keys
        and first.captions == second.captions
        and all(map(torch.equal, first.images, second.images))
        and all(map(torch.equal, first.tokens, second.tokens))
        and torch.equal(first.class_ids, second.class_ids)
        and torch.equal(first.indices, second.indices)
        and torch.equal(first.caption_ids, second.caption_ids)
    )


def test_an_item_holds_its_images_and_two_different_captions_with_their_tokens(examples):
    dataset = make_dataset(examples)
    for index, example in enumerate(examples):
        item = dataset[3, index]
        assert [tuple(image.shape) for image in item.images] == [(3, 16, 16), (3, 32, 32)]
        assert (item.key, item.class_id, item.index) == (example.key, example.class_id, index)
        first, second = item.captions
        assert first != second and {first, second} <= set(example.captions)
        assert torch.equal(item.tokens, tokenize([first, second]))


def test_every_caption_is_drawn_in_some_epoch(examples):
    dataset = make_dataset(examples)
    for place in (0, 1):
        assert {dataset[epoch, 0].captions[place] for epoch in range(80)} == set(examples[0].captions)


def test_an_item_depends_on_seed_epoch_and_index_only(examples):
    dataset = make_dataset(examples)
    item = dataset[5, 2]
    np.random.seed(1)
    torch.manual_seed(1)
    again = make_dataset(examples)[5, 2]
    assert again.captions == item.captions and torch.equal(again.images[1], item.images[1])

    for other in (make_dataset(examples, seed=8)[5, 2], dataset[6, 2]):
        assert other.captions != item.captions
        assert not torch.equal(other.images[1], item.images[1])


def test_evaluation_items_are_the_same_in_every_epoch_and_show_captions_0_and_1(examples):
    dataset = make_dataset(examples, train=False)
    first, second = dataset[0, 1], dataset[9, 1]
    assert first.captions == second.captions == examples[1].captions[:2]
    assert torch.equal(first.images[1], second.images[1])


@pytest.mark.parametrize("train", [True, False])
def test_an_only_caption_is_given_twice(examples, train):
    single = [dataclasses.replace(examples[0], captions=("a red bird",))]
    assert make_dataset(single, train=train)[0, 0].captions == ("a red bird", "a red bird")


def test_the_box_is_cut_only_when_asked_for(examples):
    boxed = [dataclasses.replace(examples[0], box=(10.0, 10.0, 20.0, 20.0))]
    boxless = [dataclasses.replace(examples[0], box=None)]
    whole, cut = make_dataset(boxed, box_crop=False)[0, 0], make_dataset(boxed)[0, 0]
    assert torch.equal(whole.images[1], make_dataset(boxless)[0, 0].images[1])
    assert not torch.equal(whole.images[1], cut.images[1])


def test_the_loader_gives_the_same_batches_for_any_number_of_workers(examples):
    batches = {}
    for workers in (0, 2):
        sampler = EpochBatchSampler(len(examples), 6, seed=7)
        loader = make_loader(make_dataset(examples), sampler, workers, CPU)
        batches[workers] = []
        for epoch in (0, 1):  # persistent workers must get the new epoch
            sampler.set_epoch(epoch)
            batches[workers] += list(loader)
    assert len(batches[0]) == len(batches[2]) == 12
    assert all(map(same, batches[0], batches[2]))
    assert not same(batches[0][0], batches[0][6])


def test_a_batch_has_aligned_tensors(examples):
    sampler = EpochBatchSampler(len(examples), 5, seed=1)
    batch = next(iter(make_loader(make_dataset(examples), sampler, 0, CPU)))
    assert [tuple(image.shape) for image in batch.images] == [(5, 3, 16, 16), (5, 3, 32, 32)]
    for place in (0, 1):
        assert torch.equal(batch.tokens[place], tokenize(batch.captions[place]))
    assert batch.keys == [examples[i].key for i in batch.indices]
    assert batch.class_ids.tolist() == [examples[i].class_id for i in batch.indices]
    assert torch.equal(batch.caption_ids, torch.stack([caption_ids(tokens) for tokens in batch.tokens], dim=1))


@pytest.mark.parametrize("train", [True, False])
def test_captions_have_equal_numbers_where_they_are_equal_in_any_batch(examples, train):
    captions = "a red bird", "a very small blue bird"
    both = [dataclasses.replace(example, captions=captions) for example in examples]
    dataset = make_dataset(both, train=train)
    ids = {}
    for start in (0, 4):
        batch = collate([dataset[0, index] for index in range(start, start + 4)])
        assert batch.caption_ids.shape == (4, 2) and batch.caption_ids.dtype == torch.int64
        for place in (0, 1):
            for caption, number in zip(batch.captions[place], batch.caption_ids[:, place].tolist(), strict=True):
                ids.setdefault(caption, set()).add(number)
    assert [len(ids[caption]) for caption in captions] == [1, 1] and ids[captions[0]] != ids[captions[1]]


def test_tokens_are_padded_to_the_longest_caption_of_the_batch(examples):
    def words(captions):
        rows = [[1 + len(word) for word in caption.split()] for caption in captions]
        longest = max(map(len, rows))
        return torch.tensor([row + [0] * (longest - len(row)) for row in rows])

    for train in (True, False):
        dataset = TextImageDataset(examples, [16], words, seed=7, train=train)
        for batch in make_loader(dataset, EpochBatchSampler(len(examples), 5, seed=1), 0, CPU):
            both = words([*batch.captions[0], *batch.captions[1]])
            assert torch.equal(torch.cat(batch.tokens), both)


def test_all_tensors_of_a_batch_move_to_the_device(examples):
    batch = collate([make_dataset(examples)[0, i] for i in range(3)])
    moved = batch.to("meta")
    tensors = [*moved.images, *moved.tokens, moved.class_ids, moved.indices, moved.caption_ids]
    assert all(tensor.device.type == "meta" for tensor in tensors)
    assert moved.keys == batch.keys and moved.captions == batch.captions
    assert same(batch.to(CPU), batch)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_a_one_line_error_from_any_process(examples, tmp_path, workers):
    broken = [dataclasses.replace(examples[0], image=tmp_path / "gone.jpg")]
    loader = make_loader(make_dataset(broken), EpochBatchSampler(1, 1, seed=1), workers, CPU)
    with pytest.raises(UserError, match=r"gone\.jpg: no such image$") as caught:
        list(loader)
    assert "\n" not in str(caught.value)


def test_a_box_outside_its_image_is_reported_with_the_images_path(examples):
    broken = [dataclasses.replace(examples[0], box=(900.0, 0.0, 10.0, 10.0))]
    with pytest.raises(UserError, match=rf"{examples[0].image.name}: the box"):
        make_dataset(broken)[0, 0]


def test_a_caption_without_words_is_reported_with_its_images_key(examples):
    def strict(captions):
        raise UserError("the caption '!' has no words")

    for train in (True, False):
        dataset = TextImageDataset(examples, [16], strict, seed=7, train=train)
        with pytest.raises(UserError, match=rf"^image {examples[3].key}: the caption '!' has no words$"):
            list(make_loader(dataset, [[(0, 3)]], 0, CPU))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_out_of_memory_ends_in_one_line(examples, workers, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr("clipgan.data.dataset.crop_and_flip", fail)
    with pytest.raises(UserError, match=r"ran out of memory: set WORKERS") as caught:
        list(make_loader(make_dataset(examples), EpochBatchSampler(len(examples), 2, seed=1), workers, CPU))
    assert "Traceback" not in str(caught.value)


def test_a_file_that_does_not_fit_into_memory_is_named(examples, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr("clipgan.data.image_file.Image.open", fail)
    with pytest.raises(UserError, match=rf"{examples[0].image.name}: does not fit into this machine's memory"):
        make_dataset(examples)[0, 0]


def indices(sampler) -> list[list[int]]:
    return [[index for _, index in batch] for batch in sampler]


def flat(lists) -> list[int]:
    return list(itertools.chain(*lists))


def test_an_epoch_visits_every_example_once_in_an_order_of_its_own():
    sampler = EpochBatchSampler(20, 5, seed=3)
    orders = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        assert {number for batch in sampler for number, _ in batch} == {epoch}
        orders.append(flat(indices(sampler)))
        assert sorted(orders[-1]) == list(range(20))
    assert orders[0] != orders[1]
    assert orders[0] == flat(indices(EpochBatchSampler(20, 5, seed=3)))
    assert orders[0] != flat(indices(EpochBatchSampler(20, 5, seed=4)))


def test_the_slices_of_all_ranks_make_up_the_global_batches():
    whole = indices(EpochBatchSampler(26, 8, seed=3))
    ranks = [indices(EpochBatchSampler(26, 8, seed=3, rank=rank, world_size=4)) for rank in range(4)]
    assert [flat(shares) for shares in zip(*ranks, strict=True)] == whole
    assert {len(share) for rank in ranks for share in rank} == {2}


def test_a_batch_that_cannot_be_shared_out_is_refused():
    with pytest.raises(UserError, match=r"BATCH_SIZE = 10 .* 4 processes"):
        EpochBatchSampler(100, 10, seed=1, rank=0, world_size=4)


def test_a_resumed_epoch_gives_the_remaining_batches():
    sampler = EpochBatchSampler(20, 3, seed=3)
    sampler.set_epoch(4)
    whole = indices(sampler)
    sampler.set_epoch(4, start_batch=2)
    assert indices(sampler) == whole[2:]
    assert len(sampler) == len(whole) == 6
    sampler.set_epoch(5)
    assert len(indices(sampler)) == 6


def test_incomplete_batches_are_dropped_or_kept():
    assert len(EpochBatchSampler(10, 4, seed=1)) == 2
    kept = EpochBatchSampler(10, 4, seed=1, drop_last=False, shuffle=False)
    assert len(kept) == 3
    assert indices(kept) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(EpochBatchSampler(3, 4, seed=1)) == 0 and indices(EpochBatchSampler(3, 4, seed=1)) == []


def test_only_images_travel_from_workers_in_shared_memory(examples, monkeypatch):
    shared, share = [], ForkingPickler._extra_reducers[torch.UntypedStorage]
    monkeypatch.setitem(ForkingPickler._extra_reducers, torch.UntypedStorage, lambda s: shared.append(s) or share(s))
    batch = collate([make_dataset(examples)[0, index] for index in range(3)])
    sent = ForkingPickler.dumps(batch)
    assert sorted(storage.nbytes() for storage in shared) == [3 * 3 * 16 * 16, 3 * 3 * 32 * 32]
    assert same(pickle.loads(sent), batch)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_for_cuda_are_pinned(examples):
    sampler = EpochBatchSampler(len(examples), 5, seed=1)
    batch = next(iter(make_loader(make_dataset(examples), sampler, 2, torch.device("cuda"))))
    numbers = [batch.class_ids, batch.indices, batch.caption_ids]
    assert all(tensor.is_pinned() for tensor in [*batch.pixels, *batch.tokens, *numbers])
    assert same(batch.to("cuda").to("cpu"), batch)
