"""``cookbook check``: the report of `DataBlock.check` on the data, read as a recipe reads it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from recipes.discovery import Recipe, find_recipe, recipe_names
from recipes.options import CommonOptions, Parser, add_arguments

if TYPE_CHECKING:
    from common.data.check import DataCheck


def check_data(recipe: Recipe, options: CommonOptions) -> "DataCheck":
    """Returns the report of a recipe's data.

    Args:
        recipe: The recipe.
        options: With which it would run.
    """
    source = recipe.find_source(options)
    report = recipe.make_block(options, source).check(source.items)
    report.warnings.extend(source.notes)
    return report


def recipe_of(data: str, rest: Sequence[str]) -> str:
    """Returns the only recipe that has the given options and can make sense of some data.

    Args:
        data: Its path.
        rest: What stands behind it on the command line.

    Raises:
        DataError: if none can (with the reason of each), or several can: then one is to be named.
    """
    from common.errors import CookbookError, DataError

    able, refused = list[str](), list[str]()
    for name in recipe_names():
        recipe = find_recipe(name)
        parser = Parser(prog="cookbook check", allow_abbrev=False)
        add_arguments(parser, recipe.Options)
        if wrong := [word for word in rest if word.startswith("--") and not parser.knows(word)]:
            refused.append(f"{name} has no option {wrong[0]}")
            continue
        options = recipe.Options(**vars(parser.parse_args(["--data", data, *rest])))
        try:
            source = recipe.find_source(options)
            recipe.make_block(options, source).prepare(source.items)
            able.append(name)
        except (CookbookError, OSError) as error:
            refused.append(f"{name}: {error}")
    if len(able) == 1:
        return able[0]
    if not able:
        raise DataError(f"no recipe can make sense of {data}: {'; '.join(refused)}")
    ways = " or ".join(f"cookbook check {name} --data {data}" for name in able)
    raise DataError(f"{data} can be read as {' and as '.join(able)}: say {ways}")
