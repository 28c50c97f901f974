"""The named protocols: what each demands, and how they are described."""

import json

import pytest

from clipgan.errors import UserError
from clipgan.evaluation.protocols import PROTOCOLS, Protocol, protocol_of


def test_each_is_found_by_its_name():
    assert list(PROTOCOLS) == ["here", "dmgan", "original", "coco30k"]
    assert all(protocol_of(name).name == name for name in PROTOCOLS)


def test_an_unknown_name_is_refused_by_one_line_with_the_names_that_there_are():
    with pytest.raises(UserError, match=r"no protocol 'dm-gan': it can be one of here, dmgan, original, coco30k$"):
        protocol_of("dm-gan")


def test_a_description_is_json_of_everything_that_scores_depend_on():
    described = json.loads(json.dumps(PROTOCOLS["original"].describe()))
    assert described == {
        "name": "original",
        "splits": ["train", "test"],
        "crop": "whole",
        "images": None,
        "inception_weights": "published",
        "score_weights": "published",
        "thumbnail": 32,
        "rules": {"splits": 10, "candidates": 100, "folds": 10, "ties_hit": True, "drops_one": True},
    }
    assert PROTOCOLS["here"].describe()["rules"] == described["rules"] | {"ties_hit": False, "drops_one": False}


def test_no_two_protocols_measure_alike():
    described = [{k: v for k, v in protocol.describe().items() if k != "name"} for protocol in PROTOCOLS.values()]
    assert all(described.count(one) == 1 for one in described)


def test_this_projects_own_leaves_number_and_weights_to_the_user():
    here = PROTOCOLS["here"]
    assert (here.images, here.inception_weights, here.score_weights) == (None, None, None)
    assert (here.splits, here.crop, here.thumbnail) == (("test",), "as trained", None)


@pytest.mark.parametrize("name", ["dmgan", "coco30k"])
def test_published_ones_demand_thirty_thousand_images_and_the_published_fid_network(name):
    protocol = PROTOCOLS[name]
    assert (protocol.images, protocol.inception_weights, protocol.score_weights) == (30_000, "published", None)
    assert protocol.crop == {"dmgan": "as trained", "coco30k": "centre"}[name]


def test_describing_one_leaves_it_as_it_was():
    protocol = Protocol("x", "y")
    protocol.describe()["splits"].append("train")
    assert protocol.splits == ("test",) and protocol.rules.seed == 100
