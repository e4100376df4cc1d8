"""What people read has its Chinese, and both say the same."""

from __future__ import annotations

import argparse
import ast
import errno
import io
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import convext
from convext._support import messages
from convext._support.messages import columns, counted, printable, say, translate, translate_error
from convext.cli import main as cli
from convext.cli.commands import COMMANDS, make_parser
from convext.cli.help import wrap
from convext.ops import explanations

PACKAGE = Path(convext.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Errors that only the command line raises; those of the Python API are English, but the most common
# of them are translated, too, where the command line prints them.
OF_THE_COMMAND_LINE = set((PACKAGE / "cli").glob("*.py"))

# Their warnings are shown by the command line.
WARNING = {
    PACKAGE / f"{name}.py"
    for name in (
        "image/pillow_files",
        "image/images",
        "image/pictures",
        "solve/least_squares",
    )
}

# What Python itself says of a number that is none.
OF_PYTHON = [
    "could not convert string to float: ",
    "invalid literal for int() with base 10: ",
]

# One word, one translation.
TERMS = {
    r"learning rate": "学习率",
    r"kernels?\b(?! (file|size|of each))": "卷积核",
    r"epochs?\b": "轮",
    r"loss(es)?\b": "损失",
    r"samples?\b": "样本",
    r"channels?\b": "通道",
    r"seed": "随机种子",
    r"threads?\b": "线程",
    r"input data": "输入数据",
    r"target output": "目标输出",
    r"mean squared error": "均方误差",
    r"gradient descent": "梯度下降",
    r"layers?\b": "层",
    r"filters?\b": "滤波器",
    r"images?\b": "图像",
    r"folder": "文件夹",
    r"files?\b(?! system)": "文件",
    r"patch(es)?\b": "图像块",
    r"luminance": "亮度",
    r"network": "网络",
    r"model\b": "模型",
    r"arrays?\b": "数组",
    r"activation": "激活函数",
    r"validation": "验证",
    r"border": "边缘",
    r"weights": "权重",
    r"shape\b(?! H)": "形状",
    r"warning": "警告",
}


@pytest.fixture
def chinese(monkeypatch):
    monkeypatch.setenv("CONVEXT_LANG", "zh")


def has_chinese(text):
    return re.search(r"[\u4e00-\u9fff]", text) is not None


def template(node):
    """The text that an expression stands for, with braces for what is filled in; None if none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            part.value if isinstance(part, ast.Constant) else "{}" for part in node.values
        )
    return None


def calls(*names):
    """Every call of one of these functions in the package, with where it is."""
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in names:
                yield f"{source.relative_to(PACKAGE)}:{node.lineno}", node


def help_texts(parser):
    """Every text that a parser and its commands show."""
    yield from (text for part in (parser.description, parser.epilog) for text in part.splitlines())
    for group in parser._action_groups:
        yield group.title
    for action in parser._actions:
        yield action.help
        if isinstance(action, argparse._SubParsersAction):
            yield from (choice.help for choice in action._choices_actions)
            for command in action.choices.values():
                yield from help_texts(command)


def texts_of_help():
    return {text for text in help_texts(make_parser()) if text and not text.startswith(" ")} | {
        "usage:"
    }


def texts_of_code():
    """Every call that names a text, with where it is."""
    for place, call in calls("say", "translate", "counted"):
        if not place.startswith("_support/messages.py"):
            yield place, call


def texts_of_ways():
    """What a way says of where it applies, and what is said around it."""
    for source in Path(__file__).parents[1].joinpath("src/convext").glob("*/*.p[yx][xd]"):
        text = source.read_text("utf-8")
        for function in re.findall(
            r"^cdef (?:inline )?const char \*\w+\(.*?^(?=cdef)", text, re.M | re.S
        ):
            for found in re.findall(r'\breturn \(?((?:\s*"[^"]*")+)', function):
                yield "".join(re.findall(r'"([^"]*)"', found))
    yield from (explanations.LEGEND, explanations.IMPOSSIBLE, explanations.BY_NAME)


def commands():
    return [[], *([name] for name in COMMANDS)]


# Completeness


def test_every_help_text_has_its_chinese():
    assert texts_of_help() - messages._chinese("messages").keys() == set()


def test_what_ways_say_has_its_chinese():
    texts = set(texts_of_ways())
    assert len(texts) > 20
    assert texts - messages._chinese("messages").keys() == set()


def test_every_message_is_a_constant_that_has_its_chinese():
    known = messages._chinese("messages")
    for place, call in texts_of_code():
        if place.startswith("cli/help.py"):  # it translates what the tests around look at
            continue
        name, text = call.func.id, call.args[call.func.id == "counted"]
        assert isinstance(text, ast.Constant), f"{place}: {name} of something not constant"
        assert text.value in known, f"{place}: no Chinese for {text.value!r}"
        if name != "counted":
            given = {keyword.arg for keyword in call.keywords}
            assert given == fields(text.value), f"{place}: the fields of {text.value!r}"


def fields(text):
    return set(re.findall(r"\{(\w+)\}", text))


@pytest.mark.parametrize("part", ["messages", "errors"])
def test_chinese_and_english_have_the_same_fields(part):
    for english, chinese in messages._chinese(part).items():
        assert fields(english) == fields(chinese)
        assert english == english.strip()
        assert chinese == chinese.strip()
        assert has_chinese(chinese) or chinese == english


def test_what_fits_most_errors_comes_last():
    assert list(messages._chinese("errors"))[-1] == "{file}: {message}"


def test_no_chinese_is_left_over():
    used = (
        texts_of_help()
        | set(texts_of_ways())
        | {
            constant.value
            for _, call in texts_of_code()
            for constant in ast.walk(call)
            if isinstance(constant, ast.Constant)
        }
    )
    assert messages._chinese("messages").keys() - used == set()


def test_no_chinese_of_errors_is_left_over():
    """What stands between the fields of an error is in a text of this package, or of Python."""
    texts = [*map(os.strerror, errno.errorcode), *OF_PYTHON]
    for source in [*SOURCES, Path(argparse.__file__)]:
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            texts.append(template(node) or "")
    text = "\n".join(texts).replace("%(choices)s", "").replace("%(value)r", "")
    put_together = r"\{\w+\}|^it |\(shapes | and | above| at least| at most| below| for kernel"
    for english in messages._chinese("errors"):
        for part in re.split(put_together, english):
            assert part.strip(" :()") in text, english


def test_words_are_printed_by_say_alone():
    """`print_line` is for data, and for what was translated."""
    for place, call in calls("print", "print_line"):
        if place.startswith("_support/messages.py"):
            continue
        constant = (template(call.args[0]) or "").replace("Sequential", "").replace("convext", "")
        assert not re.search(r"[A-Za-z]{2}", constant), place


def raised(source):
    """Every exception and warning that a file makes with a text, and the text, filled in."""
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        call = node.exc if isinstance(node, ast.Raise) else node
        if isinstance(call, ast.Call) and call.args:
            kind = ast.unparse(call.func) if call is node else "raise"
            text = template(call.args[0]) if kind in ("raise", "warn") else None
            if text is not None and not text.startswith("{} (see"):
                # Of two files only, whose shapes are put together before.
                for before in ("1x1 {}", "INPUT {}"):
                    text = text.replace(before, before.replace("{}", "(shapes {} and {})"))
                yield kind, text.replace("{}", "7")


def test_every_error_and_warning_of_the_command_line_has_its_chinese(chinese):
    count = 0
    for source in SOURCES:
        for kind, text in raised(source):
            if source in (OF_THE_COMMAND_LINE if kind == "raise" else WARNING):
                translated = translate_error(text)
                assert has_chinese(translated), f"{source.name}: {text}"
                assert_no_english(translated)
                count += 1
    assert count > 15


@pytest.mark.parametrize("term", TERMS)
def test_one_word_has_one_translation(term):
    pairs = {**messages._chinese("messages"), **messages._chinese("errors")}
    found = 0
    for english, chinese in pairs.items():
        if english.startswith("kernels has"):  # the name of an argument
            continue
        # Names of arguments and files stay as they are.
        text = re.sub(r"\{\w+\}|--[\w-]+|\w*_\w+|[\w.]+\.npz|train-images", "", english)
        if re.search(rf"\b{term}", text, re.IGNORECASE):
            found += 1
            assert TERMS[term] in chinese, (english, chinese)
    assert found or term == "warning"


# What the commands print


def assert_no_english(text):
    text = re.sub(r"convext( [a-z-]+)?|\w+\.npz", "", text)
    assert not re.search(r"\b[a-z]{2,} [a-z]{2,} [a-z]{2,}\b", text), text


@pytest.mark.parametrize("command", commands(), ids=" ".join)
@pytest.mark.parametrize("lang", ["zh", "en"])
@pytest.mark.parametrize("width", [80, 40])
def test_help_fits_the_terminal(command, lang, width, monkeypatch, capsys):
    monkeypatch.setenv("CONVEXT_LANG", lang)
    monkeypatch.setenv("COLUMNS", str(width))
    assert cli.main([*command, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("用法: convext" if lang == "zh" else "usage: convext")
    shown, _, example = out.partition("例:\n" if lang == "zh" else "example:\n")
    assert f"convext {' '.join(command)}" in example
    for line in shown.splitlines():
        assert columns(line) <= width or len(line.split()) == 1, line
        if lang == "zh":
            assert_no_english(line)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "错误: 缺少参数: COMMAND（见 convext --help）"),
        (["learn"], "错误: 参数 COMMAND: 'learn' 无效（可选: "),
        (["train", "--speed", "9"], "错误: 无法识别的参数: --speed（见 convext --help"),
        (["train", "x.npy"], "错误: 给出 INPUT 时也要给出 TARGET（见 convext train --help）"),
        (["train", "--epochs"], "错误: 参数 --epochs: 应有一个值（见 convext train --help）"),
        (["train", "--epochs", "0"], "错误: 参数 --epochs: 不得小于 1，实际为 0（见"),
        (["train", "--epochs", "1" + "0" * 30], "错误: 参数 --epochs: 过大: 1000"),
        (["train", "--epochs", "2.5"], "错误: 参数 --epochs: 应为整数，实际为 '2.5'（见"),
        (["train", "--quiet=1"], "错误: 参数 --quiet: 多余的值 '1'（见"),
        (["train", "--kernel-shape"], "错误: 参数 --kernel-shape: 应有 2 个值（见"),
        (["train", "--padding", "full"], "应为 valid、same 或不小于 0 的整数，实际为 'full'"),
        (["train", "--learning-rate", "0"], "应为大于 0 的有限数，实际为 '0'"),
        (["train", "--method", "fast"], "参数 --method: 'fast' 无效（可选: "),
        (["train", "--schedule", "linear"], "错误: 参数 --schedule: 应为 step[:DROP[:EVERY]]、"),
        (["train", "--schedule", "step:0.5:0"], "参数 --schedule: 'step:0.5:0': every 不得小于 1"),
        (["train", "--kernel-shape", "29", "2"], "29x2 的卷积核大于 input_data（28x28）"),
        (["train", "--learning-rate", "1e9"], "梯度下降发散了。对这些数据，不超过 0."),
        (["train", "--out", "no/k.npz"], "错误: no/k.npz: 所在的文件夹不存在"),
        (["train", "--schedule", "step:half"], "'step:half': 'half' 不是数"),
        (["train", "--schedule", "cosine:0.5"], "final_rate 应在 0 和 0.1 之间，实际为 0.5"),
        (["train", "--out", ""], "要写入的文件名为空"),
        (["train", "--out", "."], "错误: .: 是文件夹，应为要写入的文件"),
        (["train", "--plot", "a.txt"], "图的文件名应以 .png, .pdf, .svg 之一结尾，实际为 a.txt"),
        (["train", "--plot", "a.png", "--out", "a.png"], "a.png 会覆盖同时用到的 a.png"),
        (["train", "x.npy", "y.npy"], "错误: x.npy: 文件或文件夹不存在"),
        (["train", "a.npy", "a.npy"], "TARGET 与 INPUT 一样大: 请给出 --kernel-shape"),
        (["train", "a.npy", "a.npy", "--padding", "same"], "由 --padding same 得不出卷积核的大小"),
        (["train", "text", "a.npy"], "input_data (text) 不是数组文件: 应为 .npy 或 .npz 文件，"),
        (["train", "a.npy", "b.npy", "--kernel-shape", "2", "2"], "input_data（a.npy）有 1 个样"),
        (["apply", "a.npy", "b.npy", "c.txt"], "OUTPUT 应以 .npy 结尾或是图像，实际为 c.txt"),
        (["apply", "a.npy", "text.png", "c.npy"], "text.png 不是 Pillow 能读取的图像"),
        (["apply", "a.npy", "four.npy", "c.npy"], "kernels 有 1 个通道，input_data 却有 4 个"),
        (
            ["apply", "a.npy", "five.npy", "c.npy"],
            "应为 (C, H, W) 或 (N, C, H, W)，实际为 5 维（形状",
        ),
        (
            ["apply", "four.npy", "a.npy", "c.npy"],
            "缺少的维大小为 1，如 array[None] 或 array[:, None",
        ),
        (["show", "no.npz"], "错误: no.npz: 文件或文件夹不存在"),
        (["show", "empty"], "错误: kernels (empty) 是空的: 应为"),
        (["solve", "a.npy", "b.npy"], "错误: 缺少参数: --kernel-shape（见 convext solve --help）"),
        (["train-images", ".", ".", "--layers", "7"], "参数 --layers: 每层应写作"),
        (["train-images", ".", ".", "--layers", "7x7"], "最后一层应有 1 个或 3 个滤波器，实际为 7"),
    ],
)
def test_errors_are_chinese(arguments, message, chinese, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.ones((1, 1, 4, 4)))
    np.save("b.npy", np.ones((2, 1, 3, 3)))
    np.save("four.npy", np.ones((4, 9, 9)))
    np.save("five.npy", np.ones((1, 1, 1, 4, 4)))
    for name, contents in (("text", "some text"), ("text.png", "some text"), ("empty", "")):
        Path(name).write_text(contents)
    assert cli.main(arguments) in (1, 2)
    error = capsys.readouterr().err
    assert error.startswith("convext: 错误: ")
    assert message in error
    assert error.count("\n") == 1
    assert_no_english(error)


def test_an_interrupt_is_reported_in_chinese(chinese, monkeypatch, capsys):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("convext.cli.info.run", interrupt)
    assert cli.main(["info"]) == 130
    assert capsys.readouterr().err == "convext: 已中断\n"


def test_commands_speak_chinese(chinese, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for command in (
        ["train", "--epochs", "3"],
        ["show", "kernels.npz"],
        ["generate"],
        ["train", "input_data.npy", "target_output.npy", "--epochs", "1"],
        ["apply", "kernels.npz", "input_data.npy", "out.npy"],
        ["info"],
    ):
        assert cli.main(command) == 0
    out = capsys.readouterr().out
    assert_no_english(out)
    for line in (
        "用随机数据训练: 100 个 3x28x28 的样本，随机种子 0",
        "卷积核: kernels.npz（查看: convext show kernels.npz）",
        "kernels.npz: 2 个卷积核，大小 3x2x2（float64）",
        "卷积核 1，通道 1:",
        "由文件的形状得知: 2 个卷积核，大小 2x2",
        "已写入 target_output.npy: (100, 2, 27, 27) float64",
    ):
        assert f"{line}\n" in out
    assert re.search(r"^训练了 2 个卷积核（3x2x2），共 3 轮: 第一轮平均损失 0\.\d{4}，", out, re.M)
    assert re.search(r"^指令集           \w+（已编译: baseline", out, re.M)


# The functions


def test_what_has_no_chinese_stays_english(chinese):
    assert translate("no such {thing}", thing="entry") == "no such entry"
    assert translate_error("no such {thing}") == "no such {thing}"


def test_braces_in_values_are_themselves(chinese, capsys):
    say("Plot: {file}", file="{loss}.png")
    say("{loss}.png")
    assert capsys.readouterr().out == "图: {loss}.png\n{loss}.png\n"
    assert translate_error("error: {a}: No such file or directory") == (
        "错误: {a}: 文件或文件夹不存在"
    )
    assert translate_error("a: b: Permission denied") == "a: b: 权限不足"


def test_things_are_counted(monkeypatch):
    monkeypatch.setenv("CONVEXT_LANG", "en")
    assert [counted(number, "kernel") for number in (0, 1, 2)] == [
        "0 kernels", "1 kernel", "2 kernels"
    ]  # fmt: skip
    monkeypatch.setenv("CONVEXT_LANG", "zh")
    assert [counted(number, "kernel") for number in (1, 2)] == ["1 个卷积核", "2 个卷积核"]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_help_is_english_where_chinese_cannot_be_printed(encoding, chinese, monkeypatch):
    binary = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(binary, encoding, write_through=True))
    assert cli.main(["train", "--help"]) == 0
    assert binary.getvalue().startswith(b"usage: convext train")


def test_what_an_encoding_lacks_is_escaped():
    ascii_only = io.TextIOWrapper(io.BytesIO(), "ascii")
    assert printable("3 × 卷", ascii_only) == r"3 \xd7 \u5377"
    assert printable("3 × 卷", None) == "3 × 卷"


@pytest.mark.parametrize("seed", range(20))
def test_wrapped_lines_fit_and_lose_nothing(seed):
    rng = np.random.default_rng(seed)
    pieces = [
        "卷积核",
        "train",
        "，",
        "（",
        "）",
        " ",
        " ",
        "3x3",
        "。",
        ":",
        "学习率",
        "--padding",
    ]
    text = "".join(rng.choice(pieces, 60)).strip()
    for width in (12, 25, 78):
        lines = wrap(text, width)
        assert re.sub(r"\s", "", "".join(lines)) == re.sub(r"\s", "", text)
        for line in lines:
            assert columns(line) <= width or not re.search(r"[\w ][\u4e00-\u9fff ]\w", line)
            assert line == line.rstrip()
        assert not any(
            line[0] in "，。）" for line in lines[1:] if not re.search(r" [，。）]", text)
        )
