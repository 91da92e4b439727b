"""training.json: written, read and checked in one place."""

from __future__ import annotations

import json

import pytest

from langsamp.core.facts import FACTS, Share, TrainingFacts, license_of


def test_what_is_written_is_read(tmp_path):
    facts = TrainingFacts(
        base_model="a/b",
        steps=4,
        seconds=1.5,
        losses={"first": 2.0, "last": None},
        loss_curve=[(1, 2.0), (2, None)],
        settings={"learning_rate": 1e-4, "languages": ["deu"]},
        sampling=[Share(language="deu_Latn", blocks=3, probability=1.0, draws=16.0, epochs=5.3)],
    )
    facts.write(tmp_path)
    assert TrainingFacts.read(tmp_path) == facts
    assert facts.curve == [(1, 2.0)]
    assert TrainingFacts.read(tmp_path / "nothing") == TrainingFacts()


def test_a_run_that_diverged_is_read_and_entries_of_other_versions_are_left_out(tmp_path):
    (tmp_path / FACTS).write_text(
        '{"loss_curve": [[10, 5.5], [20, NaN], [30, Infinity]], "new": {"x": 1}, "steps": 7, "seconds": 1e999}'
    )
    facts = TrainingFacts.read(tmp_path)
    assert facts.curve == [(10, 5.5)]
    assert (facts.steps, facts.seconds) == (7, None)


@pytest.mark.parametrize(
    ("card", "name"),
    [
        (b"---\nlicense: mit\n---\n# Model", "mit"),
        (b"\xef\xbb\xbf---\r\nlicense: apache-2.0\r\nlanguage: de\r\n---\r\n", "apache-2.0"),
        (b"---\nlicense: other\nlicense_name: ours\n---\n", None),
        (b"---\nlicense: unknown\n---\n", None),
        (b"---\nlicense: [mit, gpl]\n---\n", None),
        (b"---\nlicense: [\n---\n", None),
        (b"---\n- a\n---\n", None),
        (b"---\nlicense: mit\nmodel-index: 7\n---\n", "mit"),
        (b"# Model without a head", None),
        (b"---\nlicense: \xff\n---\n", None),
        (b"", None),
        (None, None),
    ],
)
def test_the_licence_of_a_model_is_what_its_card_names(tmp_path, card, name):
    if card is not None:
        (tmp_path / "README.md").write_bytes(card)
    assert license_of(tmp_path) == name


def test_the_licence_of_a_model_without_a_card_is_that_of_what_it_was_made_from(tmp_path):
    TrainingFacts(license="cc-by-4.0").write(tmp_path)
    assert license_of(tmp_path) == "cc-by-4.0"
    (tmp_path / "README.md").write_text("# mine, and nobody's business under what licence")
    assert license_of(tmp_path) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"training\.json is not readable JSON"),
        ("[]", r"training\.json must hold a JSON object, not a list"),
        ("[" * 100_000, r"training\.json is not readable JSON \(.*recursion"),
        (b"\xff\xfe", r"training\.json is not readable JSON"),
        ({"steps": "many"}, r"training\.json: steps is 'many', which is not a whole number"),
        ({"steps": True}, "steps is 'True', which is not a whole number"),
        ({"steps": 1.5}, "steps is '1.5', which is not a whole number"),
        ({"seconds": [1]}, r"seconds is '\[1\]', which is not a number"),
        ({"seconds": 10**400}, "seconds is 'inf', which is not a number"),
        ({"losses": {"first": "low"}}, "losses is 'low', which is not a number"),
        ({"loss_curve": [[1, 2, 3]]}, r"loss_curve is '\[1, 2, 3\]', which is not a tuple"),
        ({"sampling": [{"blocks": 1}]}, r"training\.json: sampling has no language"),
        ({"sampling": {}}, "sampling is '{}', which is not a list"),
        ({"settings": []}, r"settings is '\[\]', which is not a dict"),
        ({"device": None, "base_model": 3}, "base_model is '3', which is not a text"),
    ],
)
def test_what_is_wrong_is_named_in_one_sentence(tmp_path, content, message):
    content = json.dumps(content) if isinstance(content, dict) else content
    (tmp_path / FACTS).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message) as error:
        TrainingFacts.read(tmp_path)
    assert "\n" not in str(error.value)
