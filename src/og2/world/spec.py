"""The public names of the world's specification: words, scenes, sentences, edits, questions, requirements.

One door for the rest of the package; the parts live in `palette` (what words mean), `scenes` (random scenes
and the held-out split), `requirements` (checkable statements), `language` (captions), `prompts`, `edits` and
`dialogue` (questions and chat). Nothing here draws or measures pixels.
"""

from __future__ import annotations

from og2.world.clips import Clip, Track, sample_clip
from og2.world.critique import (
    Reflection,
    find_defects,
    format_reflection,
    parse_reflection,
    reflect,
    seen_in,
    spoil,
)
from og2.world.dialogue import (
    CAPTION_QUESTIONS,
    IMAGE_ANSWER,
    QUESTION_KINDS,
    chat_turn,
    plain_caption,
    questions,
    typed_questions,
)
from og2.world.edit_words import Edit, Turn
from og2.world.edits import ALL_EDIT_KINDS, EDIT_KINDS, edit_kinds, sample_edit
from og2.world.incontext import INCONTEXT_TASKS, InContext, sample_incontext
from og2.world.language import Caption, caption, describe, requirements
from og2.world.palette import ALL_SHAPES, BACKGROUNDS, COLORS, FILLS, POSITIONS, RELATIONS, SHAPES, SIZES
from og2.world.prompts import PROMPT_TASKS, Prompt, plainly, sample_prompt
from og2.world.requirements import EditRequirements, ObjectRequirement, Requirements
from og2.world.scenes import WORLDS, Object, Scene, WorldName, sample_scene
from og2.world.split import SPLITS, split_of

__all__ = [
    "ALL_EDIT_KINDS",
    "ALL_SHAPES",
    "BACKGROUNDS",
    "CAPTION_QUESTIONS",
    "COLORS",
    "EDIT_KINDS",
    "FILLS",
    "IMAGE_ANSWER",
    "INCONTEXT_TASKS",
    "POSITIONS",
    "PROMPT_TASKS",
    "QUESTION_KINDS",
    "RELATIONS",
    "SHAPES",
    "SIZES",
    "SPLITS",
    "WORLDS",
    "Caption",
    "Clip",
    "Edit",
    "EditRequirements",
    "InContext",
    "Object",
    "ObjectRequirement",
    "Prompt",
    "Reflection",
    "Requirements",
    "Scene",
    "Track",
    "Turn",
    "WorldName",
    "caption",
    "chat_turn",
    "describe",
    "edit_kinds",
    "find_defects",
    "format_reflection",
    "parse_reflection",
    "plain_caption",
    "plainly",
    "questions",
    "reflect",
    "requirements",
    "sample_clip",
    "sample_edit",
    "sample_incontext",
    "sample_prompt",
    "sample_scene",
    "seen_in",
    "split_of",
    "spoil",
    "typed_questions",
]
