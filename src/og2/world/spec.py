"""The public names of the world's specification: words, scenes, sentences, edits, questions, requirements.

One door for the rest of the package; the parts live in `palette` (what words mean), `scenes` (random scenes
and the held-out split), `requirements` (checkable statements), `language` (captions), `edits` and
`dialogue` (questions and chat). Nothing here draws or measures pixels.
"""

from __future__ import annotations

from og2.world.dialogue import (
    CAPTION_QUESTIONS,
    IMAGE_ANSWER,
    QUESTION_KINDS,
    chat_turn,
    plain_caption,
    questions,
    typed_questions,
)
from og2.world.edits import EDIT_KINDS, Edit, sample_edit
from og2.world.language import Caption, caption, describe, requirements
from og2.world.palette import BACKGROUNDS, COLORS, POSITIONS, RELATIONS, SHAPES, SIZES
from og2.world.requirements import EditRequirements, ObjectRequirement, Requirements
from og2.world.scenes import SPLITS, Object, Scene, sample_scene, split_of

__all__ = [
    "BACKGROUNDS",
    "CAPTION_QUESTIONS",
    "COLORS",
    "EDIT_KINDS",
    "IMAGE_ANSWER",
    "POSITIONS",
    "QUESTION_KINDS",
    "RELATIONS",
    "SHAPES",
    "SIZES",
    "SPLITS",
    "Caption",
    "Edit",
    "EditRequirements",
    "Object",
    "ObjectRequirement",
    "Requirements",
    "Scene",
    "caption",
    "chat_turn",
    "describe",
    "plain_caption",
    "questions",
    "requirements",
    "sample_edit",
    "sample_scene",
    "split_of",
    "typed_questions",
]
