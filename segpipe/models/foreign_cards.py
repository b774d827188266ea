"""Cards made of what other tools write beside their networks: MONAI's bundles and nnU-Net's plans.

What such a file does not say stays open in the card, or is marked to be checked: a silent guess about a patient's left
and right would be worse than a question. All are read as data; no expression of a MONAI bundle (`$…`) is evaluated.
"""

import json
from typing import Any

from segpipe.errors import ModelError
from segpipe.models.card_draft import Draft
from segpipe.models.monai_cards import monai_draft
from segpipe.models.nnunet_cards import nnunet_draft
from segpipe.storage import url_to_fs

_LARGEST_BYTES = 1 << 24
_PIPELINES = ("inference.json", "inference.yaml", "inference.yml")


def draft_of(url: str, configuration: str | None = None) -> Draft:
    """The card of a MONAI bundle (`url` is its metadata.json) or of an nnU-Net plan (its plans.json).

    Beside the one stands inference.json or inference.yaml, beside the other dataset.json. Raises ModelError if a file
    is none of these or holds too little to begin with.
    """
    content = _read(url)
    if content is None:
        raise ModelError(f"File {url} is missing", "check the path")
    if "network_data_format" in content:
        no_plan(url, configuration)
        pipelines = {name: _read(_sibling(url, name)) for name in _PIPELINES}
        name = next((name for name, found in pipelines.items() if found is not None), "")
        return _made(url, "MONAI", monai_draft, content, name, pipelines.get(name), url)
    if "configurations" in content:
        dataset = _read(_sibling(url, "dataset.json"))
        if dataset is None:
            raise ModelError(f"File {_sibling(url, 'dataset.json')} is missing", "copy it beside the other one")
        return _made(url, "nnU-Net", nnunet_draft, content, dataset, configuration, url)
    raise ModelError(
        f"File {url} is neither MONAI's metadata.json nor nnU-Net's plans.json",
        "give one of these, which stand beside inference.json and dataset.json, or a card: see docs/how-to/adopt.md",
    )


def no_plan(url: str, configuration: str | None) -> None:
    """ModelError if a configuration is named of what has none."""
    if configuration is not None:
        raise ModelError(
            f"Card {url} has no configuration {configuration!r}, because only plans.json of nnU-Net has some",
            "leave --configuration out, or give plans.json as --card",
        )


def _made(url: str, tool: str, make: Any, *given: Any) -> Draft:
    """What `make` makes; ModelError where a value is of a kind that the tool never writes there."""
    try:
        draft: Draft = make(*given)
    except ModelError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ModelError(
            f"File {url}, or the one beside it, is not built as {tool}'s are ({type(error).__name__}: {error})",
            "copy them again, or write a card by hand, see docs/how-to/adopt.md",
        ) from error
    return draft


def _sibling(url: str, name: str) -> str:
    return f"{url.rpartition('/')[0]}/{name}" if "/" in url else name


def _read(url: str) -> dict[str, Any] | None:
    """The object that a file holds, in JSON or YAML; None if there is no file."""
    fs, path = url_to_fs(url)
    kind = "JSON" if url.endswith(".json") else "YAML"
    try:
        with fs.open(path, "rb") as file:
            data = file.read(_LARGEST_BYTES)
        content = json.loads(data) if kind == "JSON" else _yaml(data)
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"File {url} is not {kind} ({error})", "correct that line, or copy it again") from None
    if not isinstance(content, dict):
        raise ModelError(f"File {url} holds no {kind} object", "copy it again")
    return content


def _yaml(data: bytes) -> Any:
    """What YAML holds, as plain data: no tag of it makes an object. ValueError if it is none."""
    import yaml

    try:
        return yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
