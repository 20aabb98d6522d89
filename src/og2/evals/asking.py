"""The understanding part of the mini benchmark: questions about pictures, answered in words.

Answers are compared as text, without case and full stops. The baselines are what needs no eyes: the answer
that is right most often for a kind of question, and the model's own answer to the same kind about the next
picture.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from PIL import Image

from og2.evals.items import NUM_ASK, NUM_ROUTE, ask_items, full_ask_items, route_items
from og2.evals.outcomes import Outcome
from og2.evals.report import Row, TaskReport
from og2.evals.store import Store
from og2.world.render import render_batch

Asked = tuple[str, str, str, str]  # key, kind, right answer, said
_ROUTING = "picture or words"


def evaluate_understanding(pipe: Any, options: Any, size: int, store: Store) -> TaskReport:
    """Accuracy per kind of question, and how often a picture is given exactly when one is wanted."""
    report = TaskReport(1.0)
    asked = _questions(pipe, options, size, store, report)
    families: dict[str, list[float]] = {}
    for _, kind, right, said in asked:
        families.setdefault(kind, []).append(float(plain(said) == plain(right)))
    routed = _routing(pipe, options, size, store, report)
    report.add_families(families)
    if routed:
        report.add_breakdown(_ROUTING, routed)
    if options.controls:
        report.add_control_families("most frequent answer", _most_frequent(asked))
        report.add_control_families("shuffled answers", _shuffled(asked))
    return report


def plain(text: str) -> str:
    """Text as it is compared."""
    return " ".join(text.lower().replace(".", " ").split())


def _questions(pipe: Any, options: Any, size: int, store: Store, report: TaskReport) -> list[Asked]:
    most = min(NUM_ASK, options.limit or NUM_ASK)
    items = list(enumerate(ask_items(most, options.seed)))
    items += enumerate(full_ask_items(most, options.seed)) if options.world == "full" else ()
    done: list[Asked] = []
    for place, (number, item) in enumerate(items):
        picture = render_batch([item.scene], options.size or max(size, item.px))[0].numpy()
        for kind, question, right in item.questions:
            key = f"understanding/{kind.replace(' ', '_')}/{number:04d}"
            said = store.answer(key)
            if said is None and options.generate:
                said = str(pipe.describe(Image.fromarray(picture), question))
                store.put_answer(key, said)
            if said is None:
                report.missing.append(key)
                continue
            done.append((key, kind, right, said))
            passed = plain(said) == plain(right)
            reason = "" if passed else f"said {said!r}, right is {right!r}"
            outcome = Outcome(float(passed), passed, reason)
            report.rows.append(Row(key, kind, question, (picture,), outcome))
        if options.on_item is not None:
            options.on_item("understanding", place + 1, len(items))
    return done


def _routing(pipe: Any, options: Any, size: int, store: Store, report: TaskReport) -> list[float]:
    right: list[float] = []
    for number, item in enumerate(route_items(min(NUM_ROUTE, options.limit or NUM_ROUTE), options.seed)):
        key = f"understanding/routing/{number:04d}"
        drew = store.answer(key)
        if drew is None and options.generate:
            shown = [] if item.scene is None else [render_batch([item.scene], size)[0].numpy()]
            pictures = [Image.fromarray(picture) for picture in shown]
            result = pipe.chat(item.text, pictures, num_inference_steps=1, seed=options.seed)
            drew = bool(len(result.images))
            store.put_answer(key, drew)
        if drew is None:
            report.missing.append(key)
            continue
        right.append(float(drew == item.wants_image))
    return right


def _most_frequent(asked: list[Asked]) -> dict[str, list[float]]:
    answers: dict[str, list[str]] = {}
    for _, kind, right, _ in asked:
        answers.setdefault(kind, []).append(plain(right))
    best = {kind: Counter(found).most_common(1)[0][0] for kind, found in answers.items()}
    return {kind: [float(answer == best[kind]) for answer in found] for kind, found in answers.items()}


def _shuffled(asked: list[Asked]) -> dict[str, list[float]]:
    by_kind: dict[str, list[Asked]] = {}
    for one in asked:
        by_kind.setdefault(one[1], []).append(one)
    return {
        kind: [float(plain(a[2]) == plain(b[3])) for a, b in zip(own, own[1:] + own[:1], strict=True)]
        for kind, own in by_kind.items()
        if len(own) > 1
    }
