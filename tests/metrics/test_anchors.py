"""Every measure stands on tests: what each must read on known input, and against whom it was held.

A new row in `METRICS` or `SETS` needs a row here and one in docs/stages/score.md.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from cinetune.metrics.sets import SETS
from cinetune.metrics.suite import METRICS

TESTS = Path(__file__).resolve().parents[1]
DOCS = TESTS.parent / "docs" / "stages" / "score.md"

# Known input (identity, closed form or law), then parity with the source it is defined by; "" = defined here.
ANCHORS = {
    "tone_w1": ("metrics/test_grade.py::test_each_distance_is_zero_for_itself_and_grows_with_the_grade",
                "metrics/test_grade.py::test_tone_curve_is_signed_and_its_mean_is_the_wasserstein_distance"),
    "lab_frechet": ("metrics/test_grade.py::test_lab_frechet_of_a_shift_is_its_length",
                    "metrics/test_distances.py::test_frechet_equals_the_matrix_square_root"),
    "split_tone": ("metrics/test_grade.py::test_split_tone_finds_the_zone_and_ignores_exposure",
                   "metrics/test_grade.py::test_lab_and_delta_e_agree_with_scikit_image"),
    "palette": ("metrics/test_grade.py::test_palette_recovers_flat_colours_and_their_shares",
                "metrics/test_grade.py::test_lab_and_delta_e_agree_with_scikit_image"),
    "colour_error": ("metrics/test_grade.py::test_colour_curve_follows_a_fade_frame_by_frame_and_ignores_grain",
                     "metrics/test_grade.py::test_delta_e2000_published_pairs_and_symmetry"),
    "structure": ("metrics/test_structure.py::test_more_damage_reads_worse_step_by_step",
                  "metrics/test_structure.py::test_ssim_equals_scikit_image_on_the_same_planes"),
    "structure_kept": ("metrics/test_suite.py::test_structure_without_a_truth_is_held_against_the_twin",
                       "metrics/test_structure.py::test_ssim_equals_scikit_image_on_the_same_planes"),
    "gradients": ("metrics/test_structure.py::test_itself_is_one_and_a_grade_changes_nothing", ""),
    "content": ("metrics/test_suite.py::test_content_is_the_mean_cosine_with_the_truth", ""),
    "lpips": ("metrics/test_similarity.py::test_perceptual_distance_by_hand",
              "oracle/test_published.py::test_lpips_equals_lpips"),
    "tlp": ("metrics/test_similarity.py::test_tlp_sees_freezing_and_flicker_alike",
            "oracle/test_published.py::test_lpips_equals_lpips"),
    "motion_error": ("metrics/test_suite.py::test_a_frozen_shot_is_still_and_moves_less_than_its_truth", ""),
    "warp_error": ("metrics/test_structure.py::test_a_clean_pan_warps_onto_itself_and_flicker_does_not", ""),
    "flicker_error": ("metrics/test_suite.py::test_the_truth_itself_scores_best_where_there_is_a_truth", ""),
    "motion": ("metrics/test_temporal.py::test_motion_speed_is_proportional_and_deaf_to_exposure_contrast_and_grain",
               ""),
    "luma_flicker": ("metrics/test_temporal.py::test_flicker_separates_pulsing_from_motion_and_fades", ""),
    "still": ("metrics/test_temporal.py::test_stillness_finds_frozen_clips_and_runs", ""),
    "drift": ("metrics/test_temporal.py::test_colour_drift_starts_at_zero_and_grows",
              "metrics/test_grade.py::test_delta_e2000_published_pairs_and_symmetry"),
    "seam_ratio": ("metrics/test_temporal.py::test_seam_ratio_is_one_for_a_smooth_join_and_grows_with_a_jump", ""),
    "clip_text": ("metrics/test_similarity.py::test_cosines_by_hand_and_scale_free",
                  "metrics/test_features.py::test_clip_features_equal_the_model_called_by_hand"),
    "clip_frame": ("metrics/test_similarity.py::test_cosines_by_hand_and_scale_free",
                   "metrics/test_features.py::test_clip_features_equal_the_model_called_by_hand"),
    "clip_reference": ("metrics/test_similarity.py::test_cosines_by_hand_and_scale_free",
                       "metrics/test_features.py::test_clip_features_equal_the_model_called_by_hand"),
    "clip_kid": ("metrics/test_distances.py::test_kid_hand_case",
                 "oracle/test_published.py::test_kid_equals_clean_fid_torch_fidelity_and_torchmetrics"),
    "clip_fid": ("metrics/test_distances.py::test_frechet_of_known_gaussians",
                 "oracle/test_published.py::test_frechet_equals_clean_fid_torch_fidelity_and_torchmetrics"),
    "cmmd": ("metrics/test_distances.py::test_cmmd_is_near_ten_times_the_squared_mean_difference",
             "oracle/test_published.py::test_cmmd_equals_its_formula_written_out"),
    "kvd": ("metrics/test_distances.py::test_kid_matches_the_population_value",
            "oracle/test_published.py::test_kid_equals_clean_fid_torch_fidelity_and_torchmetrics"),
    "fvd": ("metrics/test_distances.py::test_frechet_laws",
            "oracle/test_published.py::test_i3d_equals_the_module_of_cd_fvd_on_the_same_random_weights"),
}  # fmt: skip


def test_every_measure_has_its_anchors_and_no_other_has() -> None:
    assert set(ANCHORS) == {row.name for row in METRICS} | {row.name for row in SETS}


@pytest.mark.parametrize("name", ANCHORS)
def test_the_anchors_are_there_and_assert_something(name: str) -> None:
    for place in filter(None, ANCHORS[name]):
        file, _, test = place.partition("::")
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        found = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == test]
        assert found, f"{place} is gone"
        checks = [n for n in ast.walk(found[0]) if isinstance(n, ast.Assert) or "assert_" in ast.unparse(n)]
        assert checks, f"{place} asserts nothing"


@pytest.mark.parametrize("name", ANCHORS)
def test_every_measure_has_a_row_in_the_docs(name: str) -> None:
    heads = [line.split("|")[1] for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert any(f"`{name}`" in re.findall(r"`[a-z0-9_]+`", head) for head in heads)
