"""Ids of captions: equal exactly where the encoder reads the same tokens."""

import torch

from clipgan.data.caption_ids import caption_ids
from clipgan.networks.clip_encoder import Tokenizer


def ids_of(captions, words_num=28):
    return caption_ids(Tokenizer(words_num)(captions)).tolist()


def test_captions_have_one_id_exactly_where_they_have_the_same_tokens():
    first, same, other, longer = ids_of(["a red bird", "A  red bird", "a blue bird", "a red bird sits"])
    assert first == same
    assert len({first, other, longer}) == 3


def test_captions_that_are_equal_after_the_cut_have_one_id():
    assert len(set(ids_of(["a red bird sits", "a red bird flies"], words_num=3))) == 1
    assert len(set(ids_of(["a red bird sits", "a red bird flies"], words_num=4))) == 2


def test_what_stands_behind_an_end_token_in_the_caption_is_not_read():
    longer = "a red bird with a long beak"  # else the tokenizer would cut the columns behind
    assert len(set(ids_of(["a red bird", "a red bird<end_of_text>", "a red bird<end_of_text>sits", longer]))) == 2


def test_padding_and_neighbours_change_nothing():
    tokens = Tokenizer(28)(["a red bird", "a bird with a very long beak"])
    alone = Tokenizer(28)(["a red bird"])
    assert caption_ids(tokens)[0] == caption_ids(alone)[0]
    assert caption_ids(torch.nn.functional.pad(alone, (0, 9))).equal(caption_ids(alone))


def test_ids_are_64_bits_of_any_sign_for_tokens_of_any_shape():
    tokens = torch.arange(1, 4001).view(20, 10, 5, 4)
    ids = caption_ids(tokens)
    assert ids.dtype == torch.int64 and ids.shape == (20, 10, 5)
    assert len(ids.unique()) == 1000
    assert 300 < (ids < 0).sum() < 700 and ids.abs().max() > 2**62
    assert caption_ids(tokens.transpose(0, 1)).equal(ids.transpose(0, 1))
