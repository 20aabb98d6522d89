"""The commands of `og2` and the parsing around them; what each one does is in the file of its name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import typer

from og2.cli import exits, flags, training
from og2.config import nearest
from og2.errors import ConfigError

app = typer.Typer(
    name="og2",
    no_args_is_help=True,
    context_settings={"token_normalize_func": flags.dashed, **flags.HELP},
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Draws pictures from words, edits them by instruction, combines several, and describes them.\n\n"
    "Without --model every command uses mini, the small model inside the package (draws coloured shapes);"
    " --model takes the folder or hub id of the published OmniGen2 weights.\n\n"
    "Exit codes: 0 done, 2 usage or bad input, 3 checkpoint, 4 out of memory or disk, 130 stopped.",
)
_UsageError: type[Exception] = typer.BadParameter.__mro__[
    1
]  # click's, whether typer carries it or imports it


def dispatch(arguments: list[str]) -> int:
    """The exit code of a command line; raises whatever went wrong, usage errors as ConfigError."""
    command = typer.main.get_command(app)
    try:
        result = command.main(flags.expand_inputs(arguments), prog_name="og2", standalone_mode=False)
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            typer.echo(str(getattr(error, "message", error)))
            return 2
        raise ConfigError(_usage_sentence(error)) from error
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    if result == exits.STOPPED:  # newer versions of typer turn Ctrl-C into its code
        raise KeyboardInterrupt
    return result if isinstance(result, int) else 0


def _usage_sentence(error: Any) -> str:
    """What was wrong with the command line, the nearest right name, and where the right ones are listed."""
    context = error.ctx
    path = context.command_path if context else "og2"
    wrong = getattr(error, "option_name", None)
    if wrong and type(error).__name__ == "NoSuchOption" and context:
        close = difflib.get_close_matches(
            wrong, known := _option_names(context.command.params), n=1, cutoff=0.5
        )
        hint = f"did you mean {known[close[0]]}? " if close else ""
        return f"no such option {wrong} of {path}; {hint}({path} --help lists all)"
    text = error.format_message().rstrip(".")
    commands = getattr(context.command, "commands", None) if context else None
    if commands and text.startswith("No such command"):
        return f"{text[0].lower()}{text[1:]}; {nearest(text.split()[-1].strip(chr(39)), commands)}"
    return f"{text[0].lower()}{text[1:]} ({path} --help)"


def _option_names(params: Iterable[Any]) -> dict[str, str]:
    """Every name that is understood, with our own name of it."""
    names = [name for param in params if not getattr(param, "hidden", False) for name in param.opts]
    ours = {name: name for name in [*names, "--help"] if name.startswith("--")}
    return ours | {f"--{alias}": f"--{name}" for alias, name in flags.ALIASES.items() if f"--{name}" in ours}


def _version(show: bool) -> None:
    if show:
        from og2 import __version__

        typer.echo(f"og2 {__version__}")
        raise typer.Exit(0)


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Draws, edits, combines and describes pictures."""


def generate(**given: Any) -> None:
    """Draw a picture from a prompt.

    og2 generate "a red circle" --output circle.png
    """
    from og2.cli.draw import draw

    draw("generate", given)


def edit(**given: Any) -> None:
    """Edit a picture by instruction, or combine several.

    og2 edit "make it blue" --input a.png --output b.png
    """
    from og2.cli.draw import draw

    draw("edit", given)


def describe(**given: Any) -> None:
    """Say in words what pictures show, or answer a question.

    og2 describe a.png --question "what colour is it?"
    """
    from og2.cli.talk import describe as run

    run(given)


def chat(**given: Any) -> None:
    """Talk with the model, in words and pictures."""
    from og2.cli.talk import chat as run

    run(given)


def info(**given: Any) -> None:
    """Say what a model is, and list the presets."""
    from og2.cli.info import info as run

    run(given)


def doctor(**given: Any) -> None:
    """Say what this machine can run, and why not."""
    from og2.doctor import main as run

    run(**given)


_OPTIONAL_TEXT, _OPTIONAL_TEXTS = str | None, list[str] | None
_PROMPT = flags.argument("text", _OPTIONAL_TEXT, "PROMPT", "What to draw; - reads it from stdin.")
_INSTRUCTION = flags.argument("text", _OPTIONAL_TEXT, "INSTRUCTION", "What to change; - reads it from stdin.")
_PICTURES = flags.argument("pictures", _OPTIONAL_TEXTS, "PICTURE...", "Pictures, folders or glob patterns.")
_MODEL = flags.argument("model", _OPTIONAL_TEXT, "MODEL", "Folder or hub id; default mini.")
_JSON = flags.REPORT[0]
flags.attach(app, "generate", flags.GENERATE, [_PROMPT], generate)
flags.attach(app, "edit", flags.EDIT, [_INSTRUCTION], edit)
flags.attach(app, "describe", flags.DESCRIBE, [_PICTURES], describe)
flags.attach(app, "chat", flags.CHAT, [], chat)
flags.attach(app, "info", [_JSON], [_MODEL], info)
flags.attach(app, "doctor", [flags.MODEL[0], _JSON], [], doctor)


eval_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Measure a model.")
app.add_typer(eval_app, name="eval")


training.attach(app)
_PASSED_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


@eval_app.command("mini", context_settings=_PASSED_ON)
def eval_mini(context: typer.Context) -> int:
    """Draw, edit, combine and answer in the procedural world, scored from the pixels."""
    from og2.cli.loading import collect_garbage
    from og2.evals.command import eval_mini as run

    collect_garbage()
    return run(context.args)


@eval_app.command("subject", context_settings=_PASSED_ON)
def eval_subject(context: typer.Context) -> int:
    """Score a LoRA that learned one new subject, and what it forgot, from the pixels."""
    from og2.cli.loading import collect_garbage
    from og2.evals.command import eval_subject as run

    collect_garbage()
    return run(context.args)


world_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The procedural world.")
app.add_typer(world_app, name="world")


@world_app.command("certify", context_settings=_PASSED_ON)
def world_certify(context: typer.Context) -> int:
    """Measure the scorer of the procedural world itself: what it accepts, right and wrong."""
    from og2.cli.loading import collect_garbage
    from og2.evals.command import world_certify as run

    collect_garbage()
    return run(context.args)


@world_app.command("subject", context_settings=_PASSED_ON)
def world_subject(context: typer.Context) -> int:
    """Write a few pictures of a new subject with captions, to train a LoRA on."""
    from og2.evals.command import world_subject as run

    return run(context.args)
