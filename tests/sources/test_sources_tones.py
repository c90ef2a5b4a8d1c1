"""The pretrained CNN that other tests audit: it really hears."""

import tones


def test_crepe_names_the_semitone_of_a_tone() -> None:
    task = tones.tones()
    scores = task.scores(tones.crepe_tiny())
    assert scores.shape == (256, 72)
    assert float((scores.argmax(-1) == task.targets).float().mean()) > 0.95


def test_tones_are_the_same_each_time_and_normalised() -> None:
    task = tones.tones()
    assert task.digest == tones.tones().digest != tones.tones(seed=1).digest
    assert task.tokens == 512
    assert float(task.inputs.mean(1).abs().max()) < 1e-6
    assert float((task.inputs.std(1) - 1).abs().max()) < 1e-2
