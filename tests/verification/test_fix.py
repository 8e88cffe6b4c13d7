"""`--fix`: the fewest groups with which parity passes, a recipe that says so, or a refusal."""

import msgspec
import pytest
import tiny_artefacts

from sam_deploy.errors import CheckFailed, InputError
from sam_deploy.exporter import Request, export_recipe
from sam_deploy.parity import normal_samples
from sam_deploy.progress import Progress
from sam_deploy.recipe import read_recipe, recipe_from_dict
from sam_deploy.verification.fix import find_fix, fixed_path, save_fixed_recipe
from sam_deploy.verification.suggestions import with_lines

pytestmark = pytest.mark.long

WIDTH = 16
CASES = {
    "outlier": {"precision": "int8", "quantization": {"smooth": 0.0}},
    "cancelling": {"precision": "fp16", "allow_islands": 0.6},
}
HURT = {"outlier": "parts.1", "cancelling": "parts.2"}


@pytest.fixture(scope="module")
def hurt(tmp_path_factory):
    """The artefact of a case and what is suggested for it, once."""
    found = {}

    def make(case):
        if case not in found:
            data = {"model": f"tiny_artefacts:{case}", "plans": {"engines": ["none"]}}
            made = tiny_artefacts.make(
                recipe_from_dict({**data, **CASES[case]}, "a test"),
                tmp_path_factory.mktemp(case),
                validation=normal_samples("input", 24, WIDTH),
                calibration=normal_samples("input", 64, WIDTH, seed=1),
            )
            found[case] = made, made.layers().suggestions
        return found[case]

    return make


@pytest.fixture(scope="module")
def fixed(hurt):
    """The fix of a case, once."""
    found = {}

    def find(case):
        if case not in found:
            found[case] = fix(*hurt(case))
        return found[case]

    return find


def fix(made, suggestions, recipe=None):
    return find_fix(
        recipe or made.recipe,
        made.subject,
        made.graph,
        made.data,
        suggestions,
        work=made.path.parent,
        progress=Progress(),
    )


def held_to(recipe, relative_rms):
    limits = msgspec.structs.replace(recipe.tolerances, relative_rms=relative_rms)
    return msgspec.structs.replace(recipe, tolerances=limits)


def suggestion(made, group):
    """One that nothing was measured for."""
    [usual] = [one for one in made[1] if one.group == HURT[made[0].recipe.model.partition(":")[2]]]
    lines = usual.lines.replace(f'"{usual.group}"', f'"{group}"')
    return msgspec.structs.replace(usual, group=group, lines=lines)


@pytest.mark.parametrize("case", CASES)
def test_the_group_that_hurts_is_found_and_no_other(hurt, fixed, case):
    made, suggestions = hurt(case)
    found = fixed(case)
    assert suggestions[0].group == HURT[case]
    assert [one.group for one in found.added] == [HURT[case]]
    first, second, *_ = found.tried
    assert first.groups == []
    assert "relative RMS" in first.failures[0]
    assert second.groups == [HURT[case]]
    assert second.passed
    assert second.parity.outputs[0].relative_rms < first.parity.outputs[0].relative_rms / 10
    assert found.recipe.tolerances == made.recipe.tolerances


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_needed_is_dropped_again(hurt, case):
    made, suggestions = hurt(case)
    useless = [suggestion(hurt(case), group) for group in ("parts.3", "head")]
    found = fix(made, [*useless, suggestions[0]])
    assert [one.group for one in found.added] == [HURT[case]]
    assert [one.groups for one in found.tried[:4]] == [
        [],
        ["parts.3"],
        ["parts.3", "head"],
        ["parts.3", "head", HURT[case]],
    ]


def test_in_fp16_it_becomes_an_island_and_in_int8_it_stays_in_fp16(fixed):
    [island] = fixed("cancelling").recipe.islands
    assert island.match == "parts.2"
    assert "of the squared error of the outputs comes from it" in island.reason
    assert fixed("outlier").recipe.quantization.keep == ["parts.1"]
    assert fixed("outlier").recipe.quantization.smooth == 0
    assert fixed("outlier").recipe.islands == []


