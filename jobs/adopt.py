"""Make a model directory of a network that was trained elsewhere."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # spark-submit puts this folder alone on the path

from segpipe.cli import DONE, Context, check_file, execute
from segpipe.settings import AdoptSettings


def run(settings: AdoptSettings, context: Context) -> int:
    """Hold the network against its card and write the model directory; say what it wants and whom to cite."""
    from segpipe.models.card import printable
    from segpipe.models.cards import load_card
    from segpipe.runtimes.adopt import adopt

    with context.recorded("adopt", None, settings) as record:
        card, content, toml = load_card(settings.card, settings.configuration, settings.draft)
        with record.stage("check and convert"):
            bundle = adopt(settings.network, card, content, settings.model, toml)
        record.model_id = bundle.model_id
        record.lines.append(bundle.seal_line)
        record.lines.append(printable(f"{card.name}, licence {card.licence}; cite: {card.citation}"))
        record.lines.append(f"wants {', '.join(card.modalities)}; gives {', '.join(card.labels.regions)}")
        record.lines += [
            line.removeprefix("# ") for line in toml.splitlines() if line.startswith("# ") and "CHECK" in line
        ]
    return DONE


def check(settings: AdoptSettings) -> None:
    """Refuse a network and a card that are not there."""
    check_file(settings.network, "Network")
    check_file(settings.card, "Card")


def main(argv: list[str] | None = None) -> int:
    """The program: gives its exit code."""
    return execute("adopt", AdoptSettings, run, argv, check=check)


if __name__ == "__main__":
    sys.exit(main())
