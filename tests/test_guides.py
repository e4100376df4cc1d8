"""The commands of quick starts and guides run as they stand there, and print what stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from convext.cli.main import main

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for folder in ("start", "guides")
    for path in (ROOT / "docs" / folder).glob("*.md")
    if "```sh" in path.read_text("utf-8")
)


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """A folder with a photograph, the same after a filter, and another one."""
    data = pytest.importorskip("skimage.data")
    image = pytest.importorskip("PIL.Image")
    from PIL import ImageFilter

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVEXT_LANG", "en")
    before = image.fromarray(data.camera())
    before.save("before.png")
    before.filter(ImageFilter.SMOOTH).save("after.png")
    image.fromarray(data.coins()).save("another.png")


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", (ROOT / page).read_text("utf-8"), re.S | re.M)


@pytest.mark.usefixtures("photographs")
@pytest.mark.parametrize("page", PAGES)
def test_commands_of_guides_run(page):
    pytest.importorskip("matplotlib")
    for line in "".join(blocks(page, "sh")).splitlines():
        program, *arguments = shlex.split(line, comments=True)
        assert program == "convext"
        assert main(arguments) == 0


def numbers_as_one(text):
    """Return lines without their last digits, which another instruction set may change."""
    return re.sub(r"\s+", " ", re.sub(r"-?\d+\.\d+", "0.0", text))


@pytest.mark.usefixtures("photographs")
@pytest.mark.parametrize("page", ["docs/start/which-filter.md", "docs/guides/which-filter.md"])
def test_what_guides_show_is_printed(page, capsys):
    pytest.importorskip("matplotlib")
    command = blocks(page, "sh")[0]
    assert main(shlex.split(command)[1:]) == 0
    printed = capsys.readouterr().out
    (shown,) = blocks(page, "text")
    assert numbers_as_one(shown) in numbers_as_one(printed)
    ours, theirs = (
        [float(number) for number in re.findall(r"-?\d+\.\d+", text)] for text in (shown, printed)
    )
    assert len(ours) >= 11
    assert ours == pytest.approx(theirs[: len(ours)], abs=1e-5)
