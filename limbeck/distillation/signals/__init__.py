"""What a teacher says, for a student: live, or recorded once and read back."""

from limbeck.distillation.signals.manifest import Description, read_description, shard_paths
from limbeck.distillation.teachers.offline import RecordedTeacher, num_kept
from limbeck.distillation.teachers.online import LiveTeacher, open_teacher

__all__ = [
    "Description",
    "LiveTeacher",
    "RecordedTeacher",
    "num_kept",
    "open_teacher",
    "read_description",
    "shard_paths",
]
