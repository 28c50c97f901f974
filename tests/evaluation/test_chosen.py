"""Which scores are measured while the GAN trains, and which of them keeps the best generator."""

import pytest

from clipgan.config import Config, config_of_settings
from clipgan.errors import UserError
from clipgan.evaluation.chosen import Chosen
from clipgan.evaluation.metrics.card import Rules


def chosen(*settings: str) -> Chosen:
    return Chosen.of(config_of_settings(settings))


def test_without_a_word_the_scores_are_those_that_cost_little():
    assert chosen().keys == ["r_precision", "attributes"]
    assert chosen("EVAL.INCEPTION_WEIGHTS=random").keys == ["r_precision", "attributes", "fid"]
    assert chosen("EVAL.METRICS=[clip_score]").keys == ["r_precision", "clip_score"]  # that of BEST_BY as well


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["EVAL.BEST_BY=beauty"], "EVAL.BEST_BY: there is no score 'beauty': it can be one of r_precision"),
        (["EVAL.METRICS=[fid, beauty]", "EVAL.INCEPTION_WEIGHTS=random"], "EVAL.METRICS: there is no score 'beauty'"),
        (["EVAL.BEST_BY=kid", "EVAL.BEST_SPLIT=test"], "EVAL.BEST_BY is kid, but EVAL.INCEPTION_WEIGHTS is empty"),
        (["EVAL.METRICS=[inception_score]"], "EVAL.METRICS asks for inception_score, but EVAL.SCORE_WEIGHTS is empty"),
        (["EVAL.BEST_BY=fid", "EVAL.INCEPTION_WEIGHTS=random"], "set EVAL.BEST_SPLIT to test"),
        (["EVAL.METRICS=fid"], "EVAL.METRICS must be a list of names, such as"),
        (["EVAL.METRICS=[1]"], "EVAL.METRICS must be a text"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_is_read(settings, said):
    with pytest.raises(UserError) as error:
        chosen(*settings)
    assert said in str(error.value)


def test_the_best_is_the_largest_number_also_where_less_is_better():
    by_kid = chosen("EVAL.BEST_BY=kid", "EVAL.BEST_SPLIT=test", "EVAL.INCEPTION_WEIGHTS=random")
    assert by_kid.best({"kid": 0.25, "test_r_precision": 0.5}) == -0.25
    by_retrieval = chosen("EVAL.BEST_SPLIT=test")
    assert by_retrieval.best({"test_r_precision": 0.5, "train_r_precision": 0.75}) == 0.5


def test_a_data_set_without_oracle_refuses_attributes_only_if_asked_for():
    chosen().require_oracle("data/birds", known=False)
    chosen("EVAL.BEST_BY=attributes").require_oracle("data/toy", known=True)
    for setting, said in (("EVAL.BEST_BY=attributes", "BY is attr"), ("EVAL.METRICS=[birds_found]", "METRICS asks")):
        with pytest.raises(UserError, match=f"{said}.*only the drawn data set has, not data/birds"):
            chosen(setting).require_oracle("data/birds", known=False)


def test_too_few_images_are_refused_hours_before_they_are_measured():
    networks = ["EVAL.INCEPTION_WEIGHTS=random", "EVAL.SCORE_WEIGHTS=random"]
    settings = ["EVAL.METRICS=[precision, inception_score]", *networks]
    real = {"train": 100, "test": 100}
    chosen(*settings).require_enough({"train": 10, "test": 10}, real, Rules())
    for few, said in ((5, "at least 6 images on each side, not 5 and 100"), (8, "needs at least 10 images, not 8")):
        with pytest.raises(UserError, match=f"while training: .*{said}.*raise EVAL.MEASURE_IMAGES"):
            chosen(*settings).require_enough({"train": few, "test": few}, real, Rules())


def test_the_cards_of_the_config_have_names_in_the_numbers():
    plan = chosen("EVAL.METRICS=[precision, coverage]", "EVAL.INCEPTION_WEIGHTS=random")
    (metric,) = (metric for metric in plan.metrics if metric.against)
    values = [type("Measured", (), {"value": number}) for number in range(4)]
    assert dict(plan.named(metric, "test", values)) == {"precision": 0, "coverage": 3}
    assert Config().EVAL.METRICS == []