@pytest.mark.export
@pytest.mark.parametrize("case", CASES)
def test_the_written_recipe_makes_a_bundle_that_passes(hurt, fixed, case, tmp_path):
    made, _ = hurt(case)
    path = fixed_path(tmp_path / "net.toml")
    assert path.name == "net.fixed.toml"
    save_fixed_recipe(made.recipe, fixed(case), path)
    text = path.read_text()
    assert text.startswith("# By sam-parity --fix. Without what was added parity failed:\n#   out")
    assert f"#   {HURT[case]} (relative RMS " in text
    again = read_recipe(path)
    assert again == fixed(case).recipe
    calibration = made.data.calibration
    batches = calibration and [x["input"][None] for _, x in calibration.make(0)]
    request = Request(calibration=batches)
    report = export_recipe(again, out=tmp_path, request=request).manifest.parity[0]
    assert report.passed
    assert report.tolerances == made.recipe.tolerances


def test_nothing_is_overwritten_or_written_where_no_folder_is(hurt, fixed, tmp_path):
    path = tmp_path / "net.fixed.toml"
    path.write_text("mine")
    with pytest.raises(InputError, match="is not overwritten"):
        save_fixed_recipe(hurt("outlier")[0].recipe, fixed("outlier"), path)
    assert path.read_text() == "mine"
    with pytest.raises(InputError, match="no folder"):
        save_fixed_recipe(hurt("outlier")[0].recipe, fixed("outlier"), tmp_path / "no" / "x.toml")


@pytest.mark.parametrize("case", CASES)
def test_what_no_set_fixes_is_refused_with_what_is_left(hurt, case):
    made, suggestions = hurt(case)
    with pytest.raises(
        CheckFailed, match=r"no fix was found: with 1 groups .*\n  output: relative"
    ):
        fix(made, suggestions[:1], held_to(made.recipe, 1e-8))
    with pytest.raises(CheckFailed, match="with 0 groups kept"):
        fix(made, [])


def test_a_group_that_cannot_be_kept_is_passed_over(hurt):
    made, suggestions = hurt("cancelling")
    recipe = msgspec.structs.replace(made.recipe, allow_islands=0.05)
    small = suggestion(hurt("cancelling"), "parts.2.norm")
    with pytest.raises(CheckFailed, match=r"of the multiply-adds would stay in FP32") as refused:
        fix(made, [suggestions[0], small], recipe)
    assert "parts.2 could not be made so" in str(refused.value)
    assert "with 1 groups" in str(refused.value)


def test_a_recipe_that_passes_is_no_remedy_for_a_broken_bundle(hurt):
    made, suggestions = hurt("cancelling")
    loose = {"relative_rms": 0.1, "max_error": 0.1, "cosine": 0.9, "top1_agreement": 0.0}
    limits = msgspec.structs.replace(made.recipe.tolerances, **loose)
    recipe = msgspec.structs.replace(made.recipe, tolerances=limits)
    with pytest.raises(CheckFailed, match="the recipe is fine: export again"):
        fix(made, suggestions, recipe)


def test_lines_are_added_to_those_that_are_there(hurt):
    made, _ = hurt("outlier")
    recipe = with_lines(made.recipe, '[quantization]\nkeep = ["head"]\n')
    policy = msgspec.structs.replace(recipe.quantization, quantize=["parts.0", "parts.3"])
    recipe = msgspec.structs.replace(recipe, quantization=policy)
    recipe = with_lines(recipe, '[quantization]\nkeep = ["parts.0"]\n')
    assert recipe.quantization.keep == ["head", "parts.0"]
    assert recipe.quantization.quantize == ["parts.3"]
    recipe = with_lines(recipe, '[[islands]]\nmatch = "parts.2"\nreason = "so"\n')
    assert [island.match for island in recipe.islands] == ["parts.2"]
