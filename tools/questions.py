"""Ask the site's own search what people asked in forums, and show where it finds the answers.

    python -m sphinx -W -c docs . build/site
    python -m tools.questions build/site

The titles are real ones. Each is to have an answer, one of the places behind it, among the first
three results; where one has not, the status is 1. The search runs in Node, with the site's scripts.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

FIRST = 3

# A page, or a section of it.
QUESTIONS = {
    # Stack Overflow, Signal Processing Stack Exchange and forums.
    "Calculating the blur kernel between 2 images": [
        "guides/questions#how-do-i-estimate-the-blur-kernel",
        "guides/which-filter",
    ],
    "Estimating Convolution Kernel from Input and Output Images": [
        "guides/questions#how-do-i-estimate-the-blur-kernel",
        "least-squares",
    ],
    "Determining what filter (if any) has been applied to an image": ["guides/which-filter"],
    "Fastest 2D convolution or image filter in Python": ["guides/questions#what-is-the-fastest"],
    "Backprop over kernels in a CNN": ["guides/questions#backpropagation", "conv2d_kernel_grad"],
    "Does filter2D in opencv really do its job?": ["guides/from-scipy-opencv"],
    "Transfer Conv2D layers from Keras to Pytorch Give a Wrong Result": ["guides/from-keras"],
    "Multi-Dimensional Batch-Image Convolution using Numpy": [
        "start/networks",
        "guides/questions#how-do-i-convolve-many-images",
    ],
    "How can I use Keras with datasets that don't fit in memory?": [
        "large-data",
        "guides/questions#how-do-i-train-on-a-dataset",
    ],
    # SciPy's, PyTorch's, Keras's, Pillow's, Dask's and others' lists of issues.
    "speed up convolve2d": ["guides/questions#what-is-the-fastest", "guides/from-scipy-opencv"],
    "Slow convolution with large kernels, should be using FFT": [
        "docs/fft",
        "guides/questions#what-is-the-fastest",
    ],
    "Strided transposed convolution returning wrong shape": [
        "guides/from-pytorch#a-transposed-convolution"
    ],
    "Resuming training from saved checkpoint produces different result than uninterrupted "
    "training": [
        "docs/checkpoints",
        "guides/questions#how-do-i-resume",
    ],
    "A high learning rate may cause a nan or an inf loss with tf.keras.optimizers.SGD": [
        "guides/questions#why-does-my-loss",
        "suggest_learning_rate",
    ],
    "loading a very large dataset from different npy files": [
        "large-data",
        "guides/questions#how-do-i-train-on-a-dataset",
    ],
    "clang: error: unsupported option '-fopenmp'": ["guides/installation"],
    "Oversubscription slowdown when run under container CPU quotas": [
        "docs/threads",
        "guides/questions#why-is-only-one-cpu-core-used",
    ],
    "Saving 16-bit grayscale PNG image doesn't work": ["guides/files"],
    "Spatially varying PSF": [
        "gallery/blur_over_the_field",
        "guides/questions#what-if-the-blur-is-different",
    ],
    "dask array map_overlay large memory use": ["docs/dask"],
}

# What the scripts of the page take from the browser, of which searching needs nothing.
BROWSER = """
const window = globalThis, localStorage = { setItem() {} }, SPHINX_HIGHLIGHT_ENABLED = false;
const document = { getElementById: () => null }, _ready = () => {};
"""
SCRIPTS = ("_static/searchtools.js", "_static/language_data.js", "_static/search.js")
ASK = """
const found = (question) => Search._performSearch(...Search._parseQuery(question)).reverse();
const place = ([page, , anchor]) => page + anchor;
console.log(JSON.stringify(QUESTIONS.map((question) => found(question).map(place))));
"""


def ask(site: Path, questions: list[str]) -> list[list[str]]:
    """Return the places that the search finds for each question, the best one first."""
    scripts = [(site / name).read_text("utf-8") for name in (*SCRIPTS, "searchindex.js")]
    program = "\n;".join([BROWSER, *scripts, f"const QUESTIONS = {json.dumps(questions)};", ASK])
    done = subprocess.run(
        ["node", "-"], input=program, capture_output=True, check=True, encoding="utf-8"
    )
    results: list[list[str]] = json.loads(done.stdout)
    return results


def main() -> int:
    """Print each question, and at which rank which of its answers is found."""
    unanswered = 0
    for question, places in zip(QUESTIONS, ask(Path(sys.argv[1]), [*QUESTIONS]), strict=True):
        answers = [
            (rank, place)
            for rank, place in enumerate(places[:FIRST], 1)
            if any(answer in place for answer in QUESTIONS[question])
        ]
        unanswered += not answers
        rank, place = answers[0] if answers else ("-", f"not in {places[:FIRST]}")
        print(f"{rank}  {question}\n   {place}")
    print(f"{len(QUESTIONS) - unanswered} of {len(QUESTIONS)} are answered by the first {FIRST}")
    return int(unanswered > 0)


if __name__ == "__main__":
    sys.exit(main())
