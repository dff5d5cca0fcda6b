"""Measures of quality against scikit-image, and at their ends."""

from __future__ import annotations

import json

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from framewake.app.cli import main
from framewake.errors import InputError
from framewake.golden import rule
from framewake.media.quality import SAME, compare, ssim
from framewake.media.video import write_video

CLIP = np.stack([rule.image(f"frame{number}", 24, 40, 3) for number in range(5)])


def noisy(sigma):
    noise = np.random.default_rng(1).normal(0, sigma, CLIP.shape)
    return np.clip(CLIP + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("sigma", [1, 8, 60])
def test_the_measures_are_those_of_scikit_image(sigma):
    other = noisy(sigma)
    found = compare(other, CLIP)
    assert found.psnr == pytest.approx(peak_signal_noise_ratio(CLIP, other, data_range=255), abs=1e-3)
    options = {"channel_axis": 2, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = [structural_similarity(a, b, data_range=255, **options) for a, b in zip(CLIP, other, strict=True)]
    assert found.ssim == pytest.approx(np.mean(expected), abs=1e-9)
    assert found.lowest_psnr < found.psnr


def test_equal_clips_are_perfect_and_worse_ones_worse():
    same = compare(CLIP, CLIP)
    assert same == (SAME, SAME, pytest.approx(1.0), pytest.approx(0.0, abs=1e-6))
    little, much = compare(noisy(2), CLIP), compare(noisy(40), CLIP)
    assert little.psnr > much.psnr and little.ssim > much.ssim and 0 < little.flip < much.flip < 1
    assert ssim(CLIP[0], 255 - CLIP[0]) < 0


def test_clips_of_two_sizes_are_refused():
    with pytest.raises(InputError, match="5 frames of 40x24 and 4 frames of 40x24"):
        compare(CLIP, CLIP[:4])
    with pytest.raises(InputError, match="at least 11 px"):
        compare(CLIP[:, :8], CLIP[:, :8])


def exit_code_of(*arguments):
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return stop.value.code


def test_the_command_prints_the_measures(tmp_path, capsys):
    names = [str(write_video(tmp_path / f"{sigma}", noisy(sigma), fps=12, metadata=None)) for sigma in (0, 8)]
    assert exit_code_of("quality", names[1], names[0], "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["psnr"] == pytest.approx(compare(noisy(8), CLIP).psnr) and found["flip"] > 0
    assert exit_code_of("quality", *names) == 0
    assert "PSNR" in capsys.readouterr().out
    assert exit_code_of("quality", names[0], str(tmp_path / "none.mp4")) == 2
