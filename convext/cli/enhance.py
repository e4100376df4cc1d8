"""The command ``convext enhance``: a network applied to an image."""

from __future__ import annotations

from argparse import Namespace

from .._support.messages import say
from ..enhancement import enhanced_strips
from ..image.pictures import load_picture, save_strips
from ..image.pillow_files import format_of
from ..nn.models import load_model
from .arguments import Parser, add_shared, integer_from
from .outputs import check_outputs

DESCRIPTION = (
    "Apply a model that Sequential.save or train-images wrote to an image. A model of one "
    "channel changes the luminance of a colour image and leaves its chroma. The result is as "
    "large as the image: where the layers lose pixels, its border is repeated outwards. It "
    "keeps the bits, the ICC profile and the resolution, but no transparency."
)
EXAMPLE = "convext enhance model.npz photo.png enhanced.png"


def add_arguments(parser: Parser) -> None:
    """Add the model, both images, and how much larger the second is."""
    parser.add_argument("model", metavar="MODEL", help="the file of a model")
    parser.add_argument("input", metavar="INPUT", help="an image")
    parser.add_argument("output", metavar="OUTPUT", help="the image to write")
    parser.add_argument(
        "--scale",
        type=integer_from(1),
        default=1,
        metavar="S",
        help="how many times to enlarge the image first, by bicubic interpolation",
    )
    add_shared(parser, "--page", "--max-pixels")


def run(options: Namespace) -> None:
    """Read, predict and write."""
    format_of(options.output)
    check_outputs([options.output], [options.model, options.input])
    model = load_model(options.model)
    picture = load_picture(options.input, options.page, options.max_pixels)
    channels, height, width = picture.shape
    shape = channels, options.scale * height, options.scale * width
    strips = enhanced_strips(model, picture, options.scale)
    save_strips(options.output, shape, strips, like=options.input)
    say("Wrote {file}: {shape}", file=options.output, shape=shape)
