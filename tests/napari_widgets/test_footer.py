"""What the last line of a dock says."""

import pytest

from phasesam.napari_widgets.footer import Footer, brief, duration_text

DOWNLOAD = (
    "could not fetch SAM ViT-B from https://example.org/sam_vit_b.pth: "
    "HTTPSConnectionPool(host='example.org', port=443): Max retries exceeded with url: "
    "/sam_vit_b.pth (Caused by NameResolutionError: Failed to resolve 'example.org'). Without "
    "internet access, put sam_vit_b.pth into a folder and set PHASESAM_MODELS to it."
)
SHORT = (
    "could not fetch SAM ViT-B from https://example.org/sam_vit_b.pth. Without internet "
    "access, put sam_vit_b.pth into a folder and set PHASESAM_MODELS to it."
)


def test_a_long_error_is_shortened_and_whole_in_the_tooltip(qtbot):
    footer = Footer()
    qtbot.addWidget(footer)
    footer.say(DOWNLOAD, details="Traceback", is_error=True)
    assert footer.result.text() == SHORT
    assert footer.result.toolTip() == f"{DOWNLOAD}\n\nTraceback"


@pytest.mark.parametrize("text", ["Open an image first. Then click.", "x" * 500, SHORT])
def test_what_is_short_or_one_sentence_stays(text):
    assert brief(text) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0242, "24 ms"), (2.34, "2.3 s"), (14.2, "14 s"), (185, "3 min 5 s")]
)
def test_durations(seconds, text):
    assert duration_text(seconds) == text
