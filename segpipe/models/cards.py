"""A card from whatever says what it must say: TOML, MONAI's metadata.json, nnU-Net's plans.json."""

from typing import Any

from segpipe.errors import ModelError
from segpipe.models.card import Card, parse_card, read_card, to_toml
from segpipe.models.card_draft import Draft
from segpipe.models.foreign_cards import draft_of, no_plan
from segpipe.storage import url_to_fs


def load_card(url: str, configuration: str | None = None, draft: str | None = None) -> tuple[Card, dict[str, Any], str]:
    """The card at `url`, its content, and its text as TOML.

    That of another tool's JSON is made here; `configuration` is one of an nnU-Net plan. It is also written to `draft`,
    where that is given, before anything is judged. Raises ModelError if it is wrong, or where the JSON leaves open
    what somebody must decide.
    """
    if not url.endswith(".json"):
        no_plan(url, configuration)
        fs, path = url_to_fs(url)
        data = fs.cat_file(path)
        card, content = read_card(data, url)
        text = data.decode("utf-8-sig")
        _write(draft, text)
        return card, content, text
    made = draft_of(url, configuration)
    toml = to_toml(made.content, made.notes())
    _write(draft, toml)
    _decided(made, url, draft)
    content = made.stated()
    try:
        return parse_card(content, url), content, toml
    except ModelError as error:
        raise ModelError(error.problem, _next_step("correct", draft)) from None


def _decided(made: Draft, url: str, draft: str | None) -> None:
    """ModelError with all that is open, and why, where a card made of JSON cannot be used as it stands."""
    still_open, reasons = made.open_keys(), "; ".join(made.doubts)
    if still_open:
        told = f"File {url} does not say {', '.join(still_open)}" + (f" ({reasons})" if reasons else "")
    else:
        told = f"File {url} says what its card cannot: {reasons}"
    if still_open or reasons:
        raise ModelError(told, _next_step("complete", draft))


def _next_step(what: str, draft: str | None) -> str:
    where = f"{what} {draft}" if draft else f"run again with --draft FILE.toml, {what} that file,"
    return f"{where} and adopt with it as --card"


def _write(url: str | None, text: str) -> None:
    """Write a draft; ModelError where there is another one, which somebody may have completed."""
    if url is None:
        return
    fs, path = url_to_fs(url)
    if fs.exists(path) and fs.cat_file(path) != text.encode():
        raise ModelError(f"Draft {url} is there and says something else", "give it as --card, or another --draft")
    fs.pipe_file(path, text.encode())
