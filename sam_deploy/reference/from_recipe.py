"""The eager model that a recipe describes."""

from __future__ import annotations

from sam_deploy.recipe import Recipe
from sam_deploy.reference.known import known_subject
from sam_deploy.reference.own import factory_subject
from sam_deploy.reference.subject import Subject


def subject_from_recipe(recipe: Recipe) -> Subject:
    """The eager model that `recipe` describes, with its weights.

    Raises:
        InputError: the checkpoint, the factory or the options do not fit.
    """
    return factory_subject(recipe) if recipe.is_own else known_subject(recipe)
